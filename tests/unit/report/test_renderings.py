"""Three renderings of one document: each number that people read is the one in the JSON, rounded, and no other."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from gpu_advisor.report import line_charts
from gpu_advisor.report.formatting import UNKNOWN
from gpu_advisor.report.html import render_html
from gpu_advisor.report.line_charts import WIDTH
from gpu_advisor.report.markdown import render_markdown
from gpu_advisor.report.schema import Report
from gpu_advisor.report.section_model import at
from gpu_advisor.report.sections import sections
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.report.builders import PRICE_SETTINGS, GpuHistorySpec, cards, outcome, report_of, steady_gpu

RATIO = st.none() | st.floats(0, 1)


class NumberParser(HTMLParser):
    """Texts of the elements that name their number, of all table cells, and all attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.numbers: list[tuple[str, str]] = []
        self.cells: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self._path = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        known = dict(attrs)
        self._path = known.get("data-path") or ""
        self.addresses += [str(known[name]) for name in ("src", "href", "action", "style") if name in known]
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self._path:
            self.numbers.append((self._path, data))
            self._path = ""
        if self.cells and not data.startswith("\n"):
            self.cells[-1] += data


def read(text: str) -> tuple[float, float]:
    """A number as it is written for people, and by how much it may be rounded."""
    plain = re.sub(r"[^\d.+-]", "", text)
    scale = 100 if text.endswith(("%", "points")) else 1
    digits = len(plain.partition(".")[2])
    return float(plain) / scale, 0.5000001 * 10**-digits / scale


@given(cards(), RATIO, RATIO, RATIO)
def test_numbers_on_the_page_and_in_markdown_are_those_of_the_json(
    found: list[GpuHistorySpec], before: float | None, projected: float | None, after: float | None
) -> None:
    document: Report = json.loads(json.dumps(report_of(found, PRICE_SETTINGS, outcome(before, projected, after))))
    reported = NumberParser(render_html(document))
    assert bool(reported.numbers) == bool(found) or document["outcomes"]
    for path, text in reported.numbers:
        value = at(document, path)
        if text == UNKNOWN:
            assert value is None, path
        else:
            number, slack = read(text)
            assert abs(number - value) <= slack + abs(value) * 1e-9, (path, text, value)
    cells = [cell for section in sections(document) for table in section.tables for row in table.rows for cell in row]
    assert {path for path, _ in reported.numbers} == {cell.path for cell in cells if cell.path}
    written = [cell for line in render_markdown(document).splitlines() if line.startswith("| ") for cell in split(line)]
    expected = [cell.text for cell in cells]
    rest = iter(written)
    assert all(text in rest for text in expected)  # in this order, headings in between


def split(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", line)[1:-1]
    return [re.sub(r"\\(.)", r"\1", cell.strip()) for cell in cells]


HOSTILE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a|b", "`x`", "[x](javascript:1)", "# h\n## i",
    "\u202eevil", "&lt;", "a" * 300,
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_never_markup(name: str) -> None:
    document = report_of([steady_gpu("GPU-0", name=name, node=name)], outcomes=outcome(0.1, 0.2, 0.3))
    document["cluster"], document["unavailable"] = name, [name]
    html = render_html(document)
    reported = NumberParser(html)
    assert not {"script", "img", "a", "link", "iframe", "object"} & set(reported.tags)
    assert reported.addresses == []
    text = render_markdown(document)
    assert "\n## i" not in text
    assert not re.findall(r"(?<!\\)[<>`\[]", "\n".join(line for line in text.splitlines() if line[:4] != "    "))
    assert all(len(split(line)) == len(split(head)) for head, line in table_lines(text))


def table_lines(text: str) -> list[tuple[str, str]]:
    """Each line of a table beside its heading."""
    found, head = [], ""
    for line in text.splitlines():
        if not line.startswith("| "):
            head = ""
        else:
            head = head or line
            found.append((head, line))
    return found


def test_the_page_asks_for_nothing() -> None:
    html = render_html(report_of([steady_gpu("GPU-0")]))
    assert "default-src 'none'" in html
    assert not re.findall(r"url\((?!#)|@import|<script|https?://(?!prometheus:9090)", html)


def axis(points: int = 4) -> line_charts.TimeAxis:
    return line_charts.TimeAxis(0.0, 4 * 3600.0, points)


@pytest.mark.parametrize(
    ("values", "lines", "dots", "gaps"),
    [
        ([0.1, 0.2, 0.3, 0.4], 1, 0, 0),
        ([0.1, None, 0.3, 0.4], 1, 1, 1),
        ([None, None, 0.3, 0.4], 1, 0, 1),
        ([0.1, 0.2, None, 0.4], 1, 1, 1),
        ([None] * 4, 0, 0, 1),
    ],
)
def test_a_gap_is_a_gap(values: list[float | None], lines: int, dots: int, gaps: int) -> None:
    drawn = line_charts.ratio_chart(axis(), "use", values, {"low": 0.9, "high": 1.0}, 0.3)
    assert (drawn.count("<polyline"), drawn.count("<circle"), drawn.count('class="gap"')) == (lines, dots, gaps)
    missing = values.count(None)
    assert missing == 4 or (f"no data for {missing} of 4" in drawn) == bool(missing)


@given(st.integers(0, 2 * 10**9), st.sampled_from([300, 1800, 3600, 21600]), st.integers(1, 1600))
def test_marks_of_time_are_few_and_within(start: int, step: int, points: int) -> None:
    end = start + step * points
    found = line_charts.time_ticks(start, end, 8)
    assert len(found) <= 9 or end - start > 8 * 56 * 86400
    assert all(start <= time <= end for time in found)


@given(st.lists(st.none() | st.floats(0, 20000), min_size=4, max_size=4))
def test_numbers_of_gpus_stay_within_the_drawing(values: list[float | None]) -> None:
    drawn = line_charts.count_chart(
        axis(), "GPUs", [line_charts.ChartLine("present", values, "present"), line_charts.ChartLine("busy", values)]
    )
    for line in re.findall(r'<polyline[^>]* points="([^"]*)"', drawn):
        across = [float(point.split(",")[0]) for point in line.split()]
        assert across == sorted(across)
        assert all(line_charts.LEFT <= x <= WIDTH - line_charts.RIGHT for x in across)
    heights = [float(y) for y in re.findall(r"\d,([\d.]+)", " ".join(re.findall(r'points="([^"]*)"', drawn)))]
    assert all(0 <= y <= line_charts.HEIGHT for y in heights)
    assert drawn.count('class="grid"') <= 20


def test_what_is_unknown_is_reported_in_words() -> None:
    document: Any = report_of([])
    assert "No GPU was observed" in render_html(document)
    document = report_of([steady_gpu("GPU-0")])
    assert "cost is unknown" in render_html(document)
    document["outcomes"] = None
    assert "only a running advisor records outcomes" in render_markdown(document)
    late = GpuHistorySpec("GPU-0", named=frozenset({3, 4}))
    text = render_markdown(report_of([late]))
    assert "no data before" in text
    assert "no data after" in text
    assert "their utilization is unknown" in text
