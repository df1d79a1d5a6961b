"""Summary, utilization, cost and waste of the period. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.rendering.durations import duration
from gpu_advisor.report.advice_sections import first_actions_table
from gpu_advisor.report.comparison_section import comparison_words
from gpu_advisor.report.formatting import count, hours, money, percent, to_minute
from gpu_advisor.report.schema import Report
from gpu_advisor.report.section_model import Formatter, ReportSection, Row, number_cell, number_cells, should, table

#: The numbers of rows: of a group, of a GPU model, of a group's projection.
_USAGE_NUMBERS: tuple[tuple[str, Formatter], ...] = (
    ("gpus", count), ("gpu_utilization_ratio", percent), ("gpu_memory_ratio", percent), ("cpu_ratio", percent),
    ("coverage_ratio", percent),
)  # fmt: skip
_MODEL_NUMBERS: tuple[tuple[str, Formatter], ...] = (
    ("gpus", count), ("gpu_utilization_ratio", percent), ("gpu_hours/unused", hours), ("price_per_hour", money),
    ("cost/total", money), ("cost/unobserved", money), ("cost/unused", money), ("cost/idle_allocated", money),
)  # fmt: skip
_MONTHLY_NUMBERS: tuple[tuple[str, Formatter], ...] = (
    ("present", hours), ("busy", hours), ("unused", hours), ("unobserved", hours), ("cost", money),
    ("cost_unused", money), ("cost_unobserved", money),
)  # fmt: skip


def headline(document: Report) -> str:
    """The result in one sentence."""
    if not document["groups"]:
        return "No GPU was observed in this period."
    fleet = document["groups"][0]
    if fleet["gpu_utilization_ratio"] is None:
        return "GPUs were present, but their utilization is unknown."
    of_period = _observed_time(document)
    used, spent = fleet["gpu_hours"], fleet["cost"]["unused"]
    cost = "" if spent is None else f", which cost {money(spent)} {document['currency']}"
    return (
        f"{percent(fleet['gpu_utilization_ratio'])} of the observed GPU time was used{of_period}; "
        f"{hours(used['unused'])} of {hours(used['observed'])} GPU-hours were not{cost}."
    )


def _observed_time(document: Report) -> str:
    """` (1.2 of 168 hours have data)`; empty if the whole period has, to a tenth of an hour, or of a minute."""
    length, observed = _period_seconds(document) / 3600, document["projection"]["data_hours"]
    unit, scale = ("hours", 1) if length >= 2 else ("minutes", 60)
    whole, part = length * scale, observed * scale
    if round(part, 1) >= round(whole, 1):
        return ""
    return f" ({hours(part) if part >= 0.05 else 'less than 0.1'} of {whole:,.10g} {unit} have data)"


def _period_seconds(document: Report) -> int:
    return document["period"]["points"] * document["period"]["step_seconds"]


def no_gpus_advice(document: Report) -> str:
    """Why no GPU was observed in the period, as far as known, and what to do."""
    why = next((each["message"] for each in document["abstentions"] if each["subject"] == "gpus"), None)
    if why is None:
        return "Go further back with --since, or run gpu-advisor doctor to check the exporters."
    return f"Run gpu-advisor doctor. The reason: {why}{'' if why.endswith(('.', '?')) else '.'}"


def summary_section(document: Report) -> ReportSection:
    compared = comparison_words(document)
    paragraphs = [headline(document), *([compared] if compared else []), *_caveats(document)]
    if not document["groups"]:
        first = first_actions_table(document)
        return ReportSection("summary", "Summary", tuple(paragraphs), (first,) if first else ())
    fleet = document["groups"][0]

    def row(about: str, path: str, format_value: Formatter, should: str = "") -> Row:
        return about, number_cell(document, f"/groups/0/{path}", format_value), should

    band, currency = fleet["targets"], document["currency"]
    rows = (
        row("GPUs present", "gpus", count),
        row("GPU utilization", "gpu_utilization_ratio", percent, should(band["gpu_utilization"])),
        row("GPU memory", "gpu_memory_ratio", percent, should(band["gpu_memory"])),
        row("CPU of the nodes", "cpu_ratio", percent, should(band["cpu"])),
        row("unused GPU-hours", "gpu_hours/unused", hours),
        row("of these idle, memory allocated", "gpu_hours/idle_allocated", hours),
        row(f"cost of unused GPU-hours ({currency})", "cost/unused", money),
        row("GPU-hours of lost GPUs", "lost/gpu_hours", hours),
        row(f"cost of lost GPUs ({currency})", "lost/cost", money),
        row("data coverage since the first sample", "coverage_ratio", percent),
    )
    fleet_table = table("The fleet in this period", ("", "mean or sum", "target"), rows)
    first = first_actions_table(document)
    return ReportSection("summary", "Summary", tuple(paragraphs), (fleet_table, first) if first else (fleet_table,))


def _caveats(document: Report) -> Iterator[str]:
    """Limits of the numbers."""
    period = document["period"]
    if document["simulated"]:
        yield "These GPUs are simulated."
    if document["stale"]:
        yield f"The data source does not respond: {document['source']['message']}"
    if not document["groups"]:
        yield no_gpus_advice(document)
    begin, end = period["data_start"], period["data_end"]
    if begin and begin > period["start"]:
        yield f"There is no data before {to_minute(begin)} UTC."
    if end and end < period["end"]:
        yield f"There is no data after {to_minute(end)} UTC."
    unpriced = [each["name"] for each in document["models"] if each["price_per_hour"] is None]
    if unpriced and len(unpriced) < len(document["models"]):
        yield f"No price is set for {', '.join(unpriced)}: the cost excludes them."
    elif unpriced:
        yield "No prices are known, so cost is unknown: set cost.gpu_price_per_hour in the advisor's settings."
    if document["price_basis"]:
        yield f"Money is an {document['price_basis']}; set cost.gpu_price_per_hour for your own prices."
    yield from _lost_gpus(document)


def _lost_gpus(document: Report) -> Iterator[str]:
    lost = document["groups"][0]["lost"] if document["groups"] else None
    if lost is None or not lost["gpus"]:
        return
    subject = f"{lost['gpus']} {'GPU is' if lost['gpus'] == 1 else 'GPUs are'} lost"
    if lost["gpu_hours"] is None:
        yield f"{subject}: it is unknown for how long."
        return
    least = "at least " if lost["unknown_gpus"] else ""
    least_cost = "at least " if lost["unknown_gpus"] or lost["unpriced_gpus"] else ""
    cost = "" if lost["cost"] is None else f", which cost {least_cost}{money(lost['cost'])} {document['currency']}"
    yield f"{subject}: {least}{hours(lost['gpu_hours'])} GPU-hours in this period{cost}."


def usage_section(document: Report) -> ReportSection:
    head = (
        "", "GPUs present", "GPU utilization", "target", "GPU memory", "CPU of the nodes",
        "data coverage since the first sample",
    )  # fmt: skip
    rows: list[Row] = []
    for number, group in enumerate(document["groups"]):
        gpus, used, *others = number_cells(document, f"/groups/{number}", _USAGE_NUMBERS)
        rows.append((group["name"], gpus, used, should(group["targets"]["gpu_utilization"]), *others))
    step = duration(document["period"]["step_seconds"], words=True)
    paragraphs = (f"Each point is the mean over {step}. A gap is time without data; it is in no mean and no sum.",)
    return ReportSection("use", "Utilization", paragraphs, (table("Means over the period", head, rows),))


def cost_section(document: Report) -> ReportSection:
    names = ("present", "unobserved", "observed", "busy", "unused", "memory_allocated", "idle_allocated")
    head = ("present", "unobserved", "observed", "busy", "unused", "memory allocated", "idle, memory allocated")
    groups: list[Row] = [
        (group["name"], *number_cells(document, f"/groups/{number}/gpu_hours", [(name, hours) for name in names]))
        for number, group in enumerate(document["groups"])
    ]
    models: list[Row] = [
        (model["name"], *number_cells(document, f"/models/{number}", _MODEL_NUMBERS))
        for number, model in enumerate(document["models"])
    ]
    paragraphs = [
        "Cost is of the GPU-hours present: busy, unused and unobserved.",
        "Unused is observed time in which no kernel ran; idle is less than 1 % busy over half an hour or more. "
        "These are the definitions of the dashboard “GPU cost and waste”.",
    ]
    unknown = document["groups"][0]["gpu_hours"]["memory_unknown"]
    if unknown >= 0.05:
        paragraphs.append(f"For {hours(unknown)} GPU-hours memory use is unknown: they are in neither sum.")
    currency = document["currency"]
    columns = (
        "", "GPUs present", "utilization", "unused GPU-hours", f"price per hour ({currency})", f"cost ({currency})",
        "of it unobserved", "of it unused", "of it idle, memory allocated",
    )  # fmt: skip
    tables = (table("GPU-hours", ("", *head), groups), table("By GPU model", columns, models))
    return ReportSection("cost", "Cost and waste", tuple(paragraphs), tables)


def projection_section(document: Report) -> ReportSection:
    found, name = document["projection"], "A month at this rate"
    length = duration(_period_seconds(document), words=True)
    covered = percent(found["data_ratio"])
    data = f"{hours(found['data_hours'])} hours of this period have data, {covered} of the {length}"
    if not found["groups"]:
        words = f"No projection: {data}; it takes {found['min_data_hours']:g} hours."
        return ReportSection("projection", name, (words,))
    rows: list[Row] = [
        (group["name"], *number_cells(document, f"/projection/groups/{number}", _MONTHLY_NUMBERS))
        for number, group in enumerate(found["groups"])
    ]
    words = f"The period scaled to {found['month_hours']:g} hours, not a forecast. {data}."
    head = (
        "", "GPU-hours present", "busy", "unused", "unobserved", f"cost ({document['currency']})", "of it unused",
        "of it unobserved",
    )  # fmt: skip
    return ReportSection("projection", name, (words,), (table("GPU-hours and cost per month", head, rows),))
