"""The utilization history of the serving pools, step by step, in one query that the source aggregates.

Only two numbers a pool and step come back, however many GPUs there are. The steps are whole multiples of the step in
Unix time, so that a completed step never changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from gpu_advisor.evaluation.history import Seen, grid
from gpu_advisor.evaluation.scaling.saturation import LONG_HISTORY_SECONDS, LONG_STEP_SECONDS
from gpu_advisor.evaluation.scaling.trail import SATURATED_RATIO
from gpu_advisor.promql.expressions import Aggregate, Expression, Tagged, only, union
from gpu_advisor.settings import Evaluation
from gpu_advisor.sources.base import Source

#: Labels of the answer: which pool, and which of the two numbers. No exporter has them.
POOL, PART = "gpu_advisor_pool", "gpu_advisor_part"


HEARD, BUSY = "heard", "busy"


def query(pools: Mapping[str, Collection[str]], everybody: Collection[str], utilization: Expression) -> Expression:
    """Both numbers of each pool. `pools` are uuids by name, `everybody` all uuids there are."""
    parts: list[Expression] = []
    for name, uuids in sorted(pools.items()):
        whole = set(uuids) >= set(everybody)
        members = utilization if whole else only(utilization, "uuid", tuple(sorted(uuids)))
        counted = Tagged(Aggregate("count", (), members), PART, HEARD)
        added = Tagged(Aggregate("sum", (), members), PART, BUSY)
        parts += [Tagged(counted, POOL, name), Tagged(added, POOL, name)]
    return union(*parts)


def work_of(pools: Mapping[str, Collection[str]], utilization: Expression) -> dict[str, Expression]:
    """What anybody asks to get the last step's work of each pool again."""
    return {
        name: Aggregate("sum", (), only(utilization, "uuid", tuple(sorted(uuids)))) for name, uuids in pools.items()
    }


@dataclass(frozen=True, slots=True)
class Found:
    """Trails by pool, oldest step first, and how many queries they took."""

    trails: Mapping[str, tuple[Seen, ...]]
    queries: int


def read(
    source: Source,
    pools: Mapping[str, Collection[str]],
    everybody: Collection[str],
    utilization: Expression,
    at: float,
    evaluation: Evaluation,
) -> Found:
    """The pools' trails. One query, and one more where a pool was at its ceiling throughout. Raises SourceError."""
    first, last = grid(at, evaluation)
    fine = _range(source, query(pools, everybody, utilization), first, last, evaluation.step_seconds)
    full = {name: pools[name] for name, trail in fine.items() if trail and all(map(_at_ceiling, trail))}
    if not full:
        return Found(fine, 1)
    start = last - LONG_HISTORY_SECONDS
    coarse = _range(source, query(full, everybody, utilization), start, first - 1, LONG_STEP_SECONDS)
    return Found({name: (*coarse.get(name, ()), *trail) for name, trail in fine.items()}, 2)


def _at_ceiling(heard: Seen) -> bool:
    return heard.busy >= SATURATED_RATIO * heard.gpus


def _range(source: Source, asked: Expression, first: float, last: float, step: float) -> dict[str, tuple[Seen, ...]]:
    parts: dict[str, dict[str, Mapping[float, float]]] = {}
    for labels, trail in source.range(asked, first, last, step).items():
        each = dict(labels)
        parts.setdefault(each[POOL], {})[each[PART]] = dict(trail)
    return {name: tuple(_joined(part.get(HEARD, {}), part.get(BUSY, {}))) for name, part in parts.items()}


def _joined(heard: Mapping[float, float], busy: Mapping[float, float]) -> Iterable[Seen]:
    return (Seen(at, round(gpus), busy[at]) for at, gpus in sorted(heard.items()) if at in busy)
