"""A report in words and tables: what the page and the Markdown both show. Pure.

Each number of a table knows where it stands in the document, so that a rendering can be held against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gpu_advisor.report import formatting as figures
from gpu_advisor.report.advice_sections import advice, checklist, making, outcomes, unknown
from gpu_advisor.report.formatting import to_minute
from gpu_advisor.report.schema import Report
from gpu_advisor.report.section_model import ReportSection, TableCell
from gpu_advisor.report.usage_sections import cost, summary, use


def sections(document: Report) -> list[ReportSection]:
    """In the order of reading. A report in which no GPU was seen has little to say, and says why."""
    result = [summary(document)]
    if document["groups"]:
        result += [use(document), cost(document)]
    result += [checklist(document), advice(document)]
    result += [outcomes(document), unknown(document)]
    return [*result, making(document)]


def title(document: Report) -> str:
    return f"GPU report of cluster {document['cluster']}"


def period_text(document: Report) -> str:
    period = document["period"]
    length = figures.length(period["points"] * period["step_seconds"])
    return f"{to_minute(period['start'])} to {to_minute(period['end'])} UTC, {length}"


def all_cells(result: Sequence[ReportSection]) -> Iterator[TableCell]:
    """All cells of all tables."""
    for section in result:
        for table in section.tables:
            for row in table.rows:
                yield from row
