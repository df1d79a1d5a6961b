"""The frontier of a pool: how many replicas each share of unserved demand costs, by a replay of its own past.

Two things are varied: the headroom, in deviations of the forecast's errors, and a minimum size. Headroom suits demand
that fluctuates around a level. Where demand starts from idle, or jumps by more than any forecast can know, only
replicas that are kept ready serve it: the minimum sizes are quantiles of the pool's own demand.

One day has only a few shortages, so what the replay left unserved is combined with what is usual: on generated days of
very different demand, the unserved work per step is nearly the same function of the headroom, if both are in deviations
(UNSERVED_BY_DEVIATIONS), and so is the share of windows with a shortage (MISSED_BY_DEVIATIONS). The rate of shortages
is estimated as that of a Poisson process with a gamma prior, its conjugate
(https://en.wikipedia.org/wiki/Conjugate_prior): the usual rate, seen for one shortage, and for PRIOR_STEPS at most. So
a pool with many shortages is tuned by its own past, and one with a short past, or a strict objective, by what is usual.
That one shortage also stands for the next day's record: the largest of n demands is exceeded once, on average, by n
further ones of the same kind (the rule of succession).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, exp, inf, log

from gpu_advisor.evaluation.scaling.candidate_replay import CandidateReplay, CandidateResult

UsualUnserved = Sequence[tuple[float, float]]

#: Headroom in deviations -> unserved work per step, in deviations. Means over benchmarks/demand.py's fitted days.
UNSERVED_BY_DEVIATIONS: UsualUnserved = (
    (0.0, 0.096),
    (1.0, 0.074),
    (1.5, 0.053),
    (2.0, 0.033),
    (2.5, 0.021),
    (3.0, 0.0123),
    (3.5, 0.0068),
    (4.0, 0.0044),
    (4.5, 0.0026),
    (5.0, 0.0014),
    (6.0, 0.0005),
    (8.0, 0.0001),
    (12.0, 0.00001),
    (20.0, 0.000001),
)

#: Headroom in deviations -> share of the windows of five steps in which there is a shortage. Means of three of each of
#: benchmarks/demand.py's fitted days, which differ by a third at most up to 4 deviations.
MISSED_BY_DEVIATIONS: UsualUnserved = (
    (0.0, 0.41),
    (1.0, 0.26),
    (1.5, 0.18),
    (2.0, 0.12),
    (2.5, 0.077),
    (3.0, 0.049),
    (3.5, 0.030),
    (4.0, 0.020),
    (4.5, 0.0126),
    (5.0, 0.0075),
    (6.0, 0.0022),
    (8.0, 0.00015),
)
PRIOR_STEPS = 720

#: Minimum sizes as quantiles of the demand, and the headrooms that each is combined with.
#: A window is missed by its highest step: of windows, the quantiles are higher.
MINIMUM_QUANTILES, WINDOW_MINIMUM_QUANTILES = (0.5, 0.9, 0.98, 1.0), (0.9, 0.98, 0.99, 0.995, 1.0)
_MINIMUM_DEVIATIONS = tuple(each for each in UNSERVED_BY_DEVIATIONS if each[0] in (0.0, 1.5, 3.0, 5.0))

#: In a part of a day, a minimum size costs at most this share of what headroom alone costs.
CLEARLY_LESS = 0.95

#: Points between two candidates that are replayed before the stricter of the two is taken.
REFINEMENTS = 3

_NOTHING = 1e-12


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """An amount of headroom, and replicas kept in any case.

    `unserved_ratio` is the share (0..1) of the demand that is expected to be unserved, or of the windows that are
    expected to be missed; `replicas` is the mean size.
    """

    deviations: float
    unserved_ratio: float
    replicas: float
    min_replicas: int = 0


def frontiers_of(found: CandidateReplay, strictest_ratio: float) -> list[tuple[FrontierPoint, ...]]:
    """One frontier for each minimum size, without one first; strictest last in each.

    Larger minimum sizes are tried as long as one could cost less than what was found for `strictest_ratio`.
    """
    rows = MISSED_BY_DEVIATIONS if found.window_steps else UNSERVED_BY_DEVIATIONS
    frontiers = [_frontier(found, rows, 0)]
    demands = sorted(found.demands)
    quantiles = WINDOW_MINIMUM_QUANTILES if found.window_steps else MINIMUM_QUANTILES
    ranks = (min(len(demands) - 1, int(share * len(demands))) for share in quantiles if demands)
    for size in sorted({ceil(demands[rank]) for rank in ranks}):
        best = cheapest(frontiers, strictest_ratio)
        if best.unserved_ratio <= strictest_ratio and size >= best.replicas:
            break
        frontiers.append(_frontier(found, _MINIMUM_DEVIATIONS, size))
    return frontiers


def of_part_of_a_day(frontiers: list[tuple[FrontierPoint, ...]], ratio: float) -> list[tuple[FrontierPoint, ...]]:
    """The frontiers of a past that is shorter than a day: with minimum sizes only if these cost clearly less.

    The demand of the other hours is not known yet, and a minimum size does not follow it as headroom does.
    """
    alone, best = cheapest(frontiers[:1], ratio), cheapest(frontiers, ratio)
    is_reached = alone.unserved_ratio <= ratio * (1 + 1e-9)
    return frontiers[:1] if is_reached and best.replicas > CLEARLY_LESS * alone.replicas else frontiers


def cheapest(frontiers: Sequence[Sequence[FrontierPoint]], ratio: float) -> FrontierPoint:
    """The cheapest point at which at most `ratio` is unserved; if none is, the one with the least unserved."""
    found = [_point_at(frontier, ratio) for frontier in frontiers]
    reached = [point for point in found if point.unserved_ratio <= ratio * (1 + 1e-9)]
    if reached:
        return min(reached, key=lambda point: point.replicas)
    return min(found, key=lambda point: point.unserved_ratio)


def cheapest_replayed(
    found: CandidateReplay, frontiers: Iterable[tuple[FrontierPoint, ...]], ratio: float
) -> FrontierPoint:
    """`cheapest`, by a replay of that very headroom: between whole replicas, what two candidates gave shows little."""
    by_minimum = {frontier[0].min_replicas: frontier for frontier in frontiers}
    chosen = _cheapest_headroom(found, dict(by_minimum), ratio)
    return chosen if found.window_steps else _with_smaller_minimum(found, chosen, by_minimum, ratio)


def _cheapest_headroom(
    found: CandidateReplay, by_minimum: dict[int, tuple[FrontierPoint, ...]], ratio: float
) -> FrontierPoint:
    """The headroom between two candidates of the same minimum size."""
    for _ in range(REFINEMENTS):
        point = cheapest(list(by_minimum.values()), ratio)
        frontier = by_minimum[point.min_replicas]
        if point in frontier:
            return point
        replayed = _replay(found, ceil(100 * point.deviations - 1e-6) / 100, point.min_replicas)
        if replayed.unserved_ratio <= ratio:
            return replayed
        by_minimum[point.min_replicas] = _monotone((*frontier, replayed), found.window_steps > 0)
    reached = (point for frontier in by_minimum.values() for point in frontier if point.unserved_ratio <= ratio)
    return min(reached, key=lambda point: point.replicas)


def _with_smaller_minimum(
    found: CandidateReplay, chosen: FrontierPoint, minimums: Iterable[int], ratio: float
) -> FrontierPoint:
    """The same headroom with a smaller minimum size, down to the next one of `minimums`, that is enough and not dearer.

    Where demand jumps, the largest of a day is far from its 98 % quantile. Quantiles for windows are close together.
    """
    below = max((each for each in minimums if each < chosen.min_replicas), default=0)
    while chosen.min_replicas - below > 1:
        replayed = _replay(found, chosen.deviations, (below + chosen.min_replicas) // 2)
        if replayed.unserved_ratio <= ratio and replayed.replicas <= chosen.replicas:
            chosen = replayed
        else:
            below = replayed.min_replicas
    return chosen


def _frontier(found: CandidateReplay, usual: UsualUnserved, min_replicas: int) -> tuple[FrontierPoint, ...]:
    replayed = (_replay(found, deviations, min_replicas) for deviations, _ in usual)
    return _monotone(replayed, found.window_steps > 0)


def _monotone(points: Iterable[FrontierPoint], keeps_equal: bool) -> tuple[FrontierPoint, ...]:
    """By headroom, with unserved shares that never rise with it.

    Without those that cost more than one with more headroom: too little headroom ends in saturation, which is answered
    by large steps. Those that cost as much are left out, too, unless `keeps_equal`: a counted demand without a
    deviation so far has any headroom for nothing, and the most would cost the first rise dearly.
    """
    kept: list[FrontierPoint] = []
    least = inf
    for point in sorted(points, key=lambda each: each.deviations):
        least = min(least, point.unserved_ratio)
        while kept and (
            kept[-1].replicas > point.replicas or (not keeps_equal and kept[-1].replicas == point.replicas)
        ):
            kept.pop()
        kept.append(replace(point, unserved_ratio=least))
    return tuple(kept)


def _replay(found: CandidateReplay, deviations: float, min_replicas: int) -> FrontierPoint:
    """What a headroom would have cost, and the share that it is expected to leave unserved."""
    candidate = found.candidate(deviations, min_replicas)
    if found.window_steps:
        usual = _usual_share(MISSED_BY_DEVIATIONS, deviations) * found.total
    else:
        usual = _usual_share(UNSERVED_BY_DEVIATIONS, deviations) * found.deviation_sum
    share = _expected_unserved(found, candidate, usual) / max(found.total, 1e-9)
    return FrontierPoint(deviations, share, candidate.replicas / max(1, found.steps), min_replicas)


def _usual_share(rows: UsualUnserved, deviations: float) -> float:
    """What is usual with this headroom, between the rows by the logarithm."""
    for (low, before), (high, after) in pairwise(rows):
        if deviations <= high:
            share = (deviations - low) / (high - low)
            return float(before ** (1 - share) * after**share)
    return rows[-1][1]


def _expected_unserved(found: CandidateReplay, candidate: CandidateResult, usual: float) -> float:
    """The work, or windows, that another past as long as this one is expected to leave unserved; `usual` is what is
    usual in it. Of windows, what is usual makes no past better than it was: some demands have a burst an hour."""
    longest = PRIOR_STEPS / max(1, found.steps)
    weight = min(longest, found.shortage_size(candidate) / usual) if usual else longest
    expected = (candidate.unserved + weight * usual) / (1 + weight)
    return max(expected, candidate.unserved) if found.window_steps else expected


def _point_at(frontier: Sequence[FrontierPoint], ratio: float) -> FrontierPoint:
    """The least headroom at which at most `ratio` is unserved, between candidates by the logarithm; else the most."""
    if frontier[0].unserved_ratio <= ratio:
        return frontier[0]
    for before, after in pairwise(frontier):
        if after.unserved_ratio <= ratio:
            high, low = log(before.unserved_ratio), log(max(after.unserved_ratio, _NOTHING))
            return _between(before, after, (high - log(ratio)) / (high - low))
    return frontier[-1]


def _between(before: FrontierPoint, after: FrontierPoint, share: float) -> FrontierPoint:
    low, high = (log(max(each.unserved_ratio, _NOTHING)) for each in (after, before))
    return FrontierPoint(
        before.deviations + share * (after.deviations - before.deviations),
        exp(high + share * (low - high)),
        before.replicas + share * (after.replicas - before.replicas),
        after.min_replicas,
    )
