"""The period beside the one before. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.rendering.durations import duration
from gpu_advisor.report.formatting import (
    count,
    hours,
    money,
    percent,
    percentage_points,
    signed_count,
    signed_hours,
    signed_money,
    signed_percent,
    to_minute,
)
from gpu_advisor.report.period import DAY
from gpu_advisor.report.schema import Change, ComparisonDocument, PeriodDocument, Report
from gpu_advisor.report.section_model import (
    Formatter,
    ReportSection,
    ReportTable,
    Row,
    TableCell,
    at,
    number_cells,
    table,
)

#: Field of FleetChanges, name, formats of a value and of a difference.
_FLEET_ROWS: tuple[tuple[str, str, Formatter, Formatter], ...] = (
    ("gpus", "GPUs present", count, signed_count),
    ("gpu_utilization_ratio", "GPU utilization", percent, percentage_points),
    ("gpu_memory_ratio", "GPU memory", percent, percentage_points),
    ("busy_per_day", "busy GPU-hours per day", hours, signed_hours),
    ("unused_per_day", "unused GPU-hours per day", hours, signed_hours),
    ("idle_allocated_per_day", "of these idle, memory allocated", hours, signed_hours),
    ("cost_per_day", "cost per day", money, signed_money),
    ("cost_unobserved_per_day", "of it unobserved", money, signed_money),
    ("cost_unused_per_day", "cost of unused GPU-hours per day", money, signed_money),
)


def before_words(period: PeriodDocument) -> str:
    """`the week before`, `the 6 hours before`."""
    seconds = period["points"] * period["step_seconds"]
    length = "week" if seconds == 7 * DAY else duration(seconds, words=True).removeprefix("1 ")
    return f"the {length} before"


def has_data(found: ComparisonDocument) -> bool:
    return found["fleet"]["gpus"]["before"] is not None


def comparison_words(document: Report) -> str | None:
    """The change of utilization and of waste in one sentence; None without a period before."""
    found = document["comparison"]
    if found is None:
        return None
    name = before_words(found["period"])
    if not has_data(found):
        return f"There is no data for {name}."
    parts = list(_sentence_parts(found))
    return f"Against {name}: {', '.join(parts)}." if parts else None


def _sentence_parts(found: ComparisonDocument) -> Iterator[str]:
    """Where both periods are known."""
    utilization, unused = found["fleet"]["gpu_utilization_ratio"], found["fleet"]["unused_per_day"]
    if utilization["difference"] is not None:
        yield f"GPU utilization {percentage_points(utilization['difference'])}{_in_brackets(utilization)}"
    if unused["difference_ratio"] is not None:
        yield f"unused GPU-hours per day {signed_percent(unused['difference_ratio'])}{_in_brackets(unused)}"


def _in_brackets(change: Change) -> str:
    return f" ({change['verdict']})" if change["verdict"] else ""


def comparison_section(document: Report) -> ReportSection | None:
    """None without a period before."""
    found = document["comparison"]
    if found is None:
        return None
    period, name = found["period"], before_words(found["period"])
    title, when = f"Against {name}", f"{to_minute(period['start'])} to {to_minute(period['end'])} UTC"
    if not has_data(found):
        return ReportSection("change", title, (f"There is no data for {name}, {when}.", *found["unavailable"]))
    words = (
        f"Before is {when}. {percent(document['projection']['data_ratio'])} of this period and "
        f"{percent(found['data_ratio'])} of {name} have data; GPU-hours and money are per day with data. "
        "The same prices apply to both.",
        *found["unavailable"],
    )
    return ReportSection("change", title, words, (_fleet_table(document), *_owner_tables(document, found)))


def _fleet_table(document: Report) -> ReportTable:
    rows: list[Row] = []
    for field, about, of_value, of_difference in _FLEET_ROWS:
        path = f"/comparison/fleet/{field}"
        name = f"{about} ({document['currency']})" if of_value is money else about
        rows.append((name, *_cells(document, path, of_value, of_difference), at(document, f"{path}/verdict") or ""))
    return table("The fleet", ("", "this period", "before", "difference", "relative", ""), rows)


def _owner_tables(document: Report, found: ComparisonDocument) -> Iterator[ReportTable]:
    currency = document["currency"]
    head = (
        "unused GPU-hours per day", "before", "difference", "relative",
        f"their cost per day ({currency})", "before", "difference", "relative", "",
    )  # fmt: skip
    groupings = (("team", found["by"]["team"]), ("namespace", found["by"]["namespace"]), ("user", found["by"]["user"]))
    for by, groups in groupings:
        rows: list[Row] = []
        for number, group in enumerate(groups):
            path = f"/comparison/by/{by}/{number}"
            unused = _cells(document, f"{path}/unused_per_day", hours, signed_hours)
            cost = _cells(document, f"{path}/cost_unused_per_day", money, signed_money)
            rows.append((group["name"], *unused, *cost, group["unused_per_day"]["verdict"] or ""))
        if rows:
            yield table(f"By {by}", (by, *head), rows)


def _cells(document: Report, path: str, of_value: Formatter, of_difference: Formatter) -> Iterator[TableCell]:
    formats = (
        ("now", of_value), ("before", of_value), ("difference", of_difference), ("difference_ratio", signed_percent),
    )  # fmt: skip
    return number_cells(document, path, formats)
