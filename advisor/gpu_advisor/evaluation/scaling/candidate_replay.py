"""Replay a pool's own past with several amounts of headroom: what each would have cost and left unserved.

The forecasts of the past do not depend on the headroom: they are computed once, each from what was known at its step.
Only the sizes differ: they follow the rules of `sizing`, in a form that costs a microsecond or two per step.

Where utilization was saturated, the demand beyond the capacity was not recorded. Without a correction, a replay would
find no shortage with the headroom that the pool had, and tuning would reduce it further and further. If more replicas
showed more work at the end of a shortage, that was the demand in all of it. Otherwise the demand beyond the capacity is
taken as exponentially distributed with a mean of MEAN_EXCESS_DEVIATIONS: what is measured on generated days whose
demand is known (benchmarks/demand.py).
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, exp, isnan, nan, sqrt

from gpu_advisor.evaluation.scaling.demand_history import SATURATION_RATIO, DemandPoint, align_to_steps
from gpu_advisor.evaluation.scaling.forecast import (
    Horizon,
    excess_scale,
    expect,
    exponential_moving_average,
    running_deviations,
)
from gpu_advisor.evaluation.scaling.persistence import DemandBounds, running_persistence
from gpu_advisor.evaluation.scaling.saturation import FIRST_STEP_RATIO

#: Mean demand beyond the capacity of a saturated step, in deviations.
MEAN_EXCESS_DEVIATIONS = 0.85

#: Steps at the start of a replay that are not counted: its first size is arbitrary.
WARM_UP_STEPS = 30

#: Minimum reduction, in square roots of the pool's size: the estimate is not more accurate than that.
MIN_CHANGE_FACTOR = 0.6

ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class RecordedDemand:
    """A pool's past in whole steps, oldest first, in replicas. `work` is None where nothing was recorded.

    `saturated` steps had at least this much work; `capacity` is the number of replicas.
    """

    work: tuple[float | None, ...]
    capacity: tuple[float, ...]
    saturated: tuple[bool, ...]
    has_signal: bool  # the work is by a demand signal, which shows the demand beyond the capacity

    def pack(self) -> bytes:
        """The same in 24 bytes a step: a key of a cache."""
        work = (nan if value is None else value for value in self.work)
        return array("d", (float(self.has_signal), *work, *self.capacity, *map(float, self.saturated))).tobytes()

    @classmethod
    def unpack(cls, packed: bytes) -> RecordedDemand:
        values = array("d")
        values.frombytes(packed)
        count = (len(values) - 1) // 3
        work, capacity, saturated = (values[1 + count * part : 1 + count * (part + 1)] for part in range(3))
        return cls(
            tuple(None if isnan(value) else value for value in work),
            tuple(capacity),
            tuple(map(bool, saturated)),
            bool(values[0]),
        )


def record_demand(history: Sequence[DemandPoint], at: float, step_seconds: float, steps: int) -> RecordedDemand:
    """The last `steps` steps up to `at` (Unix time), from the first that was recorded."""
    points = align_to_steps(history, at, step_seconds, steps)
    return RecordedDemand(
        tuple(None if point is None else point.demand for point in points),
        tuple(0.0 if point is None else point.replicas for point in points),
        tuple(point is not None and point.saturated for point in points),
        any(point is not None and point.signal_demand is not None for point in points),
    )


@dataclass(frozen=True, slots=True)
class SizingRules:
    """The rules of a replay: limits in replicas, times in steps, utilizations as ratios (0..1)."""

    horizon: Horizon
    history_steps: int
    up_steps: int
    down_steps: int
    cooldown_steps: int
    min: int
    max: int
    scale_up_ratio: float
    scale_down_ratio: float


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """What a headroom of `deviations`, and `min_replicas` in any case, would have given.

    Replicas and unserved work are sums over the counted steps. `shortages` is the expected number of runs of steps with
    too few replicas.
    """

    deviations: float
    min_replicas: int
    replicas: float
    unserved: float
    shortages: float


@dataclass(frozen=True, slots=True)
class _Step:
    """What every candidate knows at a step, and the work that came in it.

    Expectations and deviations (in replicas) are those for scaling up, from the lowest of their window, and for scaling
    down, from the highest.
    """

    known: bool
    work: float
    mean_excess: float  # beyond the capacity; 0 if it was not saturated
    capacity: float
    up: tuple[float, float, float]  # expectation, deviation, least size
    down: tuple[float, float, float]
    peak_level: float


class CandidateReplay:
    """Replays any amount of headroom over the same past.

    `steps` are counted, `demands` is the work of each and `demanded` that of all; `deviation_sum` sums their
    deviations, in replicas.
    """

    def __init__(self, record: RecordedDemand, rules: SizingRules) -> None:
        self._rules, self._hidden = rules, not record.has_signal
        self._prepared = _prepare_steps(record, rules)
        counted = [step for step in self._prepared[WARM_UP_STEPS:] if step.known]
        self.steps = len(counted)
        self.demands = [step.work + step.mean_excess for step in counted]
        self.demanded = sum(self.demands)
        self.deviation_sum = sum(step.up[1] for step in counted)

    def candidate(self, deviations: float, min_replicas: int = 0) -> CandidateResult:
        """What this headroom would have given."""
        least = min(self._rules.max, max(1, self._rules.min, min_replicas))
        candidate = CandidateResult(deviations, min_replicas, 0, 0, 0)
        return _replay_candidate(candidate, self._prepared, replace(self._rules, min=least), self._hidden)

    def shortage_size(self, found: CandidateResult) -> float:
        """Mean unserved work of a shortage; without one, one mean deviation at least."""
        if found.shortages >= 1:
            return found.unserved / found.shortages
        return max(found.unserved, self.deviation_sum / max(1, self.steps))


def _prepare_steps(record: RecordedDemand, rules: SizingRules) -> list[_Step]:
    horizon, work = rules.horizon, list[float]()
    for value in record.work:  # a missing step repeats the one before it
        work.append(value if value is not None else work[-1] if work else 0.0)
    levels = exponential_moving_average(work, horizon.level_half_life_steps)
    bounds = DemandBounds(work, work, levels, levels)
    persistence = running_persistence(bounds, horizon.ahead_steps, horizon.fade, rules.history_steps)
    expected = expect(bounds, persistence, horizon)
    deviations = running_deviations(bounds, persistence, horizon, rules.history_steps)
    demanded = _reveal_shortages(work, record)
    steps: list[_Step] = []
    for index, value in enumerate(record.work):
        recent = slice(max(0, index + 1 - rules.up_steps), index + 1)
        window = slice(max(0, index + 1 - rules.down_steps), index + 1)
        low, high = min(expected[recent]), max(expected[window])
        deviation = deviations[index]
        shown = min(work[recent]) if record.has_signal else 0.0
        steps.append(
            _Step(
                known=value is not None,
                work=demanded[index],
                mean_excess=MEAN_EXCESS_DEVIATIONS * deviation * excess_scale(levels[index])
                if record.saturated[index] and demanded[index] <= record.capacity[index]
                else 0.0,
                capacity=record.capacity[index],
                up=(low, deviation * excess_scale(low), max(shown, low / rules.scale_up_ratio)),
                down=(high, deviation * excess_scale(high), max(*work[window], high / rules.scale_up_ratio)),
                peak_level=max(levels[window]),
            )
        )
    return steps


def _reveal_shortages(work: Sequence[float], record: RecordedDemand) -> list[float]:
    """The work of each step; in a shortage that more replicas ended, at least what they showed then."""
    demanded = list(work)
    for index in range(len(work) - 2, -1, -1):
        grew = record.capacity[index + 1] > record.capacity[index]
        if record.saturated[index] and (grew or record.saturated[index + 1]):
            demanded[index] = max(work[index], demanded[index + 1])
    return demanded


def _replay_candidate(
    candidate: CandidateResult, steps: Sequence[_Step], rules: SizingRules, hidden: bool
) -> CandidateResult:
    """`hidden`: the pool shows no demand beyond its capacity."""
    deviations = candidate.deviations

    def size_for(need: tuple[float, float, float]) -> int:
        needed = max(need[0] + deviations * need[1], need[2])
        return max(rules.min, min(rules.max, ceil(needed - ROUNDING)))

    ready = size_for(steps[0].down) if steps else 0
    before = ready
    starting: deque[tuple[int, int]] = deque()  # (index from which they serve, replicas)
    rose = fell = saturated_at = -len(steps) - rules.cooldown_steps - rules.down_steps
    growths = replicas = 0
    unserved = shortages = short = 0.0
    for index, step in enumerate(steps):
        while starting and starting[0][0] <= index:
            ready += starting.popleft()[1]
        rose, fell = index if ready > before else rose, index if ready < before else fell
        pending = sum(count for _, count in starting)
        saturated = hidden and step.work + step.mean_excess >= SATURATION_RATIO * ready
        lasting = saturated and saturated_at == index - 1
        if saturated:
            growths = growths + (ready > before) if lasting else 0
            saturated_at = index
        before = ready
        if step.known and index >= WARM_UP_STEPS:
            before_short, (short, missing) = short, _shortage(step, ready)
            shortages += max(0.0, short - before_short)
            unserved += missing
            replicas += ready + pending
        size = ready + pending
        wanted = size_for(step.up)
        if lasting:
            share = FIRST_STEP_RATIO * (1 + growths)
            wanted = max(wanted, min(rules.max, ceil(ready + max(1.0, ready * share))))
        if wanted > size:
            if lasting or index - fell >= rules.cooldown_steps:
                starting.append((index + rules.horizon.ahead_steps, wanted - size))
        elif not pending and index - rose >= rules.cooldown_steps and index - saturated_at >= rules.down_steps:
            fewer = size_for(step.down)
            if size - fewer >= MIN_CHANGE_FACTOR * sqrt(size) and step.peak_level < rules.scale_down_ratio * size:
                ready = fewer
    return replace(candidate, replicas=replicas, unserved=unserved, shortages=shortages)


def _shortage(step: _Step, ready: int) -> tuple[float, float]:
    """The probability that `ready` replicas are too few, and the expected work beyond them."""
    if not step.mean_excess:
        return float(step.work > ready), max(0.0, step.work - ready)
    spare = ready - step.capacity
    if spare <= 0:
        return 1.0, step.mean_excess - spare
    probability = exp(-spare / step.mean_excess)
    return probability, step.mean_excess * probability
