"""What a loss was divided by, from its autograd graph.

A mean over a batch is a sum over its samples, divided by a number: of samples, of tokens, or a sum of class weights.
The parts of a batch add up to the whole if each is weighted by its own divisor. PyTorch keeps these divisors for the
backward pass, in attributes of the graph's nodes (`grad_fn._saved_...`,
https://docs.pytorch.org/tutorials/intermediate/autograd_saved_tensors_hooks_tutorial.html#saved-tensors).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch

#: A loss has few operations after its reduction.
MAX_DEPTH = 16
MAX_PATHS = 32

_MEAN_REDUCTION = 1  # at::Reduction::Mean

#: Nodes that keep the value of a single number, but for its sign, shape or type.
_PASS_THROUGH = frozenset(
    {"AliasBackward0", "CloneBackward0", "NegBackward0", "ReshapeAliasBackward0", "SelectBackward0", "SqueezeBackward0",
     "SqueezeBackward1", "ToCopyBackward0", "UnsqueezeBackward0", "UnsafeViewBackward0", "ViewBackward0"}
)  # fmt: skip
_SUMS = frozenset({"AddBackward0", "SubBackward0", "AddBackward1", "SubBackward1", "RsubBackward1"})
_FACTORS = frozenset({"DivBackward0", "DivBackward1", "MulBackward0", "MulBackward1"})


class Denominator(NamedTuple):
    """`path`: the operations from the loss to the division. `by_tensor`: divided by a tensor that the user computed."""

    path: str
    value: float
    by_tensor: bool


def find_denominators(loss: torch.Tensor) -> list[Denominator]:
    """Divisors of a loss of one element, of all its terms, those deepest in the graph first; constants are factors.

    A loss without a division has none.
    """
    if loss.grad_fn is None:
        return []
    found = list(_walk(loss.grad_fn, "", 1.0, False, 0))[:MAX_PATHS]
    return sorted(found, key=lambda each: -each.path.count("/"))


def denominator_at(loss: torch.Tensor, path: str) -> Denominator | None:
    """The divisor at a path that `find_denominators` returned for a like loss.

    If the path is another in this loss, which may have another term: the only divisor of the same operation.
    """
    found = find_denominators(loss)
    alike = [each for each in found if each.path.rpartition("/")[2] == path.rpartition("/")[2]]
    same = [each for each in found if each.path == path]
    return same[0] if same else alike[0] if len(alike) == 1 else None


def _walk(node: Any, path: str, value: float, by_tensor: bool, depth: int) -> Iterator[Denominator]:
    while node is not None and depth < MAX_DEPTH:
        depth += 1
        name = node.name()
        path = f"{path}/{name}"
        if name in _SUMS:
            for number, (term, _) in enumerate(node.next_functions):
                yield from _walk(term, f"{path}.{number}", value, by_tensor, depth)
            return
        if name not in _PASS_THROUGH:
            divisor = _divisor(node, name)
            if divisor is None:
                return
            value *= divisor
            by_tensor = by_tensor or name == "DivBackward0"
            yield Denominator(path, value, by_tensor)
            if name not in _FACTORS:  # the reduction itself
                return
        node = next((following for following, _ in node.next_functions if following is not None), None)


def _divisor(node: Any, name: str) -> float | None:
    """What this operation divides by; None if it is no division by a number."""
    read = _DIVISORS.get(name)
    if read is not None:
        return read(node)
    if getattr(node, "_saved_reduction", None) == _MEAN_REDUCTION:
        return _element_count(getattr(node, "_saved_self", None))
    return None


def _of_division(node: Any) -> float | None:
    return None if node.next_functions[1][0] is not None else _number(node._saved_other)


def _of_division_by_number(node: Any) -> float | None:
    return _number(node._saved_other)


def _of_product_with_number(node: Any) -> float | None:
    factor = _number(node._saved_other)
    return 1 / factor if factor else None


def _of_product(node: Any) -> float | None:
    """One factor has no gradient: it is a number."""
    left, right = (following for following, _ in node.next_functions)
    if left is not None and right is not None:
        return None
    factor = _number(node._saved_other if left is not None else node._saved_self)
    return 1 / factor if factor else None


def _of_negative_log_likelihood(node: Any) -> float | None:
    """The sum of the class weights of all targets that are not ignored."""
    return _number(node._saved_total_weight) if node._saved_reduction == _MEAN_REDUCTION else None


def _of_mean(node: Any) -> float | None:
    for attribute in ("_saved_self_sym_numel", "_saved_self_numel"):
        if (count := getattr(node, attribute, None)) is not None:
            return float(count)
    return float(math.prod(node._saved_self_sym_sizes))


def _of_mean_of_dimensions(node: Any) -> float | None:
    sizes = node._saved_self_sym_sizes
    dimensions = node._saved_dim
    return float(math.prod(sizes if not dimensions else (sizes[_signed(each)] for each in dimensions)))


_DIVISORS: Mapping[str, Callable[[Any], float | None]] = {
    "DivBackward0": _of_division,
    "DivBackward1": _of_division_by_number,
    "MulBackward0": _of_product,
    "MulBackward1": _of_product_with_number,
    "MeanBackward0": _of_mean,
    "MeanBackward1": _of_mean_of_dimensions,
    "NllLossBackward0": _of_negative_log_likelihood,
    "NllLoss2DBackward0": _of_negative_log_likelihood,
}


def _signed(dimension: int) -> int:
    """Autograd keeps a negative dimension as an unsigned number."""
    return dimension - 2**64 if dimension >= 2**63 else dimension


def _element_count(tensor: Any) -> float | None:
    return float(tensor.numel()) if isinstance(tensor, torch.Tensor) else None


def _number(value: Any) -> float | None:
    if isinstance(value, torch.Tensor):
        return float(value) if value.numel() == 1 else None
    return float(value) if isinstance(value, int | float) else None
