"""A report as Markdown (GitHub's tables), for wikis, mails and merge requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gpu_advisor.rendering.escaping import escape_markdown, one_line
from gpu_advisor.report.schema import Report
from gpu_advisor.report.section_model import ReportSection, ReportTable, TableCell
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
        yield _row([_cell(cell) for cell in row], raw=True)


def _cell(cell: TableCell) -> str:
    """A link within the report needs no mark: the name is the same in both tables."""
    text = escape_markdown(cell.text)
    return f"[{text}]({cell.link})" if cell.link and not cell.link.startswith("#") else text


def _row(cells: Sequence[str], raw: bool = False) -> str:
    return "| " + " | ".join(cell if raw else escape_markdown(cell) for cell in cells) + " |"
