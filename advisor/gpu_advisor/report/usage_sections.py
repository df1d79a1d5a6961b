"""What a stretch of time was like: at a glance, use, cost and waste. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.report import formatting as figures
from gpu_advisor.report.formatting import count, hours, money, percent, to_minute
from gpu_advisor.report.schema import Report
from gpu_advisor.report.section_model import Formatter, ReportSection, ReportTable, TableCell, number_cell, should


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


def summary(document: Report) -> ReportSection:
    paragraphs = [headline(document), *_caveats(document)]
    if not document["groups"]:
        return ReportSection("summary", "At a glance", tuple(paragraphs))
    fleet = document["groups"][0]

    def row(about: str, path: str, tell: Formatter, should: str = "") -> tuple[TableCell, ...]:
        return TableCell(about), number_cell(document, f"/groups/0/{path}", tell), TableCell(should)

    band = fleet["targets"]
    rows = (
        row("GPUs that were there", "gpus", count),
        row("GPU utilization", "gpu_utilization_ratio", percent, should(band["gpu_utilization"])),
        row("GPU memory held", "gpu_memory_ratio", percent, should(band["gpu_memory"])),
        row("CPU of the nodes", "cpu_ratio", percent, should(band["cpu"])),
        row("GPU-hours that nobody used", "gpu_hours/unused", hours),
        row("of them, held by idle processes", "gpu_hours/idle_holding", hours),
        row("what the unused time cost", "money/unused", money),
        row("how much of the time was seen", "coverage_ratio", percent),
    )
    table = ReportTable("The fleet in this time", ("", "mean or sum", "should be"), rows)
    return ReportSection("summary", "At a glance", tuple(paragraphs), (table,))


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
        yield f"The data begin at {to_minute(begin)} UTC: nothing is known of the time before."
    if end and end < period["end"]:
        yield f"The data end at {to_minute(end)} UTC: nothing was seen of any GPU after that."
    unpriced = [each["name"] for each in document["models"] if each["price_per_hour"] is None]
    if unpriced and len(unpriced) < len(document["models"]):
        yield f"No price is known of {', '.join(unpriced)}: the sums of money are without these."
    elif unpriced:
        yield "No prices are known, so no money is told: set cost.gpu_price_per_hour in the advisor's settings."


def use(document: Report) -> ReportSection:
    head = ("", "GPUs", "GPU utilization", "should be", "GPU memory", "CPU of the nodes", "seen of the time")
    rows = []
    for number, group in enumerate(document["groups"]):
        path = f"/groups/{number}"
        rows.append(
            (
                TableCell(group["name"]),
                number_cell(document, f"{path}/gpus", count),
                number_cell(document, f"{path}/gpu_utilization_ratio", percent),
                TableCell(should(group["targets"]["gpu_utilization"])),
                number_cell(document, f"{path}/gpu_memory_ratio", percent),
                number_cell(document, f"{path}/cpu_ratio", percent),
                number_cell(document, f"{path}/coverage_ratio", percent),
            )
        )
    step = figures.length(document["period"]["step_seconds"])
    paragraphs = (
        f"Each point of a curve is the mean over {step}. A gap in a curve is time in which nothing was seen; it is "
        "in no mean and in no sum.",
    )
    return ReportSection(
        "use", "How the GPUs were used", paragraphs, (ReportTable("Means over the time", head, tuple(rows)),)
    )


def cost(document: Report) -> ReportSection:
    names = ("there", "seen", "busy", "unused", "held", "idle_holding")
    head = ("there", "seen", "busy", "unused", "memory held", "idle, memory held")
    groups = tuple(
        (
            TableCell(group["name"]),
            *(number_cell(document, f"/groups/{number}/gpu_hours/{name}", hours) for name in names),
        )
        for number, group in enumerate(document["groups"])
    )
    models = tuple(
        (
            TableCell(model["name"]),
            number_cell(document, f"/models/{number}/gpus", count),
            number_cell(document, f"/models/{number}/gpu_utilization_ratio", percent),
            number_cell(document, f"/models/{number}/gpu_hours/unused", hours),
            number_cell(document, f"/models/{number}/price_per_hour", money),
            number_cell(document, f"/models/{number}/money/there", money),
            number_cell(document, f"/models/{number}/money/unused", money),
            number_cell(document, f"/models/{number}/money/idle_holding", money),
        )
        for number, model in enumerate(document["models"])
    )
    paragraphs = [
        "Unused is the time in which a GPU was seen and no kernel ran; idle, less than 1 % of half an hour or more. "
        "These are the definitions of the dashboard “GPU cost and waste”."
    ]
    untold = document["groups"][0]["gpu_hours"]["untold_holding"]
    if untold >= 0.05:
        paragraphs.append(
            f"Of {hours(untold)} GPU-hours it is not known whether memory was held: they are in neither sum."
        )
    columns = ("", "GPUs", "used", "unused GPU-hours", "price per hour", "cost", "of it unused", "of it idle, held")
    tables = (ReportTable("GPU-hours", ("", *head), groups), ReportTable("By model of GPU", columns, models))
    return ReportSection("cost", "Cost and waste", tuple(paragraphs), tables)
