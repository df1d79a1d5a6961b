"""Rollback of a failed step: gradients, buffers, random state."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn


class StepRollback:
    """Copies a model's buffers, such as BatchNorm's running statistics, which the forward pass changes."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        """Needs the memory of the buffers a second time."""
        self._model = model
        self._device = device
        self._buffer_copies: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []
        self._cpu_state = torch.get_rng_state()
        self._cuda_state: torch.Tensor | None = None

    def save(self) -> None:
        """Save the state before a step, and clear the gradients."""
        self.clear_gradients()
        self._cpu_state = torch.get_rng_state()
        if self._device.type == "cuda":
            self._cuda_state = torch.cuda.get_rng_state(self._device)
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
        """Restore the saved state."""
        with torch.no_grad():
            for group, copies in self._buffer_copies:
                torch._foreach_copy_(group, copies)
        torch.set_rng_state(self._cpu_state)
        if self._cuda_state is not None:
            torch.cuda.set_rng_state(self._cuda_state, self._device)
        self.clear_gradients()

    def clear_gradients(self) -> None:
        for parameter in self._model.parameters():
            parameter.grad = None
