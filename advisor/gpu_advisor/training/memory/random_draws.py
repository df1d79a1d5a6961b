"""Random numbers of a trial: parts of a batch get those that their samples got in the whole.

A loss that draws for each sample, as diffusion models draw noise and time steps, can be divided: which numbers a sample
gets does not matter. One that draws for the batch as a whole (a permutation to mix samples, one time step for all)
cannot. Only with the same numbers do the gradients of parts and whole show which it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

Operation = Callable[..., Any]


class DrawError(Exception):
    """A part of the batch does not draw its share of what the whole drew; says why."""


class RandomDraws:
    """What the operations of a forward pass drew, in their order."""

    def __init__(self, samples: int) -> None:
        """samples: of the whole batch that is recorded."""
        self._samples = samples
        self._drawn: list[tuple[Operation, Any]] = []

    @contextmanager
    def record(self) -> Iterator[None]:
        def draw(func: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            found = func(*args, **kwargs)
            self._drawn.append((func, _copy(found)))
            return found

        with _Drawing(draw):
            yield

    @contextmanager
    def replay(self, first: int, size: int) -> Iterator[None]:
        """For a part of `size` samples from number `first` on. Raises DrawError."""
        drawn = iter(self._drawn)

        def draw(func: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            recorded, whole = next(drawn, (None, None))
            if recorded is not func:
                raise DrawError("its parts draw other random numbers than their batch")
            own = func(*args, **kwargs)
            leaves, shape = tree_flatten(own)
            for mine, all_ in zip(leaves, tree_flatten(whole)[0], strict=True):
                if isinstance(mine, torch.Tensor):
                    mine.copy_(self._share(all_, mine.shape, first, size))
            return tree_unflatten(leaves, shape)

        with _Drawing(draw):
            yield
        if next(drawn, None) is not None:
            raise DrawError("its parts draw fewer random numbers than their batch")

    def _share(self, whole: torch.Tensor, shape: torch.Size, first: int, size: int) -> torch.Tensor:
        """Along the only dimension in which they differ."""
        differing = [k for k, (mine, all_) in enumerate(zip(shape, whole.shape, strict=False)) if mine != all_]
        if shape == whole.shape:
            raise DrawError("it draws random numbers for the batch as a whole; draw them for each sample")
        if len(shape) != whole.dim() or len(differing) != 1:
            raise DrawError("it draws random numbers that do not belong to samples")
        (dimension,) = differing
        each, rest = divmod(whole.shape[dimension], self._samples)
        if rest or shape[dimension] != each * size:
            raise DrawError("it draws random numbers that do not belong to samples")
        return whole.narrow(dimension, each * first, each * size)


def _copy(found: Any) -> Any:
    leaves, shape = tree_flatten(found)
    return tree_unflatten([leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves], shape)


class _Drawing(TorchDispatchMode):
    """Passes operations that draw random numbers to `draw`."""

    def __init__(self, draw: Callable[[Operation, tuple[Any, ...], dict[str, Any]], Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._draw = draw

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            return self._draw(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))
