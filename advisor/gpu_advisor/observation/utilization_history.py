"""The utilization history of the serving pools, step by step, in one query that the source aggregates.

Only two numbers a pool and step come back, however many GPUs there are. The steps are whole multiples of the step in
Unix time, so that a completed step never changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from gpu_advisor.evaluation.history import PoolSample, step_bounds
from gpu_advisor.evaluation.scaling.demand_history import SATURATION_RATIO
from gpu_advisor.evaluation.scaling.saturation import LONG_HISTORY_SECONDS, LONG_STEP_SECONDS
from gpu_advisor.promql.expressions import Aggregate, ConstantLabel, Expression, restrict_to_values, union
from gpu_advisor.settings import EvaluationSettings
from gpu_advisor.sources.base import Source

#: Labels of the answer: which pool, and which of the two numbers. No exporter has them.
POOL_LABEL, PART_LABEL = "gpu_advisor_pool", "gpu_advisor_part"


REPORTING, BUSY_GPUS = "heard", "busy"


def history_query(
    pools: Mapping[str, Collection[str]], all_uuids: Collection[str], utilization: Expression
) -> Expression:
    """Both numbers of each pool. `pools` are uuids by name, `all_uuids` all uuids there are."""
    parts: list[Expression] = []
    for name, uuids in sorted(pools.items()):
        whole = set(uuids) >= set(all_uuids)
        members = utilization if whole else restrict_to_values(utilization, "uuid", tuple(sorted(uuids)))
        counted = ConstantLabel(Aggregate("count", (), members), PART_LABEL, REPORTING)
        added = ConstantLabel(Aggregate("sum", (), members), PART_LABEL, BUSY_GPUS)
        parts += [ConstantLabel(counted, POOL_LABEL, name), ConstantLabel(added, POOL_LABEL, name)]
    return union(*parts)


def pool_work_expressions(pools: Mapping[str, Collection[str]], utilization: Expression) -> dict[str, Expression]:
    """What anybody asks to get the last step's work of each pool again."""
    return {
        name: Aggregate("sum", (), restrict_to_values(utilization, "uuid", tuple(sorted(uuids))))
        for name, uuids in pools.items()
    }


@dataclass(frozen=True, slots=True)
class PoolHistories:
    """Trails by pool, oldest step first, and how many queries they took."""

    histories: Mapping[str, tuple[PoolSample, ...]]
    queries: int


def read_pool_histories(
    source: Source,
    pools: Mapping[str, Collection[str]],
    all_uuids: Collection[str],
    utilization: Expression,
    at: float,
    evaluation: EvaluationSettings,
) -> PoolHistories:
    """The pools' trails. One query, and one more where a pool was at its ceiling throughout. Raises SourceError."""
    first, last = step_bounds(at, evaluation)
    fine = _range(source, history_query(pools, all_uuids, utilization), first, last, evaluation.step_seconds)
    full = {name: pools[name] for name, trail in fine.items() if trail and all(map(_is_saturated, trail))}
    if not full:
        return PoolHistories(fine, 1)
    start = last - LONG_HISTORY_SECONDS
    coarse = _range(source, history_query(full, all_uuids, utilization), start, first - 1, LONG_STEP_SECONDS)
    return PoolHistories({name: (*coarse.get(name, ()), *trail) for name, trail in fine.items()}, 2)


def _is_saturated(heard: PoolSample) -> bool:
    return heard.busy >= SATURATION_RATIO * heard.gpus


def _range(
    source: Source, expression: Expression, first: float, last: float, step: float
) -> dict[str, tuple[PoolSample, ...]]:
    parts: dict[str, dict[str, Mapping[float, float]]] = {}
    for labels, trail in source.range(expression, first, last, step).items():
        each = dict(labels)
        parts.setdefault(each[POOL_LABEL], {})[each[PART_LABEL]] = dict(trail)
    return {name: tuple(_join(part.get(REPORTING, {}), part.get(BUSY_GPUS, {}))) for name, part in parts.items()}


def _join(heard: Mapping[float, float], busy: Mapping[float, float]) -> Iterable[PoolSample]:
    return (PoolSample(at, round(gpus), busy[at]) for at, gpus in sorted(heard.items()) if at in busy)
