"""Numbers that are on a GPU still: gathered there and brought over together, without the loop ever waiting for them.

`loss.item()` in every step makes the loop wait until the GPU has done all it was told: the GPU then idles while the
next step is prepared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

#: More are not held back: 512 B of device memory each.
MAX_PENDING = 512


class _Transfer(NamedTuple):
    """Numbers on their way to the host; there when `arrived` has happened."""

    names: list[str]
    values: torch.Tensor
    arrived: torch.cuda.Event | None


class DeferredValues:
    """For the training loop's own thread alone."""

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
        """`value`: one number on a device."""
        import torch

        # A copy: the job may write the next loss into the same place, as CUDA graphs do.
        copied = value.detach().reshape(()).to(torch.float32, copy=True)
        names, values = self._queued.setdefault(value.device, ([], []))
        names.append(name)
        values.append(copied)
        self._count += 1

    def send(self) -> None:
        """Start bringing over what is held."""
        import torch

        for device, (names, values) in self._queued.items():
            stacked = torch.stack(values)
            if device.type != "cuda":  # no events to ask whether it has arrived
                self._in_flight.append(_Transfer(names, stacked.cpu(), None))
                continue
            with torch.cuda.device(device):
                host = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=True)
                host.copy_(stacked, non_blocking=True)
                arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
                arrived.record()
            self._in_flight.append(_Transfer(names, host, arrived))
        self._queued.clear()
        self._count = 0

    def take(self, wait: bool = False) -> list[tuple[str, float]]:
        """What has arrived, in the order in which it was added. `wait`: until all that was sent has."""
        taken: list[tuple[str, float]] = []
        while self._in_flight:
            batch = self._in_flight[0]
            if batch.arrived is not None:
                if wait:
                    batch.arrived.synchronize()
                elif not batch.arrived.query():  # type: ignore[no-untyped-call]
                    break
            taken += zip(batch.names, batch.values.tolist(), strict=True)
            self._in_flight.pop(0)
        return taken
