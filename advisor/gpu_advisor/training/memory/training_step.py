"""One step's forward and backward passes, over the whole batch or in micro-batches that add up to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from gpu_advisor.training.memory.errors import MemoryManagerError

if TYPE_CHECKING:
    from torch.amp import GradScaler

ComputeLoss = Callable[[nn.Module, Any], torch.Tensor]


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """The arguments of `MemoryManager.backward`: see there."""

    batch: Any
    compute_loss: ComputeLoss
    reduction: Literal["mean", "sum"]
    weight: Callable[[Any], float]
    count: Callable[[Any], int]
    split: Callable[[Any, int], Iterable[Any]]
    scaler: GradScaler | None

    def parts(self, size: int, part_size: int) -> list[Any]:
        return [self.batch] if part_size >= size else list(self.split(self.batch, part_size))

    def run(self, model: nn.Module, parts: list[Any]) -> torch.Tensor:
        """Accumulate the gradients of all parts; return the loss of the batch, detached."""
        total: torch.Tensor | None = None
        for part, share in self._weighted_parts(parts):
            loss = self._run_part(model, part, share)
            total = loss if total is None else total + loss
        if total is None:
            raise MemoryManagerError("split= returned no parts")
        return total

    def _weighted_parts(self, parts: list[Any]) -> Iterator[tuple[Any, float]]:
        """Each part with the weight of its loss: 1, or for means its share of the batch."""
        if len(parts) == 1 or self.reduction == "sum":
            yield from ((part, 1.0) for part in parts)
            return
        weights = [self.weight(part) for part in parts]
        total = sum(weights)
        for part, weight in zip(parts, weights, strict=True):
            yield part, weight / total

    def _run_part(self, model: nn.Module, part: Any, share: float) -> torch.Tensor:
        """Frees the part's activations on return."""
        loss = self.compute_loss(model, part)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise MemoryManagerError("compute_loss must return a tensor of one element")
        if share != 1:
            loss = loss * share
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        return loss.detach()
