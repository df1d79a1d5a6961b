"""The list of GPUs: a row each, with search, filters, sorting, grouping and paging. Pure.

Rows and their orders are built once per view: a filter of 10,000 GPUs then costs a pass over their search texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args
from urllib.parse import urlencode

from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.facts import Gpu
from gpu_advisor.evaluation.recommendation import Check, Severity
from gpu_advisor.evaluation.signals import Signal
from gpu_advisor.state.view import PublishedRecommendation, View

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
    def name(self) -> str:
        return str(self.gpu.scope)

    @property
    def state(self) -> str:
        return {True: "up", False: "down", None: "not reporting"}[self.gpu.up]

    @property
    def search_text(self) -> str:
        kinds = (each.recommendation.kind.replace("_", " ") for each in self.advice)
        parts = (self.name, self.gpu.uuid, self.gpu.name, self.gpu.mig_profile, self.pool, self.state, *self.owners,
                 *kinds)  # fmt: skip
        return "\n".join(parts).casefold()


#: Filters by name: title, and whether a row passes.
SHOWN: Mapping[str, tuple[str, Callable[[GpuRow], bool]]] = {
    "all": ("all GPUs", lambda _: True),
    "advice": ("with advice", lambda row: bool(row.advice)),
    "down": ("down or not reporting", lambda row: not row.gpu.up),
    "throttled": ("throttled", lambda row: bool(row.throttling)),
    "unowned": ("without an owner", lambda row: not row.owners),
}


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A key that orders node-2 before node-10."""
    parts = re.findall(r"[0-9]{1,18}|[^0-9]+", text.casefold())
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)


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
    "advice": Column("advice", _urgency),
}

#: Group by: title, and the groups' names.
GROUPS: Mapping[str, tuple[str, Callable[[GpuRow], str]]] = {
    "none": ("no groups", lambda _: ""),
    "node": ("by node", lambda row: row.gpu.node),
    "model": ("by model", lambda row: row.gpu.name or "unknown model"),
    "owner": ("by owner", lambda row: ", ".join(row.owners) or "no owner"),
    "pool": ("by pool", lambda row: row.pool),
}


@dataclass(frozen=True, slots=True)
class GpuQuery:
    """What of the list is shown. Made by `parse`, which replaces what it does not know by the default."""

    search: str = ""
    show: str = "all"
    sort: str = "advice"
    reverse: bool = False
    group: str = "none"
    page: int = 1
    per_page: int = PER_PAGE

    def link(self, **changes: object) -> str:
        """The query string of this query with changes, without defaults."""
        names = {"search": "q", "show": "show", "sort": "sort", "reverse": "reverse", "group": "group", "page": "page",
                 "per_page": "per_page"}  # fmt: skip
        values = {name: changes.get(name, getattr(self, name)) for name in names}
        defaults = GpuQuery()
        chosen = {names[name]: int(value) if isinstance(value, bool) else value
                  for name, value in values.items() if value != getattr(defaults, name)}  # fmt: skip
        return "?" + urlencode(chosen)


def parse(arguments: Mapping[str, str]) -> GpuQuery:
    """From the query string of a request."""

    def one_of(name: str, known: Container[str], default: str) -> str:
        return found if (found := arguments.get(name, default)) in known else default

    return GpuQuery(
        arguments.get("q", "").strip()[:200],
        one_of("show", SHOWN, "all"),
        one_of("sort", COLUMNS, "advice"),
        arguments.get("reverse") == "1",
        one_of("group", GROUPS, "none"),
        _number(arguments.get("page", ""), 1, 10**6),
        min(_number(arguments.get("per_page", ""), PER_PAGE, MAX_PER_PAGE), MAX_PER_PAGE),
    )


def _number(text: str, default: int, highest: int) -> int:
    return min(int(text), highest) if text.isascii() and text.isdecimal() and len(text) < 9 and int(text) else default


@dataclass(frozen=True, slots=True)
class GpuGroup:
    """A heading between rows. `utilization` is the mean of all its GPUs, None unless known for each that is up."""

    name: str
    count: int
    utilization: float | None
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
    """The rows of one view."""

    def __init__(self, view: View) -> None:
        self.rows = tuple(build_rows(view))
        self._orders: dict[tuple[str, str, bool], tuple[int, ...]] = {}

    @cached_property
    def _texts(self) -> tuple[str, ...]:
        return tuple(row.search_text for row in self.rows)

    @cached_property
    def by_uuid(self) -> Mapping[str, GpuRow]:
        return {row.gpu.uuid: row for row in self.rows}

    def page(self, query: GpuQuery) -> GpuPage:
        """The GPUs that match all words of the search, in order."""
        found = self._matching(query, self._order(query.sort, query.group, query.reverse))
        pages = max(1, -(-len(found) // query.per_page))
        query = query if query.page <= pages else parse({**_arguments(query), "page": str(pages)})
        begin = (query.page - 1) * query.per_page
        rows = tuple(found[begin : begin + query.per_page])
        groups = {} if query.group == "none" else dict(self._groups(query, found, begin, rows))
        return GpuPage(query, rows, groups, len(found), len(self.rows))

    def _order(self, sort: str, group: str, reverse: bool) -> tuple[int, ...]:
        key = sort, group, reverse
        if key not in self._orders:
            rows, column, group_of = self.rows, COLUMNS[sort], GROUPS[group][1]
            names = sorted(range(len(rows)), key=lambda number: natural(rows[number].name))
            values = {number: column.key(rows[number]) for number in names}
            order = [number for number in names if values[number] is not None]
            order.sort(key=values.__getitem__, reverse=column.highest_first != reverse)
            order += [number for number in names if values[number] is None]
            if group != "none":
                order.sort(key=lambda number: natural(group_of(rows[number])))
            self._orders[key] = tuple(order)
        return self._orders[key]

    def _matching(self, query: GpuQuery, order: Sequence[int]) -> Sequence[int]:
        for word in query.search.casefold().split():
            texts = self._texts
            order = [number for number in order if word in texts[number]]
        if query.show != "all":
            passes = SHOWN[query.show][1]
            order = [number for number in order if passes(self.rows[number])]
        return order

    def _groups(
        self, query: GpuQuery, found: Sequence[int], begin: int, rows: Sequence[int]
    ) -> Iterator[tuple[int, GpuGroup]]:
        name_of = GROUPS[query.group][1]
        members: dict[str, list[int]] = {}
        for number in found:
            members.setdefault(name_of(self.rows[number]), []).append(number)
        before = name_of(self.rows[found[begin - 1]]) if begin else None
        for number in rows:
            name = name_of(self.rows[number])
            if name != before or number == rows[0]:
                up = [self.rows[each].utilization for each in members[name] if self.rows[each].gpu.up]
                yield number, GpuGroup(name, len(members[name]), mean(up), name == before)
            before = name


def mean(values: Sequence[float | None]) -> float | None:
    """None unless every value is known, and there is one."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _arguments(query: GpuQuery) -> dict[str, str]:
    return {"q": query.search, "show": query.show, "sort": query.sort, "reverse": str(int(query.reverse)),
            "group": query.group, "per_page": str(query.per_page)}  # fmt: skip


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
    pools = {gpu.uuid: state.pool.settings.name for state in evaluation.pools for gpu in state.pool.gpus}
    for gpu in facts.gpus:
        uuid = gpu.uuid
        yield GpuRow(
            gpu=gpu,
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


def owner_names(evaluation: Evaluation, uuid: str) -> tuple[str, ...]:
    """Who uses a GPU; the training job that reports, where no owner is known."""
    owners = tuple(dict.fromkeys(map(str, evaluation.facts.owners.get(uuid, ()))))
    job = evaluation.facts.jobs.get(uuid, "")
    return owners or ((f"job {job}",) if job else ())


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
