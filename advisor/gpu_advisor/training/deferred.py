"""Asynchronous transfer of recorded GPU values to the host, in batches.

`loss.item()` in every step synchronizes with the GPU, which then idles while the host prepares the next step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

#: Values kept on the device before a transfer: 512 B of device memory each.
MAX_PENDING = 512


class _Transfer(NamedTuple):
    """A copy to the host, complete once the event `arrived` has been reached."""

    names: list[str]
    values: torch.Tensor
    arrived: torch.cuda.Event | None


class DeferredValues:
    """Not thread-safe: for the training loop's thread only."""

    def __init__(self) -> None:
        self._queued: dict[torch.device, tuple[list[str], list[torch.Tensor]]] = {}
        self._count = 0
        self._in_flight: list[_Transfer] = []

    @property
    def pending(self) -> bool:
        return bool(self._count or self._in_flight)

    @property
    def full(self) -> bool:
        return self._count >= MAX_PENDING

    def add(self, name: str, value: torch.Tensor) -> None:
        """Queue a device tensor of one element."""
        import torch

        # A copy: the job may overwrite the tensor with the next loss, as CUDA graphs do.
        copied = value.detach().reshape(()).to(torch.float32, copy=True)
        names, values = self._queued.setdefault(value.device, ([], []))
        names.append(name)
        values.append(copied)
        self._count += 1

    def send(self) -> None:
        """Start copying the queued values to the host."""
        import torch

        for device, (names, values) in self._queued.items():
            stacked = torch.stack(values)
            if device.type != "cuda":  # no events: copy synchronously
                self._in_flight.append(_Transfer(names, stacked.cpu(), None))
                continue
            with torch.cuda.device(device):
                host = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=True)
                host.copy_(stacked, non_blocking=True)
                arrived = torch.cuda.Event()
                arrived.record()
            self._in_flight.append(_Transfer(names, host, arrived))
        self._queued.clear()
        self._count = 0

    def take(self, wait: bool = False) -> list[tuple[str, float]]:
        """Return the values that have arrived, in order. `wait`: block until all sent values have."""
        values: list[tuple[str, float]] = []
        while self._in_flight:
            batch = self._in_flight[0]
            if batch.arrived is not None:
                if wait:
                    batch.arrived.synchronize()
                elif not batch.arrived.query():
                    break
            values += zip(batch.names, batch.values.tolist(), strict=True)
            self._in_flight.pop(0)
        return values
