"""Rollback of a failed step: gradients, buffers, random state."""

from __future__ import annotations

import random
import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from gpu_advisor.training.memory.other_gradients import OtherGradients


class RandomState:
    """The random state of PyTorch on the CPU and on CUDA devices, of Python, and of NumPy if it is imported."""

    def __init__(self, devices: Iterable[torch.device]) -> None:
        self._devices = sorted({device for device in devices if device.type == "cuda"}, key=str)
        self.save()

    def save(self) -> None:
        self._torch = torch.get_rng_state()
        self._cuda = [torch.cuda.get_rng_state(device) for device in self._devices]
        self._python = random.getstate()
        numpy = _numpy()
        self._numpy = None if numpy is None else numpy.random.get_state()

    def restore(self) -> None:
        torch.set_rng_state(self._torch)
        for device, state in zip(self._devices, self._cuda, strict=True):
            torch.cuda.set_rng_state(state, device)
        random.setstate(self._python)
        numpy = _numpy()
        if numpy is not None and self._numpy is not None:
            numpy.random.set_state(self._numpy)


def _numpy() -> Any:
    """NumPy, if the program has imported it."""
    return sys.modules.get("numpy")


class StepRollback:
    """Copies a model's buffers, such as BatchNorm's running statistics, which the forward pass changes."""

    def __init__(self, model: nn.Module, others: OtherGradients) -> None:
        """Needs the memory of the buffers a second time."""
        self._model, self._others = model, others
        self._random_state = RandomState(parameter.device for parameter in model.parameters())
        self._buffer_copies: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []

    def save(self) -> None:
        """Save the state before a step, and clear the gradients."""
        self.clear_gradients()
        self._random_state.save()
        buffers: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = defaultdict(list)
        for buffer in self._model.buffers():
            buffers[buffer.dtype, buffer.device].append(buffer)
        groups = list(buffers.values())
        with torch.no_grad():
            if [list(map(id, group)) for group in groups] == [list(map(id, group)) for group, _ in self._buffer_copies]:
                for group, copies in self._buffer_copies:
                    # One call for all: a hundred small copies would be a hundred kernel launches.
                    torch._foreach_copy_(copies, group)
            else:
                self._buffer_copies = []  # if the next line runs out of memory, there is nothing to restore
                self._buffer_copies = [(group, [buffer.clone() for buffer in group]) for group in groups]

    def restore(self) -> None:
        """Restore the saved state, and clear the gradients."""
        self.restore_state()
        self.clear_gradients()

    def restore_state(self) -> None:
        """Restore buffers and random state."""
        with torch.no_grad():
            for group, copies in self._buffer_copies:
                torch._foreach_copy_(group, copies)
        self._random_state.restore()

    def clear_gradients(self) -> None:
        for parameter in self._model.parameters():
            parameter.grad = None
        self._others.clear()
