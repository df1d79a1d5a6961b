"""At which load a group's windows miss their latency objectives, learned from its own past. Pure.

The step-time model says what a replica generates within the inter-token latency. What its users see also depends on
what a mean over a step hides: bursts of seconds, prompts, routing. So each past window is asked whether its 95th
percentiles kept the objectives, and at which load. The probability of a miss is fitted as a logistic function of the
load's logarithm (https://en.wikipedia.org/wiki/Logistic_regression); a little evidence beforehand says that the
step-time model is right, and keeps the fit finite where no window was missed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from gpu_advisor.evaluation.serving.facts import DemandSample
from gpu_advisor.evaluation.serving.groups import Objectives

#: Evidence beforehand: so many windows kept their objectives at the load of the step-time model by SPREAD, and as many
#: missed them at SPREAD times that load.
PRIOR_WINDOWS, SPREAD = 20.0, 1.12

#: Windows at a lower load say nothing about too few replicas: what they miss has other causes.
LEAST_LOAD_RATIO = 0.2

#: Limits of what is believed of the load at which half of the windows miss.
LEAST_RATIO, MOST_RATIO = 0.5, 1.25

#: Newton's steps; the error is below a thousandth after six.
ITERATIONS = 12


@dataclass(frozen=True, slots=True)
class MissedLoad:
    """`ratio` is the load of a replica, relative to its work by the step-time model, at which half of the windows miss
    an objective; `slope` is the rise of the log odds with the load's logarithm there. `windows` were observed, `missed`
    of them missed.
    """

    ratio: float = 1.0
    slope: float = math.inf
    windows: int = 0
    missed: int = 0


def learn_missed_load(
    samples: Sequence[DemandSample], work: float, objectives: Objectives, window_steps: int, step_seconds: float
) -> MissedLoad:
    """By the windows that end at each of `samples`, oldest first; `work` is a replica's, in tokens per second.

    Without a latency to compare, nothing is learned: the step-time model alone counts.
    """
    rows = list(_windows(samples, work, objectives, window_steps, step_seconds))
    missed = sum(1 for _, late in rows if late)
    if not rows:
        return MissedLoad()
    middle, slope = _fit([math.log(load) for load, _ in rows], [late for _, late in rows])
    ratio = min(MOST_RATIO, max(LEAST_RATIO, math.exp(middle)))
    return MissedLoad(ratio, slope, len(rows), missed)


def _windows(
    samples: Sequence[DemandSample], work: float, objectives: Objectives, window_steps: int, step_seconds: float
) -> Iterable[tuple[float, bool]]:
    """The highest load of the steps of each window, and whether it missed an objective."""
    loads = [each.tokens_per_second / (each.replicas * work) if each.replicas else 0.0 for each in samples]
    for index in range(window_steps - 1, len(samples)):
        first, last = samples[index - window_steps + 1], samples[index]
        late = last.misses(objectives.ttft, objectives.itl)
        load = max(loads[index - window_steps + 1 : index + 1])
        whole = last.at - first.at <= (window_steps - 1) * step_seconds
        if whole and late is not None and load >= LEAST_LOAD_RATIO:
            yield load, late


def _fit(loads: Sequence[float], late: Sequence[bool]) -> tuple[float, float]:
    """The logarithm of the load at which half is late, and the slope, by maximum likelihood (Newton's method)."""
    step = math.log(SPREAD)
    x = np.array([*loads, -step, step])
    y = np.array([*late, 0.0, 1.0], dtype=float)
    weights = np.concatenate([np.ones(len(loads)), np.full(2, PRIOR_WINDOWS)])
    columns = np.stack([np.ones(len(x)), x])
    found = np.array([0.0, 2.0])
    for _ in range(ITERATIONS):
        odds = np.clip(found @ columns, -30.0, 30.0)
        chance = 1.0 / (1.0 + np.exp(-odds))
        curvature = weights * np.maximum(chance * (1.0 - chance), 1e-9)
        gradient = columns @ (weights * (y - chance))
        change = np.linalg.solve((columns * curvature) @ columns.T, gradient)
        found = found + change * min(1.0, 10.0 / max(1e-9, float(np.abs(change).max())))
    slope = max(1.0, float(found[1]))
    return -float(found[0]) / slope, slope
