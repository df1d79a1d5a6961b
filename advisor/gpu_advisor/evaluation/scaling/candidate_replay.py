"""Replay a pool's own past with several amounts of headroom: what each would have cost and left unserved.

The sizes follow the rules of `sizing`, in a form that costs less than a microsecond per step: the needs of all steps
are arrays (`replay_steps`), and only the sequence of the decisions is a loop.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil, isinf, sqrt

import numpy as np

from gpu_advisor.evaluation.scaling.demand_history import SATURATION_RATIO
from gpu_advisor.evaluation.scaling.demand_record import RecordedDemand
from gpu_advisor.evaluation.scaling.replay_steps import Floats, ReplaySteps, SizingRules, prepare_steps
from gpu_advisor.evaluation.scaling.saturation import FIRST_STEP_RATIO

#: Minimum reduction, in square roots of the pool's size: the estimate is not more accurate than that. A replica that
#: was not needed for LASTING_SECONDS is no error of the estimate.
MIN_CHANGE_FACTOR, LASTING_SECONDS = 0.6, 3600


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """What a headroom of `deviations`, and `min_replicas` in any case, would have given.

    Replicas, and what is unserved, work or windows, are sums over the counted steps. `shortages` is the expected number
    of runs of steps with too few replicas.
    """

    deviations: float
    min_replicas: int
    replicas: float
    unserved: float
    shortages: float


class CandidateReplay:
    """Replays any amount of headroom over the same past.

    `steps` are counted, `demands` is the work of each and `demanded` that of all; `deviation_sum` sums their
    deviations, in replicas. `total` is what could be missed: the demanded work, or the windows.
    """

    def __init__(self, record: RecordedDemand, rules: SizingRules) -> None:
        self._rules, self._hidden = rules, not record.has_signal
        self._prepared = prepared = prepare_steps(record, rules)
        self._came: list[float] = (prepared.work + prepared.mean_excess).tolist()
        self._peaks: list[float] = prepared.peak_level.tolist()
        self.steps = int(prepared.counted.sum())
        self.demands: list[float] = (prepared.work + prepared.mean_excess)[prepared.counted].tolist()
        self.demanded: float = sum(self.demands)
        self.deviation_sum = float(prepared.up.deviation[prepared.counted].sum())
        self.window_steps = rules.window_steps
        self.total: float = max(0, self.steps - self.window_steps + 1) if self.window_steps else self.demanded

    def candidate(self, deviations: float, min_replicas: int = 0) -> CandidateResult:
        """What this headroom would have given."""
        least = min(self._rules.max, max(1, self._rules.min, min_replicas))
        needs = (self._prepared.up, self._prepared.down, self._prepared.lasting)
        ready, billed = self._sizes(*(need.sizes(deviations, least, self._rules.max) for need in needs))
        counted = self._prepared.counted
        late, unserved = _shortages(self._prepared, np.array(ready, dtype=np.float64))
        late, unserved = late[counted], unserved[counted]
        if self.window_steps:
            load = self._prepared.work[counted] / np.maximum(1, np.array(ready)[counted])
            late = unserved = _missed_windows(load, self.window_steps, self._rules.window_slope)
        return CandidateResult(
            deviations,
            min_replicas,
            replicas=float(np.array(billed)[counted].sum()),
            unserved=float(unserved.sum()),
            shortages=float(np.maximum(0.0, np.diff(late, prepend=0.0)).sum()),
        )

    def shortage_size(self, found: CandidateResult) -> float:
        """What a shortage misses on average; without one, at least one mean deviation of work, or a window."""
        if found.shortages >= 1:
            return found.unserved / found.shortages
        return max(found.unserved, 1.0 if self.window_steps else self.deviation_sum / max(1, self.steps))

    def _sizes(self, up: list[int], down: list[int], lasting_down: list[int]) -> tuple[list[int], list[int]]:
        """By step, the replicas that were ready and those billed, if the wanted sizes are these."""
        rules, steps = self._rules, len(up)
        ahead, cooldown = rules.horizon.ahead_steps, rules.cooldown_steps
        ready = before = down[0] if steps else 0
        starting: deque[tuple[int, int]] = deque()  # (index from which they serve, replicas)
        rose = fell = saturated_at = -steps - cooldown - rules.down_steps
        growths = pending = 0
        hidden_from = SATURATION_RATIO if self._hidden else float("inf")
        served, billed = list[int](), list[int]()
        for index, (came, wanted) in enumerate(zip(self._came, up, strict=True)):
            while starting and starting[0][0] <= index:
                count = starting.popleft()[1]
                ready, pending = ready + count, pending - count
            if ready != before:
                rose, fell = (index, fell) if ready > before else (rose, index)
            lasting = False
            if came >= hidden_from * ready:
                lasting = saturated_at == index - 1
                growths = growths + (ready > before) if lasting else 0
                saturated_at = index
            before, size = ready, ready + pending
            served.append(ready)
            billed.append(size)
            if lasting:
                share = FIRST_STEP_RATIO * (1 + growths)
                wanted = max(wanted, min(rules.max, ceil(ready + max(1.0, ready * share))))
            if wanted > size:
                if lasting or rules.counted or index - fell >= cooldown:
                    starting.append((index + ahead, wanted - size))
                    pending += wanted - size
            elif (
                down[index] < size
                and not pending
                and index - rose >= cooldown
                and index - saturated_at >= rules.down_steps
                and self._peaks[index] < rules.scale_down_ratio * size
            ):
                if size - down[index] >= MIN_CHANGE_FACTOR * sqrt(size):
                    ready = down[index]
                elif lasting_down[index] < size and index + 1 >= rules.lasting_steps:
                    ready = lasting_down[index]
        return served, billed


def _shortages(steps: ReplaySteps, ready: Floats) -> tuple[Floats, Floats]:
    """By step, the probability that `ready` replicas are too few, and the expected work beyond them."""
    hidden = steps.mean_excess > 0
    spare, mean = ready - steps.capacity, np.where(hidden, steps.mean_excess, 1.0)
    probability = np.exp(-np.maximum(0.0, spare) / mean)
    beyond = mean * probability + np.maximum(0.0, -spare)
    return (
        np.where(hidden, probability, (steps.work > ready).astype(np.float64)),
        np.where(hidden, beyond, np.maximum(0.0, steps.work - ready)),
    )


def _missed_windows(load: Floats, window_steps: int, slope: float) -> Floats:
    """The probability of each window of so many steps to be missed: the latencies of a window are those of its worst
    step. A window begins at each step, so that none depends on where a count begins."""
    if len(load) < window_steps:
        return np.zeros(0)
    worst = np.lib.stride_tricks.sliding_window_view(load, window_steps).max(axis=1)
    if isinf(slope):
        return np.asarray(worst > 1, dtype=np.float64)
    missed: Floats = 1 / (1 + np.maximum(worst, 1e-9) ** -slope)
    return missed
