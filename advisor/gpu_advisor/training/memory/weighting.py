"""How the losses of a batch's parts add up to the loss of the batch: the weight of a part in the mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from gpu_advisor.training.memory.errors import InexactError, MemoryManagerError
from gpu_advisor.training.memory.loss_denominator import denominator_at, find_denominators

#: A small number may have been added to a divisor.
RATIO_TOLERANCE = 1e-5


class Part(NamedTuple):
    """A part of a batch, of `size` samples."""

    data: Any
    size: int


@dataclass(frozen=True, slots=True)
class Weighting:
    """A part's weight, at least 0: from the part, or from its loss. Neither: the parts' losses are added."""

    name: str
    of_part: Callable[[Part], Any] | None = None
    of_loss: Callable[[torch.Tensor], float] | None = None
    terms: tuple[str, ...] = ()
    """Paths of the loss's divisors that must be proportional to the weight in all parts of a step."""

    @property
    def adds(self) -> bool:
        """The loss is a sum: all parts have the same weight, 1."""
        return self.of_part is None and self.of_loss is None

    def weight_of_part(self, part: Part) -> float:
        """Raises MemoryManagerError for a weight that is no weight."""
        assert self.of_part is not None
        return _checked(self.of_part(part), self.name)

    def weight_of_loss(self, loss: torch.Tensor) -> float:
        """Raises InexactError if this loss has another form than the one that was checked."""
        assert self.of_loss is not None
        return _checked(self.of_loss(loss), self.name)


class TermRatios:
    """Of the divisors of a loss's terms to the weight, which all parts of a step have in common if it can be divided.

    The few samples that were tried may not have shown that terms are means over different numbers.
    """

    def __init__(self) -> None:
        self._ratios: dict[str, float] = {}

    def check(self, weighting: Weighting, loss: torch.Tensor, weight: float) -> None:
        """Raises InexactError if a term is a mean over another number than in earlier parts, relative to the weight."""
        for path in weighting.terms:
            found = denominator_at(loss, path)
            value = math.nan if found is None else found.value / weight
            if not math.isclose(self._ratios.setdefault(path, value), value, rel_tol=RATIO_TOLERANCE):
                raise InexactError(
                    "this step cannot be divided: the terms of its loss, or the weights of its parts, are means over "
                    "different numbers of elements; or pass exact=False to accept it"
                )


SUM = Weighting("the sum over samples")


SAMPLES = Weighting("the mean over samples", of_part=lambda part: part.size)


def given_weight(weight: Callable[[Any], Any]) -> Weighting:
    return Weighting("weight=", of_part=lambda part: weight(part.data))


def weights_of_loss(loss: torch.Tensor) -> list[Weighting]:
    """By each of the loss's own divisors."""
    return [_denominator_weight(each.path) for each in find_denominators(loss)]


def _denominator_weight(path: str) -> Weighting:
    def weight(loss: torch.Tensor) -> float:
        found = denominator_at(loss, path)
        if found is None:
            raise InexactError(
                "the loss of this part is computed in another way than that of the first step; pass weight="
            )
        # Of a part without a valid element: `mask.sum().clamp(min=1)` is 1 for it, though it adds nothing to the sum.
        empty = found.by_tensor and found.value <= 1 and not bool(loss.detach())
        return 0.0 if empty else found.value

    return Weighting("the mean by the loss's own divisor", of_loss=weight)


def _checked(weight: Any, name: str) -> float:
    number = float(weight)
    if not math.isfinite(number) or number < 0:
        raise MemoryManagerError(f"{name} of a part is {number}; a weight is a finite number of at least 0")
    return number


def proportional_terms(observed: Sequence[tuple[Mapping[str, float], float]]) -> tuple[str, ...]:
    """Paths of divisors that are proportional to the weight in all of these parts of one batch.

    Constant ones are factors, or regularization. observed: a loss's divisors by path, and the weight of its part.
    """
    first, weight = observed[0]
    return tuple(
        path
        for path, value in first.items()
        if any(divisors.get(path) != value for divisors, _ in observed)
        and all(
            path in divisors and math.isclose(divisors[path], value / weight * own, rel_tol=RATIO_TOLERANCE)
            for divisors, own in observed
        )
    )
