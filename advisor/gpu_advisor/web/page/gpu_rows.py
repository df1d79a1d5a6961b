"""The rows of the GPU list as HTML, its column headings and the choices of its filters.

Plain functions instead of a template: a search shows a hundred rows that nobody has seen yet, and this takes a tenth of
the time. Every text goes through `escape`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import AnyStr
from urllib.parse import quote

from markupsafe import Markup, escape

from gpu_advisor.evaluation.recommendation import Check
from gpu_advisor.rendering.names import humanize
from gpu_advisor.state.view import PublishedRecommendation
from gpu_advisor.text_cache import cache_texts
from gpu_advisor.web.page import evidence_charts
from gpu_advisor.web.page.gpu_list import (
    COLUMNS,
    DEFAULT_SORT,
    GROUPS,
    PER_PAGE,
    SHOWN,
    GpuGroup,
    GpuList,
    GpuPage,
    GpuQuery,
    GpuRow,
    PartialMean,
)
from gpu_advisor.web.page.template_filters import UNKNOWN, check_value, gpu_count, percent, value_text

COLUMN_COUNT = 9

#: Owners, throttle reasons and recommendations that a cell shows.
MAX_PER_CELL = 2

_DOWN = ' class="down"'
_UNKNOWN = f'<span class="unknown">{UNKNOWN}</span>'
_HEADINGS = {name: escape(column.heading) for name, column in COLUMNS.items()}


class RenderedRows:
    """All rows of a list for pages one level below the root: about 10 microseconds and 1 kB each."""

    def __init__(self, gpus: GpuList) -> None:
        self._rows = tuple(gpu_row(row, "../").encode() for row in gpus.rows)

    def of(self, page: GpuPage) -> Iterable[bytes]:
        """The rows of a page as UTF-8, with its groups' headings between them."""
        rows = [self._rows[number] for number in page.rows]
        return with_headings(page, rows, lambda group: group_row(group).encode()) if page.groups else rows


def render_rows(gpus: GpuList, page: GpuPage, root: str) -> Markup:
    """The rows of one page, for pages elsewhere."""
    return Markup("".join(with_headings(page, [gpu_row(gpus.rows[number], root) for number in page.rows], group_row)))


def with_headings(page: GpuPage, rows: Sequence[AnyStr], heading: Callable[[GpuGroup], AnyStr]) -> Iterator[AnyStr]:
    for number, row in zip(page.rows, rows, strict=True):
        if number in page.groups:
            yield heading(page.groups[number])
        yield row


def column_headings(query: GpuQuery, root: str) -> Markup:
    """Each sorts by its column; the one that does already sorts the other way round."""
    return Markup("".join(_column_headings(query, root)))


def _column_headings(query: GpuQuery, root: str) -> Iterator[str]:
    others = query.link(sort=DEFAULT_SORT, reverse=False, page=1, per_page=PER_PAGE)
    link = escape(f"{root}page/gpus{others}{'' if others == '?' else '&'}sort=")
    for name, column in COLUMNS.items():
        sorted_by, reverse = "", ""
        if name == query.sort:
            sorted_by = f' aria-sort="{"descending" if column.highest_first != query.reverse else "ascending"}"'
            reverse = "" if query.reverse else "&amp;reverse=1"
        yield f'<th scope="col"{sorted_by}><a href="{link}{name}{reverse}">{_HEADINGS[name]}</a></th>'


CHOICES: Mapping[str, Mapping[str, str]] = {
    "show": {name: title for name, (title, _) in SHOWN.items()},
    "sort": {name: column.heading for name, column in COLUMNS.items()},
    "group": {name: title for name, (title, _) in GROUPS.items()},
}


@lru_cache(256)
def options(name: str, selected: str) -> Markup:
    """The options of a <select>."""
    return Markup("").join(
        Markup('<option value="{}"{}>{}</option>').format(
            value, Markup(" selected") if value == selected else "", title
        )
        for value, title in CHOICES[name].items()
    )


def gpu_row(row: GpuRow, root: str) -> str:
    uuid = quote(row.gpu.uuid, safe="")
    cells = (
        _model(row),
        _owners(row.owners),
        _check(row.checks.get("gpu_utilization"), root, uuid),
        _memory(row, root, uuid),
    )
    return (
        f"<tr{_DOWN if row.gpu.up is False else ''}>"
        f'<th scope="row"><a href="{root}page/gpu?uuid={uuid}"><bdi>{escape(row.name)}</bdi></a>{_state(row)}</th>'
        f"<td>{'</td><td>'.join(cells)}</td>"
        f'<td class="number">{value_text(row.power, "watts")}</td>'
        f'<td class="number">{value_text(row.temperature, "celsius")}</td>'
        f"<td>{_throttling(row)}</td><td>{_advice(row.advice, root)}</td></tr>\n"
    )


def group_row(group: GpuGroup) -> str:
    continued = " (continued)" if group.continued else ""
    mean = mean_text(group.utilization) if group.utilization.known else "unknown"
    summary = f"{gpu_count(group.count)}, mean utilization {mean}"
    return (
        f'<tr class="group"><th scope="rowgroup" colspan="{COLUMN_COUNT}"><bdi>{_group_name(group.name)}</bdi>'
        f"{continued} <small>{summary}</small></th></tr>\n"
    )


@cache_texts(4096)
def _group_name(name: str) -> str:
    return str(escape(name or UNKNOWN))


def mean_text(mean: PartialMean) -> str:
    """`82 %`, `0 % (24 of 32)` if it is not known of all."""
    partial = f" ({mean.known:,} of {mean.total:,})" if 0 < mean.known < mean.total else ""
    return percent(mean.value) + partial


def _state(row: GpuRow) -> str:
    if row.gpu.up is None:
        return ' <span class="status unknown">not reporting</span>'
    why = f": {escape(row.down_reason)}" if row.down_reason else ""
    return f' <span class="status critical">down{why}</span>' if row.gpu.up is False else ""


def _model(row: GpuRow) -> str:
    profile = f" <small>{escape(row.gpu.mig_profile)}</small>" if row.gpu.mig_profile else ""
    return f"<bdi>{escape(row.gpu.name)}</bdi>{profile}"


def _owners(owners: tuple[str, ...]) -> str:
    shown = "; ".join(f"<bdi>{escape(each)}</bdi>" for each in owners[:MAX_PER_CELL])
    return shown + (f" and {len(owners) - MAX_PER_CELL} more" if len(owners) > MAX_PER_CELL else "") or _UNKNOWN


def _check(check: Check | None, root: str, uuid: str, instead: str = "") -> str:
    """A check's value as a bar and a number, with a link to its evidence.

    `instead` is shown for an unknown value; by default the reason.
    """
    if check is None:
        return _UNKNOWN
    link = f'href="{root}page/check?item={check.item}&amp;kind=gpu&amp;of={uuid}"'
    status = check.status.value
    if status == "unknown" or check.value is None:
        word = humanize(check.reason.value) if check.reason else "unknown"
        return f'<a class="unknown" {link} title="{escape(check.message)}">{escape(instead or word)}</a>'
    kind = status if status != "missed" else check.severity
    missed = '<span class="sr"> missed</span>' if status == "missed" else ""
    bar = _meter(round(check.value, 3), check.low, check.high, kind)
    return f'<a class="value" {link}>{bar}<span>{check_value(check)}</span>{missed}</a>'


@lru_cache(4096)
def _meter(value: float, low: float | None, high: float | None, kind: str) -> str:
    return str(evidence_charts.meter(value, low, high, kind))


def _memory(row: GpuRow, root: str, uuid: str) -> str:
    # Memory used may be known where the memory needed is not: a framework may have preallocated it.
    used = _check(row.checks.get("gpu_memory"), root, uuid, "" if row.memory is None else percent(row.memory))
    if row.memory_total is None:
        return used
    return f"{used} <small>{'of ' if row.memory is not None else ''}{value_text(row.memory_total, 'bytes')}</small>"


def _throttling(row: GpuRow) -> str:
    return ", ".join(
        f'{escape(each.reason)} <span class="number">{percent(each.ratio)}</span>'
        for each in row.throttling[:MAX_PER_CELL]
    )


def _advice(advice: tuple[PublishedRecommendation, ...], root: str) -> str:
    badges = " ".join(
        f'<a class="status {each.recommendation.severity}" href="{root}page/{escape(each.id)}">'
        f"{escape(humanize(each.recommendation.kind))}</a>"
        for each in advice[:MAX_PER_CELL]
    )
    return badges + (f" <small>+{len(advice) - MAX_PER_CELL}</small>" if len(advice) > MAX_PER_CELL else "")
