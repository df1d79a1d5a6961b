"""The utilization history of the serving pools, step by step, in one query that the source aggregates.

The result has only two numbers per pool and step, however many GPUs there are. Steps are whole multiples of the step in
Unix time, so that a completed step never changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from gpu_advisor.evaluation.history import PoolSample, step_bounds
from gpu_advisor.evaluation.scaling.demand_history import SATURATION_RATIO
from gpu_advisor.evaluation.scaling.saturation import LONG_HISTORY_SECONDS, LONG_STEP_SECONDS
from gpu_advisor.promql.expressions import Aggregate, ConstantLabel, Expression, restrict_to_values, union
from gpu_advisor.settings import EvaluationSettings
from gpu_advisor.sources.base import Source

#: Labels of the results: the pool, and which of the two numbers. No exporter uses them.
POOL_LABEL, PART_LABEL = "gpu_advisor_pool", "gpu_advisor_part"

REPORTING, BUSY_GPUS = "reporting", "busy"


def history_query(
    pools: Mapping[str, Collection[str]], all_uuids: Collection[str], utilization: Expression
) -> Expression:
    """Both numbers of each pool. `pools` maps names to uuids; `all_uuids` are those of the fleet."""
    parts: list[Expression] = []
    for name, uuids in sorted(pools.items()):
        covers_all = set(uuids) >= set(all_uuids)
        members = utilization if covers_all else restrict_to_values(utilization, "uuid", tuple(sorted(uuids)))
        counted = ConstantLabel(Aggregate("count", (), members), PART_LABEL, REPORTING)
        added = ConstantLabel(Aggregate("sum", (), members), PART_LABEL, BUSY_GPUS)
        parts += [ConstantLabel(counted, POOL_LABEL, name), ConstantLabel(added, POOL_LABEL, name)]
    return union(*parts)


def pool_work_expressions(pools: Mapping[str, Collection[str]], utilization: Expression) -> dict[str, Expression]:
    """Expressions that reproduce the last step's work of each pool."""
    return {
        name: Aggregate("sum", (), restrict_to_values(utilization, "uuid", tuple(sorted(uuids))))
        for name, uuids in pools.items()
    }


#: By pool, oldest step first.
PoolHistories = Mapping[str, tuple[PoolSample, ...]]


def read_pool_histories(
    source: Source,
    pools: Mapping[str, Collection[str]],
    all_uuids: Collection[str],
    utilization: Expression,
    at: float,
    evaluation: EvaluationSettings,
) -> PoolHistories:
    """The pools' histories. One query, and one more if a pool was saturated throughout. Raises SourceError."""
    first, last = step_bounds(at, evaluation)
    fine = read_range(source, history_query(pools, all_uuids, utilization), first, last, evaluation.step_seconds)
    saturated = {name: pools[name] for name, samples in fine.items() if samples and all(map(_is_saturated, samples))}
    if not saturated:
        return fine
    start = last - LONG_HISTORY_SECONDS
    coarse = read_range(source, history_query(saturated, all_uuids, utilization), start, first - 1, LONG_STEP_SECONDS)
    return {name: (*coarse.get(name, ()), *samples) for name, samples in fine.items()}


def _is_saturated(sample: PoolSample) -> bool:
    return sample.busy >= SATURATION_RATIO * sample.gpus


def read_range(
    source: Source, expression: Expression, first: float, last: float, step: float
) -> dict[str, tuple[PoolSample, ...]]:
    """The samples by pool of a `history_query`, oldest first. One query. Raises SourceError."""
    parts: dict[str, dict[str, Mapping[float, float]]] = {}
    for labels, series in source.range(expression, first, last, step).items():
        each = dict(labels)
        parts.setdefault(each[POOL_LABEL], {})[each[PART_LABEL]] = dict(series)
    return {name: tuple(_join(part.get(REPORTING, {}), part.get(BUSY_GPUS, {}))) for name, part in parts.items()}


def _join(reporting: Mapping[float, float], busy: Mapping[float, float]) -> Iterable[PoolSample]:
    return (PoolSample(at, round(gpus), busy[at]) for at, gpus in sorted(reporting.items()) if at in busy)
