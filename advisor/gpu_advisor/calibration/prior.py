"""What is known of image models' memory before any is measured: the prior of `fit`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_advisor.calibration.prior_table import FIXED_SHARES, FLOORS, NOISES, POWERS

Weighted = tuple[tuple[float, float], ...]
"""Values of a parameter, each with its probability."""


@dataclass(frozen=True, slots=True)
class Prior:
    """Independent priors of the four parameters of `fit`, and how bold conclusions may be.

    The tails are the shares of the posterior cut off at each end of a 90 % interval. With two sizes that is more than
    0.05: the shares of noise were learnt over whole studies, so that a single model's posterior is too wide. `risk` is
    the largest probability of exceeding the target that a recommendation may have; most are far below it. Both were
    chosen on the part `prior` of the population and confirmed on the others (`make bench-batch`).
    """

    fixed_shares: Weighted
    floors: Weighted
    powers: Weighted
    noises: Weighted
    tail_of_two: float = 0.10
    tail_of_more: float = 0.05
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
    def _axes(self) -> tuple[Weighted, ...]:
        return self.fixed_shares, self.floors, self.powers, self.noises


PRIOR = Prior(FIXED_SHARES, FLOORS, POWERS, NOISES)
