"""What is known of image models' memory before any is measured: the prior of `fit`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_advisor.calibration.prior_table import FIXED_SHARES, FLOORS, NOISES, POWERS

WeightedValues = tuple[tuple[float, float], ...]
"""Values of a parameter, each with its probability."""

_GRID_SIZE = 181
_MAX_LOGIT = 6.9


@dataclass(frozen=True, slots=True)
class Prior:
    """Independent priors of the four parameters of `fit`, and how bold conclusions may be.

    The tails are the shares of the posterior cut off at each end of a 90 % interval. With two sizes that is more than
    0.05: the shares of noise were learnt over whole studies, so that a single model's posterior is too wide. `risk` is
    the largest probability of exceeding the target that a recommendation may have; most are far below it. Both were
    chosen on the part `prior` of the population and confirmed on the others (`make bench-batch`).
    """

    fixed_shares: WeightedValues
    floors: WeightedValues
    powers: WeightedValues
    noises: WeightedValues
    tail_two_points: float = 0.10
    tail_more_points: float = 0.05
    risk: float = 0.05

    @property
    def grid(self) -> tuple[tuple[float, ...], ...]:
        """The values of fixed share, floor, power and noise."""
        return tuple(tuple(value for value, _ in axis) for axis in self._axes)

    def weights(self) -> npt.NDArray[np.float64]:
        """Probability of every combination of the grid, in its order, flat."""
        product = np.ones(1)
        for axis in self._axes:
            product = np.multiply.outer(product, np.array([weight for _, weight in axis]))
        return product.ravel()

    @property
    def _axes(self) -> tuple[WeightedValues, ...]:
        return _refine(self.fixed_shares), self.floors, self.powers, self.noises


def _refine(shares: WeightedValues) -> WeightedValues:
    """The same distribution on FINE values: many sizes measured well tell shares apart that a learnt table need not.

    The density over the logit is interpolated between the table's values; between 0.001 and the first, and from
    the last to 0.999, it stays that of the end.
    """
    logits = np.log([share / (1 - share) for share, _ in shares])
    density = np.log([weight for _, weight in shares]) - np.log(np.gradient(logits))
    fine = np.linspace(-_MAX_LOGIT, _MAX_LOGIT, _GRID_SIZE)
    weights = np.exp(np.interp(fine, logits, density))
    weights /= weights.sum()
    return tuple(zip((1 / (1 + np.exp(-fine))).tolist(), weights.tolist(), strict=True))


PRIOR = Prior(FIXED_SHARES, FLOORS, POWERS, NOISES)
