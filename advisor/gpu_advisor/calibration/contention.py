"""Whether somebody else used the GPU during a probe: then its figures are not the workload's."""

from __future__ import annotations

from dataclasses import dataclass

from gpu_advisor.calibration.byte_sizes import format_bytes

#: A driver's own reserve on an idle GPU; more than this held before the probe is somebody's.
IDLE_BYTES = 1 << 30
IDLE_RATIO = 0.05
#: A context with its kernels takes a few hundred MiB; what the driver sees beyond that and our allocator is somebody's.
CONTEXT_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class DeviceUsage:
    """A GPU as seen from outside at one time. None where the driver does not tell."""

    used_bytes: int | None
    busy_ratio: float | None
    other_processes: int | None


def taken(before: DeviceUsage, after: DeviceUsage, own_reserved_bytes: int) -> str | None:
    """Why the probe's figures cannot be used, or None. `before` is before our context, `after` while it stands."""
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
        f"{format_bytes(unaccounted_bytes)} more were taken than by the probe"
        if unaccounted_bytes > CONTEXT_BYTES
        else None
    )
