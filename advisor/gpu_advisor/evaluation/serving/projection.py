"""What a change would do to throughput and latencies, as intervals. Pure.

Where a server's history shows different loads, its curve projects; its own error is the width. Where it has always run
at its limit, only bounds are known: a step is partly a base that more sequences share, partly their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpu_advisor.evaluation.recommendation import Projection
from gpu_advisor.evaluation.serving.step_model import StepModel

#: The share of a step that does not depend on the sequences in it, of a server whose curve is unknown.
BASE_SHARES = (0.15, 0.95)

#: Loads that a curve must span (most by least), to be more than noise; and the least and most relative width.
MIN_SPAN = 1.5
LEAST_WIDTH, MOST_WIDTH = 0.10, 0.40

#: A single change multiplies a limit by this at most: beyond what was observed, a curve is an extrapolation.
MOST_STEP = 2.0


@dataclass(frozen=True, slots=True)
class LoadChange:
    """From `running` requests to `target` a replica. `itl` is now's inter-token latency (seconds), `waiting` are the
    requests that wait now and `finished` those finished per second, a replica."""

    running: float
    target: float
    itl: float | None
    prompt_ratio: float | None
    waiting: float = 0.0
    finished: float = 0.0


def project(curve: StepModel | None, span: float, change: LoadChange) -> Projection:
    """The projection of running more requests at a time; `span` is the most by the least requests seen running."""
    if curve is not None and span >= MIN_SPAN and change.prompt_ratio is not None:
        now, then = (curve.itl(each, change.prompt_ratio) for each in (change.running, change.target))
        growth = then / now if now > 0 else 1.0
        width = min(MOST_WIDTH, max(LEAST_WIDTH, 2 * curve.error_ratio) * _extrapolation(curve, span, change.target))
        low, high = growth * (1 - width), growth * (1 + width)
    else:
        ratio = change.target / change.running
        low, high = sorted(share + (1 - share) * ratio for share in BASE_SHARES)
    ratio = change.target / change.running
    throughput = (ratio / high, ratio / low)
    intervals = {"throughput_ratio": _rounded(throughput)}
    if change.itl is not None:
        intervals["itl_seconds"] = _rounded((low * change.itl, high * change.itl))
    queue = _queue_seconds(change, throughput)
    if queue is not None and change.itl is not None:  # servers of embeddings and images have no first token
        intervals["ttft_seconds"] = _rounded(queue)
    return Projection(throughput_ratio=round(math.sqrt(throughput[0] * throughput[1]), 3), intervals=intervals)


def _extrapolation(curve: StepModel, span: float, target: float) -> float:
    """How much wider an interval is beyond the loads observed, above them and below."""
    if curve.seen <= 0 or target <= 0:
        return MOST_STEP
    return max(1.0, target / curve.seen, curve.seen / span / target)


def _queue_seconds(change: LoadChange, throughput: tuple[float, float]) -> tuple[float, float] | None:
    """Seconds in the queue for those that still wait: Little's law. None if nobody does: then a first token takes what
    its prompt does, which this does not know."""
    still = change.waiting - (change.target - change.running)
    if change.finished <= 0 or still <= 0:
        return None
    low, high = throughput
    return still / (change.finished * high), still / (change.finished * low)


def _rounded(ends: tuple[float, float]) -> tuple[float, float]:
    return float(f"{ends[0]:.3g}"), float(f"{ends[1]:.3g}")
