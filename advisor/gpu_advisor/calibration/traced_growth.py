"""The part of a memory fit that knows the traced step: components for `memory_fit`.

    m(b) = m0 + g * (t(b) - t(b0)),    t: traced bytes, b0: the largest measured size

A trace has each tensor exactly, and neither the driver's context nor the libraries' workspaces. What does not grow with
the batch drops out of the difference; the growth factor g is 1 if nothing else grows, above it with workspaces, and
below it where the GPU's kernels keep less than those of the trace (attention). Its prior is learnt as that of the other
parameters (`benchmarks/memory/fit_prior.py`), with a share that is spread widely for traces that mislead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_advisor.calibration.points import MeasuredPoints
from gpu_advisor.calibration.prior import TracePrior
from gpu_advisor.calibration.traced_memory import TracedMemory

Array = npt.NDArray[np.float64]
_LEAST_RATIO = 1e-3


@dataclass(frozen=True, slots=True)
class TracedGrowth:
    """The posterior over growth factors and noises. Arrays have one entry per component."""

    trace: TracedMemory
    base_size: int
    base_bytes: float
    weight: Array
    growth: Array
    noise: Array
    log_scale: Array

    def log_shape(self, batch_size: int) -> Array:
        """Log of memory relative to the largest measured size."""
        return log_growth(self.growth, self.trace, self.base_size, self.base_bytes, batch_size)


def traced_growth(points: MeasuredPoints, trace: TracedMemory, prior: TracePrior) -> tuple[TracedGrowth, float]:
    """The posterior from measured points, and the log of its evidence, which leaves out the same constants as that of
    `memory_fit`."""
    growth, noise, weight = prior.components()
    base, peaks = points.largest, [float(point.peak_memory_bytes) for point in points.points]
    shapes = np.stack(
        [log_growth(growth, trace, base.batch_size, peaks[-1], point.batch_size) for point in points.points], axis=1
    )
    residuals = np.log(peaks) - shapes
    scale = residuals.mean(axis=1)
    squares = ((residuals - scale[:, None]) ** 2).sum(axis=1)
    log_weight = np.log(weight) - (len(peaks) - 1) * np.log(noise) - squares / (2 * noise**2)
    posterior = np.exp(log_weight - log_weight.max())
    fit = TracedGrowth(trace, base.batch_size, peaks[-1], posterior / posterior.sum(), growth, noise, scale)
    return fit, float(log_weight.max() + np.log(posterior.sum()))


def log_growth(growth: Array, trace: TracedMemory, base_size: int, base_bytes: float, batch_size: int) -> Array:
    """Log of 1 + g (t(b) - t(b0)) / m0, for each growth factor."""
    more = (trace.bytes_at(batch_size) - trace.bytes_at(base_size)) / base_bytes
    relative: Array = np.log(np.maximum(1.0 + growth * more, _LEAST_RATIO))
    return relative
