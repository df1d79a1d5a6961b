"""A server's own curve: what a step takes at which load, learned from its history. Pure.

A step takes a base (weights are read once), more for each running sequence (its KV cache is read, its token computed)
and for each prompt token beside: seconds between tokens = base + per_sequence x running + per_prompt_token x tokens.
With X tokens demanded per second and r prompt tokens per generated one, Little's law (running = X x seconds between
tokens) gives the load at which a server settles: base / (1 - X x (per_sequence + r x per_prompt_token)).
Sources: https://arxiv.org/abs/2211.05102 (costs of a step), https://arxiv.org/abs/2403.02310 (prompts beside decoding).

A mixture of experts reads the weights of the experts that its tokens need: few for one sequence, nearly all for many
(https://arxiv.org/abs/2201.05596). Its steps grow by the root of the sequences as well: that term is fitted only where
the line without it leaves a clear error that the term removes (CONCAVE_ERROR, CONCAVE_GAIN).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpu_advisor.evaluation.serving.facts import CurvePoint

#: Points at different loads that a fit needs.
MIN_POINTS = 3

#: The least root mean square of a line's relative errors at which a root is tried, and the share of it that the root
#: may leave: it does not halve noise. Set on the tables of benchmarks/serving/published_curves.csv that are not marked
#: as held out.
CONCAVE_ERROR, CONCAVE_GAIN = 0.02, 0.5


@dataclass(frozen=True, slots=True)
class StepModel:
    """Seconds: of a step, per running sequence, per prompt token, and per root of the sequences. `error_ratio` is the
    median relative error at points held out, `seen` the most requests that were seen running: beyond, it extrapolates.
    """

    base: float
    per_sequence: float
    per_prompt_token: float
    error_ratio: float
    seen: float
    per_root: float = 0.0

    def itl(self, running: float, prompt_ratio: float) -> float:
        """Seconds between two tokens with so many requests running, and prompt tokens per generated one."""
        each = self.per_sequence + prompt_ratio * self.per_prompt_token
        return self.base + running * each + self.per_root * math.sqrt(max(0.0, running))

    def tokens_per_second(self, running: float, prompt_ratio: float) -> float:
        return running / self.itl(running, prompt_ratio)

    def settled_itl(self, demand: float, prompt_ratio: float, decode: float = 1.0, prefill: float = 1.0) -> float:
        """Seconds between tokens once the load has settled, without limits; infinite if it never does.

        `demand` is in generated tokens per second; `decode` and `prefill` speed up the one or the other.
        """
        growth = demand * (self.per_sequence / decode + prompt_ratio * self.per_prompt_token / prefill)
        if growth >= 1:
            return math.inf
        # By Little's law, running = demand x time: (1 - growth) x time - root x sqrt(time) - base = 0.
        root = self.per_root / decode * math.sqrt(max(0.0, demand))
        return float(_positive_root(1 - growth, root, self.base / decode) ** 2)

    def largest(self, itl: float, prompt_ratio: float) -> float:
        """The most requests running within an inter-token latency (seconds); infinite if nothing adds to a step."""
        each = self.per_sequence + prompt_ratio * self.per_prompt_token
        room = itl - self.base
        if room < 0:
            return 0.0
        if self.per_root > 0:  # each x running + per_root x sqrt(running) = room
            return _positive_root(each, -self.per_root, room) ** 2
        return room / each if each > 0 else math.inf


def _positive_root(square: float, linear: float, constant: float) -> float:
    """The positive x with square x^2 = linear x + constant, none of which but `linear` is negative.

    In the form that does not subtract two numbers of nearly the same size.
    """
    root = math.sqrt(linear * linear + 4 * square * constant)
    return 2 * constant / (root - linear) if linear < 0 else (linear + root) / (2 * square)


def fit_step_model(points: Sequence[CurvePoint]) -> StepModel | None:
    """The best fit with no negative part, by least squares of relative errors; None if the load hardly varied."""
    known = [each for each in points if each.concurrency > 0 and each.itl_seconds > 0]
    if len(known) < MIN_POINTS:
        return None
    loads = [_load_of_steps(each) for each in known]
    columns = np.array([(1.0, sequences, prompts, math.sqrt(sequences)) for sequences, prompts in loads])
    weighted = columns / np.array([each.itl_seconds for each in known])[:, None]
    base, per_sequence, per_prompt_token, per_root = map(float, _fit(weighted))
    seen = max(each.concurrency for each in known)
    return StepModel(base, per_sequence, per_prompt_token, _error_ratio(weighted), seen, per_root)


def _fit(weighted: NDArray[np.float64]) -> NDArray[np.float64]:
    """The coefficients of columns divided by the times that they explain. The last, of the root, is seldom used."""
    target, line = np.ones(len(weighted)), _fit_line(weighted)
    error = _root_mean_square(weighted @ line - 1)
    if error < CONCAVE_ERROR:
        return line
    curved = _non_negative(weighted, target)
    return curved if _root_mean_square(weighted @ curved - 1) <= CONCAVE_GAIN * error else line


def _fit_line(weighted: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.append(_non_negative(weighted[:, :-1], np.ones(len(weighted))), 0.0)


def _root_mean_square(errors: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(errors**2)))


def _error_ratio(weighted: NDArray[np.float64]) -> float:
    """The median relative error of every other point by a fit to those between, and the reverse.

    With too few points for two fits, that of all points by the line fitted to them: a root fits any three.
    """
    if len(weighted) < 2 * MIN_POINTS:
        return float(np.median(np.abs(weighted @ _fit_line(weighted) - 1)))
    halves = weighted[::2], weighted[1::2]
    errors = [np.abs(test @ _fit(train) - 1) for train, test in (halves, reversed(halves))]
    return float(np.median(np.concatenate(errors)))


def _load_of_steps(point: CurvePoint) -> tuple[float, float]:
    """Sequences and prompt tokens of a mean step, by Little's law: tokens per second x seconds between tokens.

    Counters know all that happened between two scrapes, a gauge only the moments of the scrapes. Noise in what a line
    is fitted against flattens the line (https://en.wikipedia.org/wiki/Regression_dilution): with gauges, a server seems
    to take any load without slowing down.
    """
    sequences = point.tokens_per_second * point.itl_seconds
    if sequences <= 0:
        return point.concurrency, point.prompt_tokens_per_step
    return sequences, point.prompt_tokens_per_step * sequences / point.concurrency


def _non_negative(columns: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares without negative coefficients: of a few columns, each subset is tried."""
    scale = columns.max(axis=0)
    scale[scale == 0] = 1.0
    best, least = np.zeros(columns.shape[1]), math.inf
    for chosen in range(1, 2 ** columns.shape[1]):
        picked = [index for index in range(columns.shape[1]) if chosen >> index & 1]
        part = (columns / scale)[:, picked]
        found = np.linalg.lstsq(part, target, rcond=None)[0]
        error = float(np.sum((part @ found - target) ** 2))
        if np.all(found >= 0) and error < least - 1e-12:
            best, least = np.zeros(columns.shape[1]), error
            best[picked] = found
    return np.asarray(best / scale)
