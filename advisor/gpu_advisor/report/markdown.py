"""A report as Markdown (GitHub's tables), for wikis, mails and merge requests."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.rendering.escaping import escape_markdown, one_line
from gpu_advisor.report.schema import Report
from gpu_advisor.report.section_model import ReportSection, ReportTable
from gpu_advisor.report.sections import period_text, sections, title


def render_markdown(document: Report) -> str:
    """The whole text."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Report) -> Iterator[str]:
    yield f"# {escape_markdown(title(document))}\n\n{escape_markdown(period_text(document))}"
    for section in sections(document):
        yield from _section(section)


def _section(section: ReportSection) -> Iterator[str]:
    yield f"\n## {escape_markdown(section.title)}\n"
    as_list = section.key == "unknown" and len(section.words) > 1
    for number, paragraph in enumerate(section.words):
        if number and not as_list:
            yield ""
        yield f"- {escape_markdown(paragraph)}" if as_list else escape_markdown(paragraph)
    for table in section.tables:
        yield f"\n### {escape_markdown(table.title)}\n"
        yield from _table(table)
    for about, text in section.code:
        yield f"\n{escape_markdown(about)}:\n"
        yield f"    {one_line(text, ' ')}"


def _table(table: ReportTable) -> Iterator[str]:
    numeric = [any(row[column].path for row in table.rows) for column in range(len(table.head))]
    yield _row(table.head)
    yield _row(["---:" if right else "---" for right in numeric], raw=True)
    for row in table.rows:
        yield _row([cell.text for cell in row])


def _row(cells: list[str] | tuple[str, ...], raw: bool = False) -> str:
    return "| " + " | ".join(cell if raw else escape_markdown(cell) for cell in cells) + " |"
