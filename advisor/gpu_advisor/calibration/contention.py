"""Detects other users of the GPU during a probe, which invalidate its measurements."""

from __future__ import annotations

from dataclasses import dataclass

from gpu_advisor.calibration.byte_sizes import format_bytes

#: Memory that the driver reserves on an idle GPU; more before the probe means another user.
IDLE_BYTES = 1 << 30
IDLE_RATIO = 0.05
#: A CUDA context with its kernels takes a few hundred MiB; more, beyond our allocator's memory, means another user.
CONTEXT_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class DeviceUsage:
    """A GPU's usage as the driver reports it at one time. None if it does not."""

    used_bytes: int | None
    busy_ratio: float | None
    other_processes: int | None


def contention_reason(before: DeviceUsage, after: DeviceUsage, own_reserved_bytes: int) -> str | None:
    """Why the measurements are invalid, or None. `before`: before our context exists, `after`: while it does."""
    if before.used_bytes is not None and before.used_bytes > IDLE_BYTES:
        return f"{format_bytes(before.used_bytes)} were in use before the probe"
    if before.busy_ratio is not None and before.busy_ratio > IDLE_RATIO:
        return f"the GPU was {before.busy_ratio:.0%} busy before the probe"
    for use in (before, after):
        if use.other_processes:
            return f"{use.other_processes} other process(es) computed on the GPU"
    if before.used_bytes is None or after.used_bytes is None:
        return None
    unaccounted_bytes = after.used_bytes - before.used_bytes - own_reserved_bytes
    return (
        f"other processes allocated {format_bytes(unaccounted_bytes)} during the probe"
        if unaccounted_bytes > CONTEXT_BYTES
        else None
    )
