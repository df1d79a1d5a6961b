"""A report as Markdown (GitHub's tables), for wikis, mails and merge requests."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gpu_advisor.report.schema import Report
from gpu_advisor.report.section_model import Section, Table
from gpu_advisor.report.sections import sections, title, when

#: What would begin markup, or an element, within a line (https://github.github.com/gfm/#backslash-escapes).
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&#])")


def markdown(document: Report) -> str:
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Report) -> Iterator[str]:
    yield f"# {escaped(title(document))}\n\n{escaped(when(document))}"
    for section in sections(document):
        yield from _section(section)


def _section(section: Section) -> Iterator[str]:
    yield f"\n## {escaped(section.title)}\n"
    as_list = section.key == "unknown" and len(section.words) > 1
    for number, paragraph in enumerate(section.words):
        if number and not as_list:
            yield ""
        yield f"- {escaped(paragraph)}" if as_list else escaped(paragraph)
    for table in section.tables:
        yield f"\n### {escaped(table.title)}\n"
        yield from _table(table)
    for about, text in section.code:
        yield f"\n{escaped(about)}:\n"
        yield f"    {_one_line(text)}"


def _table(table: Table) -> Iterator[str]:
    numeric = [any(row[column].path for row in table.rows) for column in range(len(table.head))]
    yield _row(table.head)
    yield _row(["---:" if right else "---" for right in numeric], raw=True)
    for row in table.rows:
        yield _row([cell.text for cell in row])


def _row(cells: list[str] | tuple[str, ...], raw: bool = False) -> str:
    return "| " + " | ".join(cell if raw else escaped(cell) for cell in cells) + " |"


def escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", _one_line(text))


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
