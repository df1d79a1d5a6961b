"""A report as one self-contained HTML file without scripts, to archive, mail and print."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import resources

from markupsafe import Markup, escape

from gpu_advisor import __version__
from gpu_advisor.report import formatting, line_charts
from gpu_advisor.report.bar_chart import bar_chart
from gpu_advisor.report.before_after_chart import before_after_chart, complete_outcomes
from gpu_advisor.report.schema import PeriodDocument, Report, UsageGroup
from gpu_advisor.report.section_model import ReportSection, ReportTable, TableCell
from gpu_advisor.report.sections import period_text, sections, title
from gpu_advisor.report.usage_sections import headline

#: Pools with a chart; the tables have all.
MAX_POOLS_DRAWN = 24

#: Characters of a cell up to which a column is as narrow as others.
MAX_SHORT_TEXT = 40

#: Sections that may break across printed pages.
_BREAKABLE_SECTIONS = frozenset({"use", "checklist", "advice", "change", "outcomes", "unknown", "making"})

_HEAD = Markup("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{}</title>
<style>{}</style>
</head>
<body>
{}<main>
<h1>{}</h1>
<p>{}</p>
""")

_BACK = Markup('<nav aria-label="Advisor"><a href="{}">Overview</a></nav>\n')


def render_html(document: Report, home: str = "") -> str:
    """The whole page. `home`: URL of the advisor's page that serves it; a file has no link back."""
    return "".join(_page(document, home))


def _page(document: Report, home: str) -> Iterator[str]:
    name = title(document)
    style = resources.files("gpu_advisor.report").joinpath("report.css").read_text(encoding="utf-8")
    back = _BACK.format(home) if home else Markup("")
    length = period_text(document)
    yield _HEAD.format(f"{name}, {length}", Markup(style), back, _isolate_bidi(name), length)
    for section in sections(document):
        yield _section(document, section)
    made = formatting.to_minute(document["at"]) if document["at"] else formatting.UNKNOWN
    yield Markup("</main>\n<footer><p>gpu-advisor {}; evaluated at {} UTC.</p></footer>\n").format(__version__, made)
    yield "</body>\n</html>\n"


def _section(document: Report, section: ReportSection) -> Markup:
    long = Markup(' class="long"') if section.key in _BREAKABLE_SECTIONS else Markup("")
    parts = [
        Markup('<section id="{}"{} aria-labelledby="{}-title">\n<h2 id="{}-title">{}</h2>\n').format(
            section.key, long, section.key, section.key, section.title
        )
    ]
    lead = headline(document)
    for paragraph in section.words:
        kind = Markup(' class="lead"') if paragraph == lead else Markup("")
        parts.append(Markup("<p{}>{}</p>\n").format(kind, _isolate_bidi(paragraph)))
    tables = [_table(table, section.key == "summary") for table in section.tables]
    if section.key == "cost":
        parts += [*tables[:1], _bars(document), *tables[1:]]
    elif section.key == "use":
        parts += [_trends(document), *tables]
    elif section.key == "outcomes":
        parts += [_before_after(document), *tables]
    elif section.key == "summary":
        parts.append(Markup('<div class="beside">\n{}</div>\n').format(Markup("").join(tables)))
    else:
        parts += tables
    if section.code:
        queries = (
            Markup("<details><summary>{}</summary><code>{}</code></details>\n").format(about, text)
            for about, text in section.code
        )
        parts.append(Markup('<div class="code">\n{}</div>\n').format(Markup("").join(queries)))
    return Markup("").join([*parts, Markup("</section>\n")])


def _isolate_bidi(text: str) -> Markup:
    """Names in right-to-left scripts do not reorder the text beside them."""
    return Markup("<bdi>{}</bdi>").format(text) if not text.isascii() else escape(text)


def _table(table: ReportTable, narrow: bool) -> Markup:
    kinds = [_column_kind([row[column] for row in table.rows]) for column in range(len(table.head))]
    head = Markup("").join(
        Markup('<th scope="col"{}>{}</th>').format(kind, name) if name else Markup("<td></td>")
        for kind, name in zip(kinds, table.head, strict=True)
    )
    rows = Markup("").join(_row(row, kinds) for row in table.rows)
    return Markup(
        '<div class="scroll" tabindex="0" role="region" aria-label="{}">\n<table{}>\n<caption>{}</caption>\n'
        "<thead><tr>{}</tr></thead>\n<tbody>\n{}</tbody>\n</table>\n</div>\n"
    ).format(table.title, Markup(' class="key"') if narrow else Markup(""), table.title, head, rows)


def _column_kind(cells: Sequence[TableCell]) -> Markup:
    """The class of a column: numbers stand on the right, sentences need room."""
    if any(cell.path for cell in cells):
        return Markup(' class="number"')
    return Markup(' class="text"') if any(len(cell.text) > MAX_SHORT_TEXT for cell in cells) else Markup("")


def _row(row: tuple[TableCell, ...], kinds: list[Markup]) -> Markup:
    first, *others = row
    cells = [Markup('<th scope="row"{}>{}</th>').format(kinds[0], _cell_content(first))]
    cells += [
        Markup("<td{}>{}</td>").format(kind, _cell_content(cell)) for cell, kind in zip(others, kinds[1:], strict=True)
    ]
    return Markup("<tr>{}</tr>\n").format(Markup("").join(cells))


def _cell_content(cell: TableCell) -> Markup:
    """A number has its JSON pointer in the JSON report."""
    if cell.link:
        return Markup('<a href="{}">{}</a>').format(cell.link, _isolate_bidi(cell.text))
    if cell.anchor:
        return Markup('<span id="{}">{}</span>').format(cell.anchor, _isolate_bidi(cell.text))
    if not cell.path:
        return _isolate_bidi(cell.text)
    return Markup('<span data-path="{}">{}</span>').format(cell.path, cell.text)


def _trends(document: Report) -> Markup:
    fleet = document["groups"][0]
    axis, unknown = _axis(document["period"])
    trends, targets = fleet["trends"], fleet["targets"]
    present_and_busy = [
        line_charts.ChartLine("present", trends["gpus"][unknown:], "present"),
        line_charts.ChartLine("busy", trends["busy_gpus"][unknown:], "line", filled=True),
    ]
    figure_elements = [
        _figure_element("GPU utilization of the fleet", line_charts.ratio_chart(
            axis, "GPU utilization", trends["gpu_utilization"][unknown:], targets["gpu_utilization"],
            fleet["gpu_utilization_ratio"])),
        _figure_element("GPUs present and busy", line_charts.count_chart(
            axis, "GPUs", present_and_busy)),
        _figure_element("GPU memory of the fleet", line_charts.ratio_chart(
            axis, "GPU memory", trends["gpu_memory"][unknown:], targets["gpu_memory"], fleet["gpu_memory_ratio"])),
        _figure_element("CPU of the nodes", line_charts.ratio_chart(
            axis, "CPU", trends["cpu"][unknown:], targets["cpu"], fleet["cpu_ratio"])),
    ]  # fmt: skip
    pools = document["groups"][1:]
    if len(pools) > 1:
        narrow = replace(axis, width=line_charts.SMALL_WIDTH)
        small = [
            _figure_element(f"GPU utilization of {pool['name']}", _pool(narrow, pool, unknown))
            for pool in pools[:MAX_POOLS_DRAWN]
        ]
        figure_elements.append(Markup('<div class="pools">\n{}</div>\n').format(Markup("").join(small)))
    return Markup("").join(figure_elements)


def _axis(period: PeriodDocument) -> tuple[line_charts.TimeAxis, int]:
    """The time axis from the first data on, and how many steps of the period are before it."""
    start, end = formatting.parse_rfc3339(period["start"]), formatting.parse_rfc3339(period["end"])
    step = (end - start) / period["points"]
    begin = formatting.parse_rfc3339(period["data_start"] or period["start"])
    unknown = min(max(0, round((begin - start) / step)), period["points"] - 1)
    return line_charts.TimeAxis(start + unknown * step, end, period["points"] - unknown), unknown


def _pool(axis: line_charts.TimeAxis, pool: UsageGroup, unknown: int) -> Markup:
    return line_charts.ratio_chart(
        axis, f"GPU utilization of {pool['name']}", pool["trends"]["gpu_utilization"][unknown:],
        pool["targets"]["gpu_utilization"], pool["gpu_utilization_ratio"],
    )  # fmt: skip


def _bars(document: Report) -> Markup:
    groups = document["groups"][1 : MAX_POOLS_DRAWN + 1]
    figure_elements = bar_chart("GPU-hours by pool", [(group["name"], group["gpu_hours"]) for group in groups])
    return _figure_element("GPU-hours by pool", figure_elements)


def _before_after(document: Report) -> Markup:
    found = complete_outcomes(document["outcomes"] or ())
    caption = "GPU utilization before and after the change"
    return _figure_element(caption, before_after_chart(found)) if found else Markup("")


def _figure_element(caption: str, drawing: Markup) -> Markup:
    return Markup(
        "<figure>\n<figcaption>{}</figcaption>\n"
        '<div class="scroll newest" tabindex="0" role="region" aria-label="{}">{}</div>\n</figure>\n'
    ).format(_isolate_bidi(caption), caption, drawing)
