"""Current checklist and recommendations, outcomes, missing data and method. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.documents.schema import (
    CheckDocument,
    MoneySummaryDocument,
    OutcomeDocument,
    RecommendationDocument,
    WasteGroupDocument,
)
from gpu_advisor.evaluation.money import BOUND_WORDS
from gpu_advisor.rendering.durations import duration
from gpu_advisor.rendering.names import humanize
from gpu_advisor.report.comparison_section import before_words
from gpu_advisor.report.formatting import UNKNOWN, gpus, money, percent, percentage_points, to_minute
from gpu_advisor.report.schema import Report
from gpu_advisor.report.section_model import (
    Formatter,
    ReportSection,
    ReportTable,
    Row,
    TableCell,
    number_cell,
    number_cells,
    should,
    table,
)

#: Ratios from here on are shown as 100.0 %.
_WHOLE_RATIO = 0.9995


def checklist_section(document: Report) -> ReportSection:
    listed = [each for each in document["checks"]["items"] if each["scope"]["kind"] in ("fleet", "pool")]
    rows = []
    for number, each in enumerate(document["checks"]["items"]):
        if each in listed:
            path = f"/checks/items/{number}/value"
            of = "fleet" if each["scope"]["kind"] == "fleet" else each["scope"]["label"]
            value = number_cell(document, path, money if each["item"] == "cost" else percent)
            rows.append((each["title"], of, _status(document, each), value, _format_target(each), each["message"]))
    nodes = [each for each in document["checks"]["items"] if each["scope"]["kind"] == "node"]
    missed = sum(1 for each in nodes if each["status"] == "missed")
    unknown = sum(1 for each in nodes if each["status"] == "unknown")
    paragraphs = [
        f"Evaluated at {to_minute(document['at'])} UTC." if document["at"] else "No evaluation has succeeded."
    ]
    if nodes:
        paragraphs.append(f"Checks of single nodes: {len(nodes)}, of which {missed} missed and {unknown} unknown.")
    tables = (table("Checklist", ("item", "scope", "status", "value", "target", "reason"), rows),) if rows else ()
    return ReportSection("checklist", "Checklist", tuple(paragraphs), tables)


def _status(document: Report, check: CheckDocument) -> str:
    return "no budget" if _lacks_budget(document, check) else check["status"]


def _lacks_budget(document: Report, check: CheckDocument) -> bool:
    """Whether the cost of GPUs is not judged because nobody has set a budget."""
    no_gpus = any(each["subject"] == "gpus" for each in document["abstentions"])
    is_cost = check["item"] == "cost" and check["status"] == "unknown"
    return is_cost and document["budget_per_hour"] is None and not no_gpus


def _format_target(check: CheckDocument) -> str:
    format_value = money if check["item"] == "cost" else percent
    return should({"low": check["low"], "high": check["high"]}, format_value)


def recommendations_section(document: Report) -> ReportSection:
    listed = document["recommendations"]
    if not listed:
        nothing = "No recommendations." if document["at"] else "Unknown: no evaluation has succeeded."
        return ReportSection("advice", "Recommendations", (nothing,))
    paragraphs = []
    if document["recommendations_total"] > len(listed):
        paragraphs.append(f"The first {len(listed)} of {document['recommendations_total']}.")
    savings = document["savings"]
    if savings["gpus"]:
        paragraphs.append(f"Together they recover up to {savings['gpus']:.2g} GPUs{_worth(document['summary'])}.")
    paragraphs.append("gpu-advisor recommend ID shows the evidence for one and how to apply it.")
    rows = [_recommendation_row(document, number, each) for number, each in enumerate(listed)]
    head = ("severity", "recommendation", "change", "projected utilization", f"saves {document['currency']} per hour",
            "since (UTC)", "ID")  # fmt: skip
    tables = (table("Recommendations", head, rows), *_waste_tables(document))
    return ReportSection("advice", "Recommendations", tuple(paragraphs), tables)


def _worth(found: MoneySummaryDocument) -> str:
    if found["savings_per_hour"] is None or found["savings_bound"] is None:
        return ""
    bound, basis = BOUND_WORDS[found["savings_bound"]], f" ({found['price_basis']})" if found["price_basis"] else ""
    per_hour, per_month = money(found["savings_per_hour"]), money(found["savings_per_month"])
    currency = found["currency"]
    return f", {bound}{per_hour} {currency} per hour, {per_month} {currency} per month{basis}"


def _waste_tables(document: Report) -> Iterator[ReportTable]:
    """By owner, and by team, namespace and user where they are known; groups with the largest loss first."""
    by = document["summary"]["waste_by"]
    groupings = (("owner", by["owner"]), ("team", by["team"]), ("namespace", by["namespace"]), ("user", by["user"]))
    for name, groups in groupings:
        if name != "owner" and all(each["name"] == f"no {name}" for each in groups):
            continue
        path = f"/summary/waste_by/{name}"
        rows = [_waste_row(document, f"{path}/{number}", each) for number, each in enumerate(groups)]
        currency = document["currency"]
        head = (name, "GPUs wasted", "bound", f"{currency} per hour", f"{currency} per month")
        if rows:
            yield table(f"Wasted now, by {name}", head, rows)


def _waste_row(document: Report, path: str, each: WasteGroupDocument) -> Row:
    bound = BOUND_WORDS[each["bound"]].strip() if each["bound"] else ""
    count, per_hour, per_month = number_cells(
        document, path, (("gpus", gpus), ("per_hour", money), ("per_month", money))
    )
    return each["name"], count, bound, per_hour, per_month


def _recommendation_row(document: Report, number: int, each: RecommendationDocument) -> Row:
    marks = [name for name, true in (("stale", each["held"]), ("snoozed", each["snoozed"])) if true]
    numbers = (("projection/utilization_ratio", percent), ("savings_per_hour", money))
    return (
        ", ".join([each["severity"], *marks]), each["summary"], _change(each),
        *number_cells(document, f"/recommendations/{number}", numbers), to_minute(each["since"]),
        TableCell(each["id"], anchor=recommendation_anchor(each["id"])),
    )  # fmt: skip


def _change(each: RecommendationDocument) -> str:
    if each["unit"] == "affected GPUs":
        return f"affects {each['current']:g} GPU{'' if each['current'] == 1 else 's'}"
    return f"{each['current']:g} → {each['recommended']:g} {each['unit']}"


def recommendation_anchor(id_: str) -> str:
    return f"recommendation-{id_}"


def first_actions_table(document: Report) -> ReportTable | None:
    """The recommendations that save most; None if nothing is recommended."""
    listed = {each["id"] for each in document["recommendations"]}
    rows = []
    for number, each in enumerate(document["first_actions"]):
        link = each["url"] or (f"#{recommendation_anchor(each['id'])}" if each["id"] in listed else "")
        bound = BOUND_WORDS[each["savings_bound"]].strip() if each["savings_bound"] else ""
        saved = number_cell(document, f"/first_actions/{number}/savings_per_month", money)
        rows.append((TableCell(each["summary"], link=link), bound, saved, ", ".join(each["owners"])))
    head = ("recommendation", "bound", f"saves {document['currency']} per month", "used by")
    return _without_empty_columns(table("Top recommendations by savings", head, rows)) if rows else None


def _without_empty_columns(of: ReportTable) -> ReportTable:
    kept = [column for column in range(len(of.head)) if any(row[column].text for row in of.rows)]
    rows = [tuple(row[column] for column in kept) for row in of.rows]
    return table(of.title, [of.head[column] for column in kept], rows)


def _measured(of: OutcomeDocument) -> str:
    """What changed on the GPUs, or why that is unknown."""
    found = of["measured"]
    if found is None:
        return of["not_measured"]
    if found["unit"] == "ratio":
        return f"{humanize(found['signal'])}: {percent(found['before'])} → {percent(found['after'])}"
    return f"{humanize(found['signal'])}: {found['before']:.4g} → {found['after']:.4g} {humanize(found['unit'])}"


_OUTCOME_NUMBERS: tuple[tuple[str, Formatter], ...] = (
    ("utilization_before_ratio", percent), ("utilization_projected_ratio", percent),
    ("utilization_after_ratio", percent), ("projection_error_ratio", percentage_points),
)  # fmt: skip


def _result(of: OutcomeDocument) -> str:
    """With the verdict of people."""
    return humanize(of["result"]) + (f", {of['feedback']['verdict']}" if of["feedback"] else "")


def outcomes_section(document: Report) -> ReportSection:
    outcome_list, name = document["outcomes"], "Outcomes"
    if outcome_list is None:
        return ReportSection("outcomes", name, ("Unknown: only a running advisor records outcomes; use --advisor.",))
    if not outcome_list:
        words = "No recommendation with a known outcome ended in this period."
        return ReportSection("outcomes", name, (words, *document["suggestions"]))
    rows: list[Row] = [
        (
            to_minute(each["ended"]), humanize(each["kind"]), each["scope"]["label"], _result(each),
            f"{each['current']:g} → {UNKNOWN if each['observed'] is None else format(each['observed'], 'g')}",
            *number_cells(document, f"/outcomes/{number}", _OUTCOME_NUMBERS),
            {True: "yes", False: "no", None: UNKNOWN}[each["improved"]], _measured(each),
        )
        for number, each in enumerate(outcome_list)
    ]  # fmt: skip
    head = (
        "ended (UTC)", "kind", "scope", "result", "size", "utilization before", "projected", "after", "error",
        "improved", "measured",
    )  # fmt: skip
    return ReportSection("outcomes", name, tuple(document["suggestions"]), (table("Before and after", head, rows),))


def missing_data_section(document: Report) -> ReportSection:
    """What could not be read, evaluated or recommended, and why."""
    paragraphs = list(document["unavailable"])
    coverage = document["groups"][0]["coverage_ratio"] if document["groups"] else None
    if coverage is not None and coverage < _WHOLE_RATIO:
        paragraphs.append(f"GPU utilization has data for {percent(coverage)} of the time since a GPU's first sample.")
    for each in document["abstentions"]:
        about = "" if each["scope"]["kind"] == "fleet" else f" of {each['scope']['label']}"
        paragraphs.append(f"{humanize(each['subject'])}{about} ({humanize(each['reason'])}): {each['message']}")
    if not document["at"]:
        paragraphs.append("Recommendations and checks are unknown: no evaluation has succeeded.")
    elif not document["abstentions"]:
        paragraphs.append("No recommendation lacks data.")
    return ReportSection("unknown", "Insufficient data", (*paragraphs, *_unknown_checks(document)))


def _unknown_checks(document: Report) -> Iterator[str]:
    """Those of the fleet and of pools with their reasons, and how many of single nodes and GPUs."""
    unknown = [each for each in document["checks"]["items"] if each["status"] == "unknown"]
    listed = [each for each in unknown if each["scope"]["kind"] in ("fleet", "pool")]
    for each in listed:
        if not _lacks_budget(document, each):
            of = "the fleet" if each["scope"]["kind"] == "fleet" else each["scope"]["label"]
            yield f"The check “{each['title']}” of {of} is unknown: {each['message']}"
    others = document["checks"]["counts"].get("unknown", 0) - len(listed)
    if others > 0:
        yield f"Checks of single nodes and GPUs that are unknown: {others}."


def _query_words(document: Report) -> str:
    compared = document["comparison"]
    before = f", and {compared['period']['queries']} for {before_words(compared['period'])}" if compared else ""
    count = document["period"]["queries"]
    return f"Read in {count} {'query' if count == 1 else 'queries'}{before}, whatever the number of GPUs."


def method_section(document: Report) -> ReportSection:
    source, period = document["source"], document["period"]
    own = "the exporters' series"
    how = f"recorded series, or where there are none from {own}" if document["recorded"] else own
    steps = f"{period['points']} steps of {duration(period['step_seconds'], words=True)}"
    paragraphs = [
        f"Read from {source['name']} at {source['address']}, in {steps}, from {how}.",
        _query_words(document),
        "A GPU is present from its first to its last sample. Unobserved time counts neither as use nor as waste.",
    ]
    if document["queries"]:
        paragraphs.append("Paste a query into a Prometheus with the same series to get the fleet's number again.")
    code = tuple((query["about"], query["promql"]) for query in document["queries"])
    return ReportSection("making", "Method", tuple(paragraphs), (), code)
