"""Sections, tables and cells for all renderings; a cell has the JSON pointer of its number. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from gpu_advisor.report.formatting import money, percent
from gpu_advisor.report.schema import Band, Report

#: A value as text.
Formatter = Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class TableCell:
    """`path` is the JSON pointer (RFC 6901) of the number in `text`; empty for words.

    `link` is a URL, or `#` and the `anchor` of another cell of the report.
    """

    text: str
    path: str = ""
    link: str = ""
    anchor: str = ""


#: A row as it is written: a text is a cell of words.
Row = tuple[TableCell | str, ...]


@dataclass(frozen=True, slots=True)
class ReportTable:
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[TableCell, ...], ...]


@dataclass(frozen=True, slots=True)
class ReportSection:
    """Charts are assigned by `key`."""

    key: str
    title: str
    words: tuple[str, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    code: tuple[tuple[str, str], ...] = ()


def at(document: Report, pointer: str) -> Any:
    """The value at a JSON pointer."""
    found: Any = document
    for key in pointer.split("/")[1:]:
        found = found[int(key) if isinstance(found, list) else key]
    return found


def number_cell(document: Report, pointer: str, format_value: Formatter) -> TableCell:
    return TableCell(format_value(at(document, pointer)), pointer)


def number_cells(document: Report, path: str, columns: Iterable[tuple[str, Formatter]]) -> Iterator[TableCell]:
    """A cell for each column: a pointer below `path`, and how its number is shown."""
    for pointer, format_value in columns:
        yield number_cell(document, f"{path}/{pointer}", format_value)


def table(title: str, head: Iterable[str], rows: Iterable[Row]) -> ReportTable:
    cells = (tuple(cell if isinstance(cell, TableCell) else TableCell(cell) for cell in row) for row in rows)
    return ReportTable(title, tuple(head), tuple(cells))


def should(band: Band, format_value: Formatter = percent) -> str:
    """A target as text; a band up to 100 % has a lower edge only."""
    low, high = band["low"], band["high"]
    if low and high is not None and (high < 1 or format_value is money):
        return f"{format_value(low)} to {format_value(high)}"
    if low:
        return f"at least {format_value(low)}"
    return "" if high is None else f"at most {format_value(high)}"
