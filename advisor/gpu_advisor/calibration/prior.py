"""Prior distributions of models' memory curves, for `memory_fit` and `traced_growth`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_advisor.calibration.prior_table import FIXED_SHARES, FLOORS, NOISES, POWERS, TRACED_GROWTHS, TRACED_NOISES

Array = npt.NDArray[np.float64]
WeightedValues = tuple[tuple[float, float], ...]
"""Values of a parameter, each with its probability."""

_GRID_SIZE = 181
_MAX_LOGIT = 6.9


@dataclass(frozen=True, slots=True)
class Prior:
    """Independent priors of the four parameters of `memory_fit`, and the risk that recommendations may take.

    The tails are the shares of the posterior cut off at each end of a 90 % interval. With two sizes that is more than
    0.05: the noise distribution was learnt over whole studies, so a single model's posterior is too wide. `risk` is the
    maximum probability that a recommendation exceeds the target; most are far below it. Both were chosen on the `prior`
    part of the population and validated on the others (`make bench-batch`).
    """

    fixed_shares: WeightedValues
    floors: WeightedValues
    powers: WeightedValues
    noises: WeightedValues
    tail_two_points: float = 0.10
    tail_more_points: float = 0.05
    tail_traced: float = 0.04
    risk: float = 0.05

    @property
    def grid(self) -> tuple[tuple[float, ...], ...]:
        """The values of fixed share, floor, power and noise."""
        return tuple(tuple(value for value, _ in axis) for axis in self._axes)

    def weights(self) -> npt.NDArray[np.float64]:
        """Probability of each grid combination, flattened in grid order."""
        product = np.ones(1)
        for axis in self._axes:
            product = np.multiply.outer(product, np.array([weight for _, weight in axis]))
        return product.ravel()

    @property
    def _axes(self) -> tuple[WeightedValues, ...]:
        return _refine(self.fixed_shares), self.floors, self.powers, self.noises


def _refine(shares: WeightedValues) -> WeightedValues:
    """Interpolate the distribution on a finer grid: with many accurate sizes the table's steps are too coarse.

    The density over the logit is interpolated between the table's values, and constant beyond its ends, from 0.001 to
    0.999.
    """
    logits = np.log([share / (1 - share) for share, _ in shares])
    density = np.log([weight for _, weight in shares]) - np.log(np.gradient(logits))
    fine = np.linspace(-_MAX_LOGIT, _MAX_LOGIT, _GRID_SIZE)
    weights = np.exp(np.interp(fine, logits, density))
    weights /= weights.sum()
    return tuple(zip((1 / (1 + np.exp(-fine))).tolist(), weights.tolist(), strict=True))


PRIOR = Prior(FIXED_SHARES, FLOORS, POWERS, NOISES)


@dataclass(frozen=True, slots=True)
class TracePrior:
    """Independent priors of the growth factor and the noise of `traced_growth`.

    `trust`: prior probability that the trace is of the step that was measured. Its evidence decides: where the growth
    between the measured sizes is not that of the trace, the fit without a trace takes over.
    """

    growths: WeightedValues
    noises: WeightedValues
    trust: float = 0.9

    def components(self) -> tuple[Array, Array, Array]:
        """Growth factors, noises and probabilities of the grid's combinations."""
        growth, noise = np.meshgrid([g for g, _ in self.growths], [n for n, _ in self.noises], indexing="ij")
        weight = np.multiply.outer([w for _, w in self.growths], [w for _, w in self.noises])
        return growth.ravel(), noise.ravel(), weight.ravel()


TRACE_PRIOR = TracePrior(TRACED_GROWTHS, TRACED_NOISES)
