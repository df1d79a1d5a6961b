"""Peak memory as a function of batch size, from as few as two measured sizes, with calibrated intervals.

The model. Relative to the largest measured size b0, with x = b / b0,

    m(b) = m0 * (f + (1 - f) * max(x, k) ** p) * exp(e),    e ~ Normal(0, s), independent for each size

where f is the fixed share (weights, gradients, optimizer states, driver context), k the relative size below which the
optimizer step sets the peak rather than the activations, p the exponent of the growth, and s the noise that the
allocator's rounding and the libraries' workspaces add to a single size. Two points do not identify these four
parameters, so a prior over models constrains them (`prior.py`). The posterior is summed over a grid, which is exact,
takes milliseconds, and needs no start values. m0 is unknown with a prior flat in the logarithm: the mean residual
estimates it, and the prediction at a new size is a mixture of normal distributions in log memory.

Where the step was traced without a GPU, the mixture has components of `traced_growth` as well. Both kinds are weighted
by how well they explain the measured sizes, so a trace of another step counts for little.

The point estimate minimizes the expected relative error: the median of the mixture weighted by 1/m.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gpu_advisor.calibration.points import MeasuredPoints
from gpu_advisor.calibration.prior import PRIOR, TRACE_PRIOR, Prior, TracePrior
from gpu_advisor.calibration.traced_growth import TracedGrowth, traced_growth

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = npt.NDArray[np.float64]

#: The prior was learnt up to this multiple of the largest measured size: no recommendation goes further.
MAX_EXTRAPOLATION_RATIO = 8.0
_NEGLIGIBLE = 1e-4
_MAX_LOG_ODDS = 700.0
_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class MemoryPrediction:
    """Bytes at one size; `low` and `high` bound the 90 % interval."""

    batch_size: int
    peak_memory_bytes: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class MemoryFit:
    """The posterior as a mixture. Arrays have one entry per component.

    `trace`: further components, of `trace_share` of the posterior.
    """

    points: MeasuredPoints
    prior: Prior
    weight: Array
    fixed_share: Array
    floor: Array
    power: Array
    noise: Array
    log_scale: Array
    trace: TracedGrowth | None = None
    trace_share: float = 0.0

    def predict(self, batch_size: int) -> MemoryPrediction:
        """Peak memory at a size; at a measured size, the measurement."""
        for point in self.points.points:
            if point.batch_size == batch_size:
                peak = point.peak_memory_bytes
                return MemoryPrediction(batch_size, peak, peak, peak)
        center, spread, weight = self._mixture(batch_size)
        low, high = (_quantile(level, center, spread, weight) for level in (self._tail, 1.0 - self._tail))
        relative = weight * np.exp(center.min() - center + spread**2 / 2)
        best = _quantile(0.5, center - spread**2, spread, relative / relative.sum())
        lower_bound = self._log_lower_bound(batch_size)
        middle = max(best, lower_bound)
        ends = middle, min(max(low, lower_bound), middle), max(high, middle)
        return MemoryPrediction(batch_size, *(round(np.exp(end)) for end in ends))

    def exceeds_probability(self, batch_size: int, limit_bytes: float) -> float:
        """Probability in 0..1 that a run at this size needs more than `limit_bytes`."""
        for point in self.points.points:
            if point.batch_size == batch_size:
                return float(point.peak_memory_bytes > limit_bytes)
        center, spread, weight = self._mixture(batch_size)
        return float(1.0 - (weight * _normal_cdf((np.log(limit_bytes) - center) / spread)).sum())

    @property
    def _tail(self) -> float:
        """Share of the posterior beyond each end of an interval: of the kind of components that prevails."""
        if self.trace_share > 1 / 2:
            return self.prior.tail_traced
        return self.prior.tail_two_points if len(self.points.points) == 2 else self.prior.tail_more_points

    def _mixture(self, batch_size: int) -> tuple[Array, Array, Array]:
        """Centres and spreads of the normal distributions of log memory, and their weights."""
        x = np.array([batch_size / self.points.largest.batch_size])
        center = self.log_scale + log_shape(x, self.fixed_share, self.floor, self.power)[:, 0]
        noise, weight = self.noise, (1 - self.trace_share) * self.weight
        if self.trace is not None:
            center = np.concatenate([center, self.trace.log_scale + self.trace.log_shape(batch_size)])
            noise = np.concatenate([noise, self.trace.noise])
            weight = np.concatenate([weight, self.trace_share * self.trace.weight])
        return center, noise * np.sqrt(1 + 1 / len(self.points.points)), weight

    def _log_lower_bound(self, batch_size: int) -> float:
        """Log of the highest peak measured at a smaller size: a larger size needs no less."""
        smaller = [p.peak_memory_bytes for p in self.points.points if p.batch_size < batch_size]
        return float(np.log(max(smaller))) if smaller else 0.0


def fit_memory(points: MeasuredPoints, prior: Prior = PRIOR, trace_prior: TracePrior = TRACE_PRIOR) -> MemoryFit:
    """Compute the posterior over the prior's grid, without components of negligible weight.

    Points with a trace are fitted with and without it.
    """
    fixed, floor, power, noise, weights = _grid(prior)
    sizes = _array([point.batch_size for point in points.points])
    logs = np.log(_array([point.peak_memory_bytes for point in points.points]))
    residuals = logs - log_shape(sizes / sizes[-1], fixed, floor, power)
    scale = residuals.mean(axis=1)
    squares = ((residuals - scale[:, None]) ** 2).sum(axis=1)
    likelihood = -(len(sizes) - 1) * np.log(noise) - squares[:, None] / (2 * noise**2) + np.log(weights)
    posterior = np.exp(likelihood - likelihood.max())
    shape, spread = np.nonzero(posterior > _NEGLIGIBLE * posterior.max())
    kept = posterior[shape, spread]
    trace, share = None, 0.0
    if points.traced is not None:
        trace, evidence = traced_growth(points, points.traced, trace_prior)
        odds = np.log(trace_prior.trust / (1 - trace_prior.trust)) + evidence - likelihood.max() - np.log(kept.sum())
        share = 1 / (1 + np.exp(-np.clip(odds, -_MAX_LOG_ODDS, _MAX_LOG_ODDS)))
    return MemoryFit(
        points, prior, kept / kept.sum(), fixed[shape], floor[shape], power[shape], noise[spread], scale[shape],
        trace, float(share),
    )  # fmt: skip


@lru_cache(maxsize=4)
def _grid(prior: Prior) -> tuple[Array, Array, Array, Array, Array]:
    """Fixed share, floor and power of each shape, the noises, and the probabilities (shapes x noises)."""
    *shape, noise = map(_array, prior.grid)
    fixed, floor, power = (axis.ravel() for axis in np.meshgrid(*shape, indexing="ij"))
    return fixed, floor, power, noise, prior.weights().reshape(len(fixed), len(noise))


def _array(values: Sequence[float]) -> Array:
    return np.asarray(values, dtype=np.float64)


def log_shape(x: Array, fixed: Array, floor: Array, power: Array) -> Array:
    """Log of relative memory, shape (components, sizes)."""
    share = fixed[:, None]
    grown: Array = np.log(share + (1 - share) * np.maximum(x[None, :], floor[:, None]) ** power[:, None])
    return grown


def _quantile(level: float, center: Array, spread: Array, weight: Array) -> float:
    """Quantile of a mixture of normal distributions, by bisection."""
    low, high = float((center - 8 * spread).min()), float((center + 8 * spread).max())
    while high - low > _TOLERANCE:
        middle = (low + high) / 2
        if (weight * _normal_cdf((middle - center) / spread)).sum() < level:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _normal_cdf(z: Array) -> Array:
    """CDF of the standard normal distribution, accurate to 1e-7.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.2.17; NumPy has no normal CDF.
    """
    t = 1 / (1 + 0.2316419 * np.abs(z))
    series = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    upper = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * series
    below: Array = np.where(z >= 0, 1 - upper, upper)
    return below
