"""A report as sections of text and tables, for the page and the Markdown. Pure.

Each number in a table has its JSON pointer, so that tests can compare a rendering with the document.
"""

from __future__ import annotations

from gpu_advisor.rendering.durations import duration
from gpu_advisor.report.advice_sections import (
    checklist_section,
    method_section,
    missing_data_section,
    outcomes_section,
    recommendations_section,
)
from gpu_advisor.report.comparison_section import comparison_section
from gpu_advisor.report.formatting import to_minute
from gpu_advisor.report.schema import Report
from gpu_advisor.report.section_model import ReportSection
from gpu_advisor.report.usage_sections import cost_section, projection_section, summary_section, usage_section


def sections(document: Report) -> list[ReportSection]:
    """In reading order."""
    compared = comparison_section(document)
    result = [summary_section(document), *([compared] if compared else [])]
    if document["groups"]:
        result += [usage_section(document), cost_section(document), projection_section(document)]
    result += [checklist_section(document), recommendations_section(document)]
    result += [outcomes_section(document), missing_data_section(document)]
    return [*result, method_section(document)]


def title(document: Report) -> str:
    return f"GPU report of cluster {document['cluster']}"


def period_text(document: Report) -> str:
    period = document["period"]
    length = duration(period["points"] * period["step_seconds"], words=True)
    return f"{to_minute(period['start'])} to {to_minute(period['end'])} UTC, {length}"
