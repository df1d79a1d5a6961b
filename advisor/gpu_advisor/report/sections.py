"""A report in words and tables: what the page and the Markdown both show. Pure.

Each number of a table knows where it stands in the document, so that a rendering can be held against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gpu_advisor.publish.shapes import Check, Recommendation
from gpu_advisor.report import figures
from gpu_advisor.report.figures import UNKNOWN, count, hours, money, percent, points, time, words
from gpu_advisor.report.shapes import Band, Report

Tell = Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class Cell:
    """`path` is the JSON pointer (RFC 6901) of the number that `text` tells; empty for words."""

    text: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Section:
    """`key` is what plots are put to."""

    key: str
    title: str
    words: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    code: tuple[tuple[str, str], ...] = ()


def at(document: Report, pointer: str) -> Any:
    """The value at a JSON pointer."""
    found: Any = document
    for key in pointer.split("/")[1:]:
        found = found[int(key) if isinstance(found, list) else key]
    return found


def sections(document: Report) -> list[Section]:
    """In the order of reading. A report in which no GPU was seen has little to say, and says why."""
    found = [_summary(document)]
    if document["groups"]:
        found += [_use(document), _cost(document)]
    found += [_checklist(document), _advice(document)]
    found += [_outcomes(document), _unknown(document)]
    return [*found, _making(document)]


def title(document: Report) -> str:
    return f"GPU report of cluster {document['cluster']}"


def when(document: Report) -> str:
    period = document["period"]
    length = figures.length(period["points"] * period["step_seconds"])
    return f"{time(period['start'])} to {time(period['end'])} UTC, {length}"


def headline(document: Report) -> str:
    """One sentence that says how it was."""
    if not document["groups"]:
        return "No GPU was seen in this time."
    fleet = document["groups"][0]
    if fleet["gpu_utilization_ratio"] is None:
        return "GPUs were there, but nothing is known of how they were used."
    used, spent = fleet["gpu_hours"], fleet["money"]["unused"]
    cost = "" if spent is None else f", which cost {money(spent)}"
    return (
        f"{percent(fleet['gpu_utilization_ratio'])} of the GPU time was used; "
        f"{hours(used['unused'])} of {hours(used['seen'])} GPU-hours were not{cost}."
    )


def _summary(document: Report) -> Section:
    said = [headline(document), *_caveats(document)]
    if not document["groups"]:
        return Section("summary", "At a glance", tuple(said))
    fleet = document["groups"][0]

    def row(about: str, path: str, tell: Tell, should: str = "") -> tuple[Cell, ...]:
        return Cell(about), _cell(document, f"/groups/0/{path}", tell), Cell(should)

    band = fleet["targets"]
    rows = (
        row("GPUs that were there", "gpus", count),
        row("GPU utilization", "gpu_utilization_ratio", percent, _should(band["gpu_utilization"])),
        row("GPU memory held", "gpu_memory_ratio", percent, _should(band["gpu_memory"])),
        row("CPU of the nodes", "cpu_ratio", percent, _should(band["cpu"])),
        row("GPU-hours that nobody used", "gpu_hours/unused", hours),
        row("of them, held by idle processes", "gpu_hours/idle_holding", hours),
        row("what the unused time cost", "money/unused", money),
        row("how much of the time was seen", "coverage_ratio", percent),
    )
    table = Table("The fleet in this time", ("", "mean or sum", "should be"), rows)
    return Section("summary", "At a glance", tuple(said), (table,))


def _caveats(document: Report) -> Iterator[str]:
    """What keeps the numbers from being what they look like."""
    period = document["period"]
    if document["simulated"]:
        yield "These GPUs are simulated: nothing here is of a real machine."
    if document["stale"]:
        yield f"The data source does not answer at present: {document['source']['message']}"
    if not document["groups"]:
        yield "See with gpu-advisor check whether an exporter is scraped, or ask for an earlier time with --since."
    begin, end = period["data_start"], period["data_end"]
    if begin and begin > period["start"]:
        yield f"The data begin at {time(begin)} UTC: nothing is known of the time before."
    if end and end < period["end"]:
        yield f"The data end at {time(end)} UTC: nothing was seen of any GPU after that."
    unpriced = [each["name"] for each in document["models"] if each["price_per_hour"] is None]
    if unpriced and len(unpriced) < len(document["models"]):
        yield f"No price is known of {', '.join(unpriced)}: the sums of money are without these."
    elif unpriced:
        yield "No prices are known, so no money is told: set cost.gpu_price_per_hour in the advisor's settings."


def _use(document: Report) -> Section:
    head = ("", "GPUs", "GPU utilization", "should be", "GPU memory", "CPU of the nodes", "seen of the time")
    rows = []
    for number, group in enumerate(document["groups"]):
        path = f"/groups/{number}"
        rows.append(
            (
                Cell(group["name"]),
                _cell(document, f"{path}/gpus", count),
                _cell(document, f"{path}/gpu_utilization_ratio", percent),
                Cell(_should(group["targets"]["gpu_utilization"])),
                _cell(document, f"{path}/gpu_memory_ratio", percent),
                _cell(document, f"{path}/cpu_ratio", percent),
                _cell(document, f"{path}/coverage_ratio", percent),
            )
        )
    step = figures.length(document["period"]["step_seconds"])
    said = (
        f"Each point of a curve is the mean over {step}. A gap in a curve is time in which nothing was seen; it is "
        "in no mean and in no sum.",
    )
    return Section("use", "How the GPUs were used", said, (Table("Means over the time", head, tuple(rows)),))


def _cost(document: Report) -> Section:
    names = ("there", "seen", "busy", "unused", "held", "idle_holding")
    head = ("there", "seen", "busy", "unused", "memory held", "idle, memory held")
    groups = tuple(
        (Cell(group["name"]), *(_cell(document, f"/groups/{number}/gpu_hours/{name}", hours) for name in names))
        for number, group in enumerate(document["groups"])
    )
    models = tuple(
        (
            Cell(model["name"]),
            _cell(document, f"/models/{number}/gpus", count),
            _cell(document, f"/models/{number}/gpu_utilization_ratio", percent),
            _cell(document, f"/models/{number}/gpu_hours/unused", hours),
            _cell(document, f"/models/{number}/price_per_hour", money),
            _cell(document, f"/models/{number}/money/there", money),
            _cell(document, f"/models/{number}/money/unused", money),
            _cell(document, f"/models/{number}/money/idle_holding", money),
        )
        for number, model in enumerate(document["models"])
    )
    said = [
        "Unused is the time in which a GPU was seen and no kernel ran; idle, less than 1 % of half an hour or more. "
        "These are the definitions of the dashboard “GPU cost and waste”."
    ]
    untold = document["groups"][0]["gpu_hours"]["untold_holding"]
    if untold >= 0.05:
        said.append(f"Of {hours(untold)} GPU-hours it is not known whether memory was held: they are in neither sum.")
    columns = ("", "GPUs", "used", "unused GPU-hours", "price per hour", "cost", "of it unused", "of it idle, held")
    tables = (Table("GPU-hours", ("", *head), groups), Table("By model of GPU", columns, models))
    return Section("cost", "Cost and waste", tuple(said), tables)


def _checklist(document: Report) -> Section:
    listed = [each for each in document["checks"]["items"] if each["scope"]["kind"] in ("fleet", "pool")]
    rows = []
    for number, each in enumerate(document["checks"]["items"]):
        if each in listed:
            path = f"/checks/items/{number}/value"
            of = "fleet" if each["scope"]["kind"] == "fleet" else each["scope"]["label"]
            value = _cell(document, path, money if each["item"] == "cost" else percent)
            rows.append(
                (
                    Cell(each["title"]),
                    Cell(of),
                    Cell(each["status"]),
                    value,
                    Cell(_band_of(each)),
                    Cell(each["message"]),
                )
            )
    nodes = [each for each in document["checks"]["items"] if each["scope"]["kind"] == "node"]
    missed = sum(1 for each in nodes if each["status"] == "missed")
    unknown = sum(1 for each in nodes if each["status"] == "unknown")
    said = [f"As it stands at {time(document['at'])} UTC, over the last minutes." if document["at"] else "Not known."]
    if nodes:
        said.append(f"Of {len(nodes)} items of single nodes, {missed} are missed and {unknown} are unknown.")
    table = Table("Checklist", ("item", "of", "status", "value", "should be", "why"), tuple(rows))
    return Section("checklist", "Checklist now", tuple(said), (table,) if rows else ())


def _band_of(check: Check) -> str:
    tell = money if check["item"] == "cost" else percent
    return _should({"low": check["low"], "high": check["high"]}, tell)


def _advice(document: Report) -> Section:
    listed = document["recommendations"]
    if not listed:
        nothing = "Nothing is recommended now." if document["at"] else "Not known: no evaluation has succeeded."
        return Section("advice", "What to do", (nothing,))
    said = []
    if document["recommendations_total"] > len(listed):
        said.append(f"The first {len(listed)} of {document['recommendations_total']}.")
    worth = document["worth"]
    if worth["gpus"]:
        cost = "" if worth["money_per_hour"] is None else f", or {money(worth['money_per_hour'])} per hour"
        said.append(f"All together are worth up to {worth['gpus']:.2g} GPUs' work{cost}.")
    said.append("gpu-advisor recommend ID shows the evidence of one and how to apply it.")
    rows = tuple(_recommended(document, number, each) for number, each in enumerate(listed))
    head = ("urgency", "what to do", "change", "utilization then", "cost per hour", "since (UTC)", "ID")
    return Section("advice", "What to do", tuple(said), (Table("Recommendations", head, rows),))


def _recommended(document: Report, number: int, each: Recommendation) -> tuple[Cell, ...]:
    path = f"/recommendations/{number}"
    change = f"{each['current']:g} → {each['recommended']:g} {each['unit']}"
    marks = [name for name, true in (("held", each["held"]), ("snoozed", each["snoozed"])) if true]
    return (
        Cell(", ".join([each["severity"], *marks])),
        Cell(each["summary"]),
        Cell(change),
        _cell(document, f"{path}/projection/utilization_ratio", percent),
        _cell(document, f"{path}/projection/cost_change_per_hour", figures.signed_money),
        Cell(time(each["since"])),
        Cell(each["id"]),
    )


def _outcomes(document: Report) -> Section:
    found, name = document["outcomes"], "What became of advice"
    if found is None:
        return Section(
            "outcomes", name, ("Not known: only an advisor that runs remembers it; ask one with --advisor.",)
        )
    if not found:
        return Section("outcomes", name, ("No advice ended in this time whose outcome could be judged.",))
    rows = tuple(
        (
            Cell(time(each["ended"])),
            Cell(words(each["kind"])),
            Cell(each["scope"]["label"]),
            Cell(words(each["result"])),
            Cell(f"{each['current']:g} → {UNKNOWN if each['observed'] is None else format(each['observed'], 'g')}"),
            _cell(document, f"/outcomes/{number}/utilization_before_ratio", percent),
            _cell(document, f"/outcomes/{number}/utilization_projected_ratio", percent),
            _cell(document, f"/outcomes/{number}/utilization_after_ratio", percent),
            _cell(document, f"/outcomes/{number}/projection_error_ratio", points),
            Cell({True: "yes", False: "no", None: UNKNOWN}[each["improved"]]),
        )
        for number, each in enumerate(found)
    )
    head = (
        "ended (UTC)", "kind", "of", "result", "size", "utilization before", "projected", "after", "off by", "improved",
    )  # fmt: skip
    return Section("outcomes", name, (), (Table("Before and after", head, rows),))


def _unknown(document: Report) -> Section:
    said = list(document["untold"])
    for each in document["abstentions"]:
        about = "" if each["scope"]["kind"] == "fleet" else f" of {each['scope']['label']}"
        said.append(f"{words(each['subject'])}{about} ({words(each['reason'])}): {each['message']}")
    return Section("unknown", "What cannot be told, and why", tuple(said) or ("All that was asked for could be told.",))


def _making(document: Report) -> Section:
    source, period = document["source"], document["period"]
    own = "the exporters' own series"
    how = f"recorded series, and where there are none from {own}" if document["recorded"] else own
    steps = f"{period['points']} steps of {figures.length(period['step_seconds'])}"
    said = [
        f"Read from {source['name']} at {source['address']}, in {steps}, from {how}.",
        "A GPU is there from its first to its last sighting. What was not seen is taken neither for use nor for waste.",
    ]
    if document["queries"]:
        said.append("Each query gives the fleet's number again, pasted into a Prometheus that has the same series.")
    code = tuple((query["about"], query["promql"]) for query in document["queries"])
    return Section("making", "How these numbers are made", tuple(said), (), code)


def _should(band: Band, tell: Tell = percent) -> str:
    """Where a value should be; a band up to the whole has a lower edge only."""
    low, high = band["low"], band["high"]
    if low and high is not None and (high < 1 or tell is money):
        return f"{tell(low)} to {tell(high)}"
    if low:
        return f"at least {tell(low)}"
    return "" if high is None else f"at most {tell(high)}"


def _cell(document: Report, pointer: str, tell: Tell) -> Cell:
    return Cell(tell(at(document, pointer)), pointer)


def rows_of(found: Sequence[Section]) -> Iterator[Cell]:
    """All cells of all tables."""
    for section in found:
        for table in section.tables:
            for row in table.rows:
                yield from row
