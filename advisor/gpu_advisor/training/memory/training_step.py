"""One step's forward and backward passes, over the whole batch or in micro-batches that add up to it."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import nn

from gpu_advisor.training.memory.errors import MemoryManagerError
from gpu_advisor.training.memory.micro_batch import part_ranges, split_batch, take_samples
from gpu_advisor.training.memory.other_gradients import OtherGradients
from gpu_advisor.training.memory.weighting import (
    SAMPLES,
    SUM,
    Part,
    TermRatios,
    Weighting,
    given_weight,
    weights_of_loss,
)

if TYPE_CHECKING:
    from torch.amp import GradScaler

ComputeLoss = Callable[[nn.Module, Any], torch.Tensor]


class StepResult(NamedTuple):
    """`loss` of the batch, detached; `weight` of the batch among others, None if it was not needed."""

    loss: torch.Tensor
    weight: float | None


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """The arguments of `MemoryManager.backward`: see there."""

    batch: Any
    compute_loss: ComputeLoss
    reduction: Literal["mean", "sum"]
    weight: Callable[[Any], Any] | None
    count: Callable[[Any], int]
    split: Callable[[Any, int], Iterable[Any]]
    scaler: GradScaler | None
    others: OtherGradients = field(default_factory=OtherGradients)

    def parts(self, size: int, part_size: int, min_size: int = 1) -> list[Part]:
        """The batch of `size` samples in parts. Raises MemoryManagerError for a part below `min_size` samples."""
        if part_size >= size:
            return [Part(self.batch, size)]
        if self.split is split_batch:
            # Not by counting again: a part of a few images may look like a batch of fields.
            ranges = part_ranges(size, part_size, min_size)
            return [Part(take_samples(self.batch, slice(*each), size), each[1] - each[0]) for each in ranges]
        return self._split(self.batch, part_size, min_size)

    def few_samples(self, size: int, tries: int) -> Iterator[tuple[Part, list[Part]]]:
        """Several times up to three samples of a batch of `size`, and the same in two parts, of one and of two samples.

        Samples that lie apart: neighbors may be alike, in batches sorted by length.
        """
        if self.split is split_batch:
            for samples in _few_numbers(size, tries):
                yield self._take(samples, size), [self._take(samples[:1], size), self._take(samples[1:], size)]
            return
        groups = self._split(self.batch, 3) if size > 3 else [Part(self.batch, size)]
        largest = [part for part in groups if 2 <= part.size == max(part.size for part in groups)]
        for whole in [*largest[:1], *reversed(largest[1:])][:tries]:
            yield whole, self._split(whole.data, whole.size - 1)

    def _take(self, samples: Sequence[int], size: int) -> Part:
        return Part(take_samples(self.batch, samples, size), len(samples))

    def _split(self, batch: Any, part_size: int, min_size: int = 1) -> list[Part]:
        parts = [Part(each, self.count(each)) for each in self.split(batch, part_size)]
        if not parts:
            raise MemoryManagerError("split= returned no parts")
        if (least := min(part.size for part in parts)) < min_size:
            raise MemoryManagerError(f"split= returned a part of {least} samples; {min_size} are the minimum")
        return parts

    def loss(self, model: nn.Module, part: Any) -> torch.Tensor:
        loss = self.compute_loss(model, part)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise MemoryManagerError("compute_loss must return a tensor of one element")
        self.others.note(loss, self.key(model))
        return loss

    def weightings(self, loss: torch.Tensor | None) -> list[Weighting]:
        """What this loss may be, None for any: as stated, else by its own divisors, the mean over samples, a sum."""
        if self.weight is not None:
            return [given_weight(self.weight)]
        if self.reduction == "sum":
            return [SUM]
        return [*(weights_of_loss(loss) if loss is not None else ()), SAMPLES, SUM]

    def key(self, model: nn.Module) -> Hashable:
        """Equal for steps of the same code: whether they can be divided is found out once."""
        functions = (self.compute_loss, self.weight, self.count, self.split)
        return (*map(_code, functions), self.reduction, model.training)

    def run(
        self,
        model: nn.Module,
        parts: Sequence[Part],
        weighting: Weighting | None,
        ratios: TermRatios,
        parameters: Sequence[nn.Parameter],
    ) -> StepResult:
        """Accumulate the gradients of all parts into those of the batch. `weighting` None: there is one part.

        ratios: those of earlier calls of the same step. Raises InexactError if parts differ in them.
        """
        if weighting is None:
            [whole] = parts
            return StepResult(self._backward(self.loss(model, whole.data), 1.0), None)
        if weighting.of_loss is not None:
            return self._run_by_loss(model, parts, weighting, ratios, parameters)
        weights = [1.0 if weighting.adds else weighting.weight_of_part(part) for part in parts]
        total = sum(weights)
        loss: torch.Tensor | None = None
        for part, weight in zip(parts, weights, strict=True):
            if weight == 0:  # nothing to learn from; its mean would be 0 / 0
                continue
            share = 1.0 if weighting.adds else weight / total
            part_loss = self.loss(model, part.data)
            ratios.check(weighting, part_loss, weight)
            found = self._backward(part_loss, share)
            loss = found if loss is None else loss + found
            del part_loss  # and its graph
        return StepResult(_zero(parameters) if loss is None else loss, total)

    def _run_by_loss(
        self,
        model: nn.Module,
        parts: Sequence[Part],
        weighting: Weighting,
        ratios: TermRatios,
        parameters: Sequence[nn.Parameter],
    ) -> StepResult:
        """The weight of a part is known after its forward pass, the sum of all after the last.

        So gradients are first weighted as if all parts were like the first one, which keeps float16 in its range.
        """
        first: float | None = None
        total = 0.0
        weighted: torch.Tensor | None = None
        for part in parts:
            loss = self.loss(model, part.data)
            weight = weighting.weight_of_loss(loss)
            if weight == 0:
                continue
            ratios.check(weighting, loss, weight)
            first = weight if first is None else first
            found = self._backward(loss, weight / first / len(parts)) * (first * len(parts))
            weighted = found if weighted is None else weighted + found
            total += weight
            del loss  # and its graph
        if first is None or weighted is None:
            return StepResult(_zero(parameters), 0.0)
        correction = first * len(parts) / total
        if correction != 1:
            scale_gradients([*parameters, *self.others.tensors()], correction)
        return StepResult(weighted / total, total)

    def _backward(self, loss: torch.Tensor, share: float) -> torch.Tensor:
        """The loss, weighted and detached."""
        if share != 1:
            loss = loss * share
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        return loss.detach()


def _few_numbers(size: int, tries: int) -> Iterator[tuple[int, ...]]:
    """Different triples of samples, the first with the ends of the batch."""
    if size <= 3:
        yield tuple(range(size))
        return
    found: dict[tuple[int, ...], None] = {(0, size // 2, size - 1): None}
    numbers = random.Random(size)  # the same in every run
    for _ in range(4 * tries):
        found.setdefault(tuple(sorted(numbers.sample(range(size), 3))))
    yield from list(found)[:tries]


def scale_gradients(parameters: Iterable[torch.Tensor], factor: float) -> None:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    dense = [gradient for gradient in gradients if not gradient.is_sparse]
    with torch.no_grad():
        if dense:
            torch._foreach_mul_(dense, factor)
        for gradient in gradients:
            if gradient.is_sparse:
                gradient.mul_(factor)


def _zero(parameters: Sequence[nn.Parameter]) -> torch.Tensor:
    """The loss of a batch without any valid element, and its gradients."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    return torch.zeros((), device=trained[0].device)


def _code(function: Any) -> Hashable:
    """A function's code, and that of the functions that it refers to; a loop may make a new lambda in every step."""
    if isinstance(function, functools.partial):
        return (_code(function.func), *map(_code, function.args))
    code = getattr(function, "__code__", None)
    if code is None:
        bound = getattr(function, "__func__", None)
        return _code(bound) if bound is not None else type(function).__qualname__
    values = [*(function.__defaults__ or ()), *(_contents(cell) for cell in function.__closure__ or ())]
    return (code, *(getattr(each, "__code__", type(each)) for each in values if callable(each)),
            *(each for each in values if isinstance(each, str)))  # fmt: skip


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None
