"""The list of GPUs: a row each, with search, filters, sorting, grouping and paging. Pure.

Rows, an index of their texts and the rank of each row in each column are built once per view: a filter of 10,000 GPUs
then costs a few passes over arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, reduce
from typing import Any, get_args
from urllib.parse import quote_plus

import numpy as np

from gpu_advisor.documents.owner_names import owner_names
from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.facts import Gpu
from gpu_advisor.evaluation.owners import NO_OWNER
from gpu_advisor.evaluation.recommendation import Check, CheckStatus, Severity
from gpu_advisor.evaluation.signals import Signal
from gpu_advisor.rendering import natural_order
from gpu_advisor.state.view import PublishedRecommendation, View
from gpu_advisor.text_cache import cache_texts
from gpu_advisor.web.page.text_index import Numbers, TextIndex

PER_PAGE = 100
MAX_PER_PAGE = 1000

#: Throttling below this share of the time is not shown.
MIN_THROTTLED_RATIO = 0.01

#: Throttle reasons, by the share of time that each was active.
THROTTLE_REASONS: tuple[tuple[str, Signal], ...] = (
    ("thermal (hardware)", signals.THROTTLE_HW_THERMAL),
    ("thermal", signals.THROTTLE_SW_THERMAL),
    ("power brake", signals.THROTTLE_POWER_BRAKE),
    ("power limit", signals.THROTTLE_POWER_CAP),
)

_SEVERITIES = tuple(reversed(get_args(Severity)))  # critical first


@dataclass(frozen=True, slots=True)
class Throttling:
    """A reason, and the share of the window in which it was active."""

    reason: str
    ratio: float


@dataclass(frozen=True, slots=True)
class GpuRow:
    """One GPU. A quantity that is not known is None. `advice` is open advice on it, the most urgent first."""

    gpu: Gpu
    name: str
    pool: str
    owners: tuple[str, ...]
    down_reason: str
    utilization: float | None
    memory: float | None
    memory_total: float | None
    power: float | None
    power_limit: float | None
    temperature: float | None
    throttling: tuple[Throttling, ...]
    advice: tuple[PublishedRecommendation, ...]
    checks: Mapping[str, Check]

    @property
    def shown_utilization(self) -> float | None:
        """As the row shows it: the check's value; None while it is unknown, as with insufficient history."""
        return _known_value(self.checks.get("gpu_utilization"))

    @property
    def shown_memory(self) -> float | None:
        """As the row shows it: the memory needed, else the memory used."""
        needed = _known_value(self.checks.get("gpu_memory"))
        return self.memory if needed is None else needed

    @property
    def state(self) -> str:
        return {True: "up", False: "down", None: "not reporting"}[self.gpu.up]

    @property
    def search_text(self) -> str:
        kinds = (each.recommendation.kind.replace("_", " ") for each in self.advice)
        parts = (self.name, self.gpu.uuid, self.gpu.name, self.gpu.mig_profile, self.pool, self.state, *self.owners,
                 *kinds)  # fmt: skip
        return "\n".join(parts).casefold()


def _known_value(check: Check | None) -> float | None:
    return None if check is None or check.status is CheckStatus.UNKNOWN else check.value


@dataclass(frozen=True, slots=True)
class PartialMean:
    """The mean of the values that are known, of `total`; None if none is."""

    value: float | None
    known: int
    total: int

    @staticmethod
    def of(values: Sequence[float | None]) -> PartialMean:
        known = [value for value in values if value is not None]
        return PartialMean(sum(known) / len(known) if known else None, len(known), len(values))


#: Filters by name: title, and whether a row passes.
SHOWN: Mapping[str, tuple[str, Callable[[GpuRow], bool]]] = {
    "all": ("all GPUs", lambda _: True),
    "advice": ("with recommendations", lambda row: bool(row.advice)),
    "down": ("down or not reporting", lambda row: not row.gpu.up),
    "throttled": ("throttled", lambda row: bool(row.throttling)),
    "unowned": ("without an owner", lambda row: not row.owners),
}


natural = cache_texts(50_000)(natural_order.natural)


def _urgency(row: GpuRow) -> tuple[bool, int, bool]:
    """GPUs that are down first, then by severity, then those that do not report."""
    first = row.advice[0] if row.advice else None
    severity = _SEVERITIES.index(first.recommendation.severity) if first else len(_SEVERITIES)
    return row.gpu.up is not False, severity, row.gpu.up is not None


@dataclass(frozen=True, slots=True)
class Column:
    """A column to sort by. `key` is None for an unknown value, which comes last in either direction."""

    heading: str
    key: Callable[[GpuRow], Any]
    highest_first: bool = False


COLUMNS: Mapping[str, Column] = {
    "gpu": Column("GPU", lambda row: natural(row.name)),
    "model": Column("model", lambda row: natural(row.gpu.name)),
    "owner": Column("owner", lambda row: natural(", ".join(row.owners)) if row.owners else None),
    "utilization": Column("utilization", lambda row: row.utilization, True),
    "memory": Column("memory", lambda row: row.memory, True),
    "power": Column("power", lambda row: row.power, True),
    "temperature": Column("temperature", lambda row: row.temperature, True),
    "throttling": Column("throttled by", lambda row: sum(each.ratio for each in row.throttling) or None, True),
    "advice": Column("recommendations", _urgency),
}

DEFAULT_SORT = "advice"

#: Group by: title, and the groups' names.
GROUPS: Mapping[str, tuple[str, Callable[[GpuRow], str]]] = {
    "none": ("no groups", lambda _: ""),
    "node": ("by node", lambda row: row.gpu.node),
    "model": ("by model", lambda row: row.gpu.name or "unknown model"),
    "owner": ("by owner", lambda row: ", ".join(row.owners) or NO_OWNER),
    "pool": ("by pool", lambda row: row.pool),
}


@dataclass(frozen=True, slots=True)
class GpuQuery:
    """What of the list is shown. Made by `parse`, which replaces what it does not know by the default."""

    search: str = ""
    show: str = "all"
    sort: str = DEFAULT_SORT
    reverse: bool = False
    group: str = "none"
    page: int = 1
    per_page: int = PER_PAGE

    def link(self, **changes: object) -> str:
        """The query string of this query with changes, without defaults."""
        found = []
        for name, parameter, default in _PARAMETERS:
            value = changes.get(name, getattr(self, name))
            if value != default:
                text = quote_plus(value) if isinstance(value, str) else f"{value:d}"
                found.append(f"{parameter}={text}")
        return "?" + "&".join(found)


_PARAMETERS = [(field.name, "q" if field.name == "search" else field.name, field.default) for field in fields(GpuQuery)]


def parse(arguments: Mapping[str, str]) -> GpuQuery:
    """From the query string of a request."""

    def one_of(name: str, known: Container[str], default: str) -> str:
        return found if (found := arguments.get(name, default)) in known else default

    return GpuQuery(
        arguments.get("q", "").strip()[:200],
        one_of("show", SHOWN, "all"),
        one_of("sort", COLUMNS, DEFAULT_SORT),
        arguments.get("reverse") == "1",
        one_of("group", GROUPS, "none"),
        _number(arguments.get("page", ""), 1, 10**6),
        min(_number(arguments.get("per_page", ""), PER_PAGE, MAX_PER_PAGE), MAX_PER_PAGE),
    )


def _number(text: str, default: int, highest: int) -> int:
    return min(int(text), highest) if text.isascii() and text.isdecimal() and len(text) < 9 and int(text) else default


@dataclass(frozen=True, slots=True)
class GpuGroup:
    """A heading between rows. `utilization` is the mean of what its rows show."""

    name: str
    count: int
    utilization: PartialMean
    continued: bool = False


@dataclass(frozen=True, slots=True)
class GpuPage:
    """One page: rows by their number in the list, and the group that begins before a row."""

    query: GpuQuery
    rows: tuple[int, ...]
    groups: Mapping[int, GpuGroup]
    found: int
    total: int

    @property
    def pages(self) -> int:
        return max(1, -(-self.found // self.query.per_page))

    @property
    def first(self) -> int:
        """Position of the first row among those found, from 1."""
        return (self.query.page - 1) * self.query.per_page + 1


class GpuList:
    """The rows of one view, in the natural order of their names."""

    def __init__(self, view: View) -> None:
        self.rows = tuple(sorted(build_rows(view), key=lambda row: natural(row.name)))
        self._texts = TextIndex([row.search_text for row in self.rows])
        self._column_ranks = {name: ranks([column.key(row) for row in self.rows]) for name, column in COLUMNS.items()}
        self._group_ranks = {
            group: ranks([(natural(name), name) for name in map(name_of, self.rows)])
            for group, (_, name_of) in GROUPS.items()
        }
        shown = [row.shown_utilization for row in self.rows]
        self._utilization = np.array([value or 0.0 for value in shown], np.float64)
        self._has_utilization = np.array([value is not None for value in shown], np.intp)
        self._shown = {
            name: np.array([passes(row) for row in self.rows], np.bool_) for name, (_, passes) in SHOWN.items()
        }

    @cached_property
    def by_uuid(self) -> Mapping[str, GpuRow]:
        return {row.gpu.uuid: row for row in self.rows}

    def page(self, query: GpuQuery) -> GpuPage:
        """The GPUs that match all words of the search, in order."""
        found = self._in_order(query, self._matching(query))
        pages = max(1, -(-len(found) // query.per_page))
        query = query if query.page <= pages else replace(query, page=pages)
        begin = (query.page - 1) * query.per_page
        rows = tuple(found[begin : begin + query.per_page].tolist())
        groups = {} if query.group == "none" else dict(self._groups(query, found, begin))
        return GpuPage(query, rows, groups, len(found), len(self.rows))

    def _matching(self, query: GpuQuery) -> Numbers:
        conditions = [self._texts.containing(word) for word in dict.fromkeys(query.search.casefold().split())]
        return np.flatnonzero(reduce(np.logical_and, conditions, self._shown[query.show]))

    def _in_order(self, query: GpuQuery, found: Numbers) -> Numbers:
        """By group, then column, then name, in which `found` is; unknown values come last in their group."""
        rank = self._column_ranks[query.sort][found]
        descending = COLUMNS[query.sort].highest_first != query.reverse
        by_column = np.where(rank == UNRANKED, len(self.rows), -rank if descending else rank)
        return found[np.lexsort((by_column, self._group_ranks[query.group][found]))]

    def _groups(self, query: GpuQuery, found: Numbers, begin: int) -> Iterator[tuple[int, GpuGroup]]:
        """The headings of a page that begins at `begin`, by the row that they stand before."""
        name_of, rank = GROUPS[query.group][1], self._group_ranks[query.group][found]
        shown = rank[begin : begin + query.per_page]
        offsets = np.flatnonzero(np.diff(shown, prepend=-1))
        firsts, ends = (np.searchsorted(rank, shown[offsets], side) for side in ("left", "right"))
        if not len(shown):
            return
        of_shown = found[firsts[0] : ends[-1]]  # groups follow each other
        parts = firsts - firsts[0]
        known, total = (np.add.reduceat(each[of_shown], parts) for each in (self._has_utilization, self._utilization))
        columns = (begin + offsets, firsts, ends - firsts, known, total)
        for place, first, count, of_known, used in zip(*(each.tolist() for each in columns), strict=True):
            utilization = PartialMean(used / of_known if of_known else None, of_known, count)
            number = int(found[place])
            yield number, GpuGroup(name_of(self.rows[number]), count, utilization, first < place)


#: The rank of an unknown value.
UNRANKED = -1


def ranks(keys: Sequence[Any]) -> Numbers:
    """The position of each key among the different keys in order; UNRANKED for None."""
    ordered = {key: rank for rank, key in enumerate(sorted({key for key in keys if key is not None}))}
    return np.array([UNRANKED if key is None else ordered[key] for key in keys], np.intp)


def build_rows(view: View) -> Iterator[GpuRow]:
    """A row for each GPU of the last evaluation."""
    evaluation = view.evaluation
    if evaluation is None:
        return
    facts = evaluation.facts
    advice = _advice_by_gpu(view)
    checks: dict[str, dict[str, Check]] = {}
    for check in evaluation.checks:
        if check.scope.kind == "gpu":
            checks.setdefault(check.scope.name, {})[check.item] = check
    pools = {gpu.uuid: state.pool.settings.name for state in evaluation.pools for gpu in state.pool.devices}
    for gpu in facts.gpus:
        uuid = gpu.uuid
        yield GpuRow(
            gpu=gpu,
            name=str(gpu.scope),
            pool=pools.get(uuid, ""),
            owners=owner_names(evaluation, uuid),
            down_reason=facts.down_reasons.get(uuid, "").replace("_", " "),
            utilization=facts.value(signals.UTILIZATION, uuid),
            memory=facts.value(signals.MEMORY_USED, uuid),
            memory_total=facts.value(signals.MEMORY_TOTAL, uuid),
            power=facts.value(signals.POWER, uuid),
            power_limit=facts.value(signals.POWER_LIMIT, uuid),
            temperature=facts.value(signals.TEMPERATURE, uuid),
            throttling=tuple(throttling(evaluation, uuid)),
            advice=tuple(advice.get(uuid, ())),
            checks=checks.get(uuid, {}),
        )


def throttling(evaluation: Evaluation, uuid: str) -> Iterator[Throttling]:
    """Active throttle reasons, the most frequent first."""
    found = ((reason, evaluation.facts.value(signal, uuid)) for reason, signal in THROTTLE_REASONS)
    active = [Throttling(reason, ratio) for reason, ratio in found if ratio and ratio >= MIN_THROTTLED_RATIO]
    yield from sorted(active, key=lambda each: -each.ratio)


def _advice_by_gpu(view: View) -> dict[str, list[PublishedRecommendation]]:
    found: dict[str, list[PublishedRecommendation]] = {}
    open_ = (each for each in view.issued if not each.snoozed)
    for issued in sorted(open_, key=lambda each: _SEVERITIES.index(each.recommendation.severity)):
        advice = issued.recommendation
        for uuid in dict.fromkeys((*advice.gpus, *([advice.scope.name] if advice.scope.kind == "gpu" else []))):
            found.setdefault(uuid, []).append(issued)
    return found
