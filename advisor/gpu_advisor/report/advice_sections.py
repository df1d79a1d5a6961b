"""What the advisor says now, what became of what it said, and how the report was made. Pure."""

from __future__ import annotations

from gpu_advisor.documents.schema import CheckDocument, RecommendationDocument
from gpu_advisor.report import formatting as figures
from gpu_advisor.report.formatting import UNKNOWN, humanize, money, percent, points, to_minute
from gpu_advisor.report.schema import Report
from gpu_advisor.report.section_model import ReportSection, ReportTable, TableCell, number_cell, should


def checklist(document: Report) -> ReportSection:
    listed = [each for each in document["checks"]["items"] if each["scope"]["kind"] in ("fleet", "pool")]
    rows = []
    for number, each in enumerate(document["checks"]["items"]):
        if each in listed:
            path = f"/checks/items/{number}/value"
            of = "fleet" if each["scope"]["kind"] == "fleet" else each["scope"]["label"]
            value = number_cell(document, path, money if each["item"] == "cost" else percent)
            rows.append(
                (
                    TableCell(each["title"]),
                    TableCell(of),
                    TableCell(each["status"]),
                    value,
                    TableCell(_format_target(each)),
                    TableCell(each["message"]),
                )
            )
    nodes = [each for each in document["checks"]["items"] if each["scope"]["kind"] == "node"]
    missed = sum(1 for each in nodes if each["status"] == "missed")
    unknown = sum(1 for each in nodes if each["status"] == "unknown")
    paragraphs = [
        f"As it stands at {to_minute(document['at'])} UTC, over the last minutes." if document["at"] else "Not known."
    ]
    if nodes:
        paragraphs.append(f"Of {len(nodes)} items of single nodes, {missed} are missed and {unknown} are unknown.")
    table = ReportTable("Checklist", ("item", "of", "status", "value", "should be", "why"), tuple(rows))
    return ReportSection("checklist", "Checklist now", tuple(paragraphs), (table,) if rows else ())


def _format_target(check: CheckDocument) -> str:
    tell = money if check["item"] == "cost" else percent
    return should({"low": check["low"], "high": check["high"]}, tell)


def advice(document: Report) -> ReportSection:
    listed = document["recommendations"]
    if not listed:
        nothing = "Nothing is recommended now." if document["at"] else "Not known: no evaluation has succeeded."
        return ReportSection("advice", "What to do", (nothing,))
    paragraphs = []
    if document["recommendations_total"] > len(listed):
        paragraphs.append(f"The first {len(listed)} of {document['recommendations_total']}.")
    worth = document["worth"]
    if worth["gpus"]:
        cost = "" if worth["money_per_hour"] is None else f", or {money(worth['money_per_hour'])} per hour"
        paragraphs.append(f"All together are worth up to {worth['gpus']:.2g} GPUs' work{cost}.")
    paragraphs.append("gpu-advisor recommend ID shows the evidence of one and how to apply it.")
    rows = tuple(_recommendation_row(document, number, each) for number, each in enumerate(listed))
    head = ("urgency", "what to do", "change", "utilization then", "cost per hour", "since (UTC)", "ID")
    return ReportSection("advice", "What to do", tuple(paragraphs), (ReportTable("Recommendations", head, rows),))


def _recommendation_row(document: Report, number: int, each: RecommendationDocument) -> tuple[TableCell, ...]:
    path = f"/recommendations/{number}"
    change = f"{each['current']:g} → {each['recommended']:g} {each['unit']}"
    marks = [name for name, true in (("held", each["held"]), ("snoozed", each["snoozed"])) if true]
    return (
        TableCell(", ".join([each["severity"], *marks])),
        TableCell(each["summary"]),
        TableCell(change),
        number_cell(document, f"{path}/projection/utilization_ratio", percent),
        number_cell(document, f"{path}/projection/cost_change_per_hour", figures.signed_money),
        TableCell(to_minute(each["since"])),
        TableCell(each["id"]),
    )


def outcomes(document: Report) -> ReportSection:
    outcome_list, name = document["outcomes"], "What became of advice"
    if outcome_list is None:
        return ReportSection(
            "outcomes", name, ("Not known: only an advisor that runs remembers it; ask one with --advisor.",)
        )
    if not outcome_list:
        return ReportSection("outcomes", name, ("No advice ended in this time whose outcome could be judged.",))
    rows = tuple(
        (
            TableCell(to_minute(each["ended"])),
            TableCell(humanize(each["kind"])),
            TableCell(each["scope"]["label"]),
            TableCell(humanize(each["result"])),
            TableCell(
                f"{each['current']:g} → {UNKNOWN if each['observed'] is None else format(each['observed'], 'g')}"
            ),
            number_cell(document, f"/outcomes/{number}/utilization_before_ratio", percent),
            number_cell(document, f"/outcomes/{number}/utilization_projected_ratio", percent),
            number_cell(document, f"/outcomes/{number}/utilization_after_ratio", percent),
            number_cell(document, f"/outcomes/{number}/projection_error_ratio", points),
            TableCell({True: "yes", False: "no", None: UNKNOWN}[each["improved"]]),
        )
        for number, each in enumerate(outcome_list)
    )
    head = (
        "ended (UTC)", "kind", "of", "result", "size", "utilization before", "projected", "after", "off by", "improved",
    )  # fmt: skip
    return ReportSection("outcomes", name, (), (ReportTable("Before and after", head, rows),))


def unknown(document: Report) -> ReportSection:
    paragraphs = list(document["untold"])
    for each in document["abstentions"]:
        about = "" if each["scope"]["kind"] == "fleet" else f" of {each['scope']['label']}"
        paragraphs.append(f"{humanize(each['subject'])}{about} ({humanize(each['reason'])}): {each['message']}")
    return ReportSection(
        "unknown", "What cannot be told, and why", tuple(paragraphs) or ("All that was asked for could be told.",)
    )


def making(document: Report) -> ReportSection:
    source, period = document["source"], document["period"]
    own = "the exporters' own series"
    how = f"recorded series, and where there are none from {own}" if document["recorded"] else own
    steps = f"{period['points']} steps of {figures.length(period['step_seconds'])}"
    paragraphs = [
        f"Read from {source['name']} at {source['address']}, in {steps}, from {how}.",
        "A GPU is there from its first to its last sighting. What was not seen is taken neither for use nor for waste.",
    ]
    if document["queries"]:
        paragraphs.append(
            "Each query gives the fleet's number again, pasted into a Prometheus that has the same series."
        )
    code = tuple((query["about"], query["promql"]) for query in document["queries"])
    return ReportSection("making", "How these numbers are made", tuple(paragraphs), (), code)
