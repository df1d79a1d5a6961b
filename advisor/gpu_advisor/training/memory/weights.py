"""Weights of losses that are means over something else than samples, for `MemoryManager.backward(weight=...)`.

They are rarely needed: without `weight=` the manager takes the divisor from the loss itself.

    manager.backward(batch, loss, weight=token_weight())                # mean over tokens, labels as they are
    manager.backward(batch, loss, weight=token_weight(shifted=True))    # a causal language model shifts its labels
    manager.backward(batch, loss, weight=class_weight(class_weights))   # CrossEntropyLoss(weight=class_weights)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from gpu_advisor.training.memory.errors import MemoryManagerError

#: The label of positions without a loss, in PyTorch and Transformers.
IGNORE_INDEX = -100

LabelsOf = str | int | Callable[[Any], torch.Tensor]


def count_tokens(
    batch: Any, labels: LabelsOf = "labels", *, shifted: bool = False, ignore_index: int = IGNORE_INDEX
) -> int:
    """The number of labels with a loss.

    labels: their key or position in the batch, or a function that returns them; [batch, ...] of integers. shifted:
    whether the model predicts each label from the ones before it, as causal language models do: the first of a
    sequence has no loss. For Transformers' models it is the number that they take as `num_items_in_batch`; their loss
    is then the sum over a part, divided by this number of the whole batch:

        items = count_tokens(batch, shifted=True)
        manager.backward(batch, lambda model, part: model(**part, num_items_in_batch=items).loss, reduction="sum")
    """
    found = _labels(batch, labels)
    return int((found[..., 1:] if shifted else found).ne(ignore_index).sum())


def token_weight(
    labels: LabelsOf = "labels", *, shifted: bool = False, ignore_index: int = IGNORE_INDEX
) -> Callable[[Any], float]:
    """For a mean over the labels with a loss: see `count_tokens`. A part without any is skipped."""
    return lambda part: count_tokens(part, labels, shifted=shifted, ignore_index=ignore_index)


def class_weight(
    weights: torch.Tensor, labels: LabelsOf = "labels", *, ignore_index: int = IGNORE_INDEX
) -> Callable[[Any], float]:
    """For `CrossEntropyLoss(weight=weights)` and `NLLLoss`, whose mean divides by the sum of the targets' weights.

    weights: one per class. labels: class indices, see `count_tokens`.
    """

    def weight(part: Any) -> float:
        found = _labels(part, labels)
        valid = found[found.ne(ignore_index)].flatten()
        return float(weights.to(valid.device)[valid].sum())

    return weight


def _labels(batch: Any, labels: LabelsOf) -> torch.Tensor:
    if callable(labels):
        return labels(batch)
    try:
        found = batch[labels] if isinstance(batch, Mapping) or isinstance(labels, int) else getattr(batch, labels)
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise MemoryManagerError(
            f"the batch has no {labels!r}; pass the key of its labels, or a function that returns them"
        ) from error
    if not isinstance(found, torch.Tensor):
        raise MemoryManagerError(f"{labels!r} of the batch is a {type(found).__name__}, not a tensor of labels")
    return found
