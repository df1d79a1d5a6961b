"""Headroom of a serving pool: set by hand, or tuned to an SLO by a walk-forward replay of the pool's own past.

The SLO is a share of the demanded GPU-time above the capacity (`slo.unserved`) or, of language models, of windows that
miss a latency objective (`slo.windows`): those in which a step needs more than there is. The replay says what each
amount of headroom, and each minimum size, would have left unserved, and what it would have cost: the frontier. The
cheapest point that is expected to meet the SLO is taken. No band of utilization limits the size of such a pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt

from gpu_advisor.evaluation.scaling.candidate_replay import CandidateReplay, CandidateResult
from gpu_advisor.evaluation.scaling.demand_history import DemandPoint
from gpu_advisor.evaluation.scaling.demand_record import RecordedDemand, record_demand
from gpu_advisor.evaluation.scaling.frontier import (
    FrontierPoint,
    cheapest,
    cheapest_replayed,
    frontiers_of,
    of_part_of_a_day,
)
from gpu_advisor.evaluation.scaling.replay_steps import ROUNDING, SizingRules

#: The past that is replayed, and the least that tunes anything (seconds).
SLO_HISTORY_SECONDS, MIN_SLO_HISTORY_SECONDS = 86400, 3600

#: From this much of a day on (seconds), its least and its largest demand are known: some of it may be missing.
WHOLE_DAY_SECONDS = 0.9 * SLO_HISTORY_SECONDS

#: The headroom is tuned this often (seconds): a function of the past before a whole hour, not of the evaluation.
TUNING_SECONDS = 3600

#: The past that is read (seconds): the day before a tuning of up to an hour ago, so that it stays whole until the next.
READ_SECONDS = SLO_HISTORY_SECONDS + TUNING_SECONDS

#: Objectives for which the frontier is stated besides the pool's own: shares of the demand, and of windows.
FRONTIER_RATIOS = (0.0005, 0.001, 0.0025, 0.005, 0.01)
WINDOW_FRONTIER_RATIOS = (0.001, 0.0025, 0.005, 0.01, 0.02)

#: An objective that no headroom reaches is not worth all headroom: this times the least unserved share is enough.
NEARLY_BEST = 1.1

#: With fewer shortages than this, the reached share is stated as an upper bound.
FEW_SHORTAGES = 10

#: One-sided 95 % quantile of the normal distribution.
_NORMAL_95 = 1.6449


@dataclass(frozen=True, slots=True)
class Headroom:
    """Headroom in deviations, and replicas that are kept in any case.

    `prior`: tuned to an SLO. No band of utilization applies, and a deviation is assumed while the pool has no past.
    `work_ratio`: what a replica does, as observed, relative to what is derived for it.
    """

    deviations: float
    prior: bool = False
    min_replicas: int = 0
    work_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class TunedHeadroom(Headroom):
    """Headroom tuned to an SLO, and what it is based on.

    `reached_ratio` is the unserved share of the demand, or with `of_windows` the share of missed windows, in the replay
    with this headroom; `upper_ratio` is its upper bound (95 %), after `shortages` shortages. What came in
    `saturated_steps` is an estimate. With `missing_seconds` of history still to come, the headroom is the default, and
    there is no frontier.
    """

    prior: bool = True
    target_ratio: float = 1.0
    of_windows: bool = False
    history_seconds: float = 0.0
    missing_seconds: float = 0.0
    reached_ratio: float | None = None
    upper_ratio: float | None = None
    shortages: int = 0
    saturated_steps: int = 0
    chosen: FrontierPoint | None = None
    frontier: tuple[FrontierPoint, ...] = ()

    @property
    def is_out_of_reach(self) -> bool:
        """Whether no headroom is expected to meet the SLO: the limits leave too few replicas."""
        return self.chosen is not None and self.chosen.unserved_ratio > self.target_ratio * (1 + ROUNDING)


def tuning_time(at: float, step_seconds: float, phase_seconds: float = 0) -> float:
    """The last tuning up to `at`: once per TUNING_SECONDS, at a phase that spreads the pools' replays over time."""
    phase = phase_seconds // step_seconds * step_seconds
    return (at - phase) // TUNING_SECONDS * TUNING_SECONDS + phase


def tune_headroom(
    history: Sequence[DemandPoint],
    at: float,
    step_seconds: float,
    rules: SizingRules,
    target_ratio: float,
    default_deviations: float,
    phase_seconds: float = 0,
) -> TunedHeadroom:
    """The least headroom that is expected to leave at most `target_ratio` of the demand, or windows, unserved.

    Uses the points up to the last tuning before `at` (Unix time) only, those up to `at` in a new pool. With less than
    MIN_SLO_HISTORY_SECONDS of them: the default.
    """
    tuned_at, steps = tuning_time(at, step_seconds, phase_seconds), int(SLO_HISTORY_SECONDS // step_seconds)
    record = record_demand(history, tuned_at, step_seconds, steps)
    if _recorded_seconds(record, step_seconds) < MIN_SLO_HISTORY_SECONDS:  # a new pool is tuned at each step
        record = record_demand(history, at, step_seconds, steps)
    recorded = _recorded_seconds(record, step_seconds)
    if recorded < MIN_SLO_HISTORY_SECONDS:
        missing = MIN_SLO_HISTORY_SECONDS - recorded
        return TunedHeadroom(
            default_deviations,
            target_ratio=target_ratio,
            of_windows=rules.window_steps > 0,
            history_seconds=recorded,
            missing_seconds=missing,
        )
    return _tune(record, step_seconds, rules, target_ratio)


def _recorded_seconds(record: RecordedDemand, step_seconds: float) -> float:
    return sum(work is not None for work in record.work) * step_seconds


def _tune(record: RecordedDemand, step_seconds: float, rules: SizingRules, target_ratio: float) -> TunedHeadroom:
    found = CandidateReplay(record, rules)
    stated = WINDOW_FRONTIER_RATIOS if rules.window_steps else FRONTIER_RATIOS
    frontiers = frontiers_of(found, min(target_ratio, *stated))
    if found.steps * step_seconds < WHOLE_DAY_SECONDS:
        frontiers = of_part_of_a_day(frontiers, target_ratio)
    least = min(frontier[-1].unserved_ratio for frontier in frontiers)
    chosen = cheapest_replayed(found, frontiers, target_ratio if least <= target_ratio else NEARLY_BEST * least)
    deviations = ceil(100 * chosen.deviations - 1e-6) / 100
    own = found.candidate(deviations, chosen.min_replicas)
    return TunedHeadroom(
        deviations=deviations,
        min_replicas=chosen.min_replicas,
        target_ratio=target_ratio,
        of_windows=rules.window_steps > 0,
        history_seconds=found.steps * step_seconds,
        reached_ratio=own.unserved / found.total if found.total else 0.0,
        upper_ratio=_upper_bound(own, found),
        shortages=round(own.shortages),
        saturated_steps=sum(record.saturated),
        chosen=chosen,
        frontier=tuple(dict.fromkeys(cheapest(frontiers, ratio) for ratio in stated)),
    )


def _upper_bound(own: CandidateResult, found: CandidateReplay) -> float:
    """Upper bound (95 %) of the unserved share: that of the number of shortages, times their mean size.

    For a Poisson count n: the approximation of Wilson and Hilferty to half of the chi-square quantile at 2n + 2 degrees
    of freedom (https://en.wikipedia.org/wiki/Poisson_distribution#Confidence_interval). Without a shortage, its size is
    one mean deviation at least.
    """
    if not found.total:
        return 0.0
    count = own.shortages + 1
    most = count * (1 - 1 / (9 * count) + _NORMAL_95 / (3 * sqrt(count))) ** 3
    return most * found.shortage_size(own) / found.total
