"""Measure a workload at several batch sizes, each in its own process, and build its profile.

An out-of-memory error, a crash or a hang ends one process and is reported as that size's outcome. If a size fails for
another reason than the device's memory, the error has the profile of the sizes measured before.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

from pydantic import ValidationError

from gpu_advisor.calibration.errors import CalibrationError, DeviceBusyError, HostMemoryError, WorkloadError
from gpu_advisor.calibration.profile import Measurement, Profile, TracedSize
from gpu_advisor.calibration.trace_worker import trace_in_subprocess
from gpu_advisor.calibration.traced_memory import sizes_to_trace
from gpu_advisor.calibration.worker import ProbeTask
from gpu_advisor.calibration.worker_process import run_worker


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """What to probe. Memory in bytes, times in seconds; `limit_bytes` simulates a smaller GPU."""

    workload: str
    batch_sizes: tuple[int, ...]
    device: str = "auto"
    precision: str = "float32"
    limit_bytes: int | None = None
    size_timeout_seconds: float = 300.0
    timed_seconds: float = 1.0
    threads: int | None = None


class IncompleteProbeError(CalibrationError):
    """A size failed, and `profile` has the smaller ones."""

    def __init__(self, message: str, profile: Profile) -> None:
        super().__init__(message)
        self.profile = profile


SizeRunner = Callable[[ProbeRequest, int], dict[str, Any]]
ProgressCallback = Callable[[int, str], None]
"""Called after each size with the size and its outcome."""


def run_probe(
    request: ProbeRequest, run_size: SizeRunner | None = None, progress: ProgressCallback | None = None
) -> Profile:
    """Measure the sizes in ascending order, up to the first that runs out of memory.

    Raises IncompleteProbeError if a later size fails in another way. If fewer than two sizes were measured:
    WorkloadError, DeviceBusyError, HostMemoryError or CalibrationError.
    """
    run = run_size or run_in_subprocess
    sizes = sorted(set(request.batch_sizes))
    if len(sizes) < 2:
        raise CalibrationError("only one size was requested: give at least two sizes that fit, such as --sizes 1,2,4")
    results: list[tuple[int, dict[str, Any]]] = []
    out_of_memory: list[int] = []
    failed: CalibrationError | None = None
    for size in sizes:
        result = run(request, size)
        outcome = result["outcome"]
        if outcome == "maybe_out_of_memory" and results:  # a smaller size succeeded
            outcome = "out_of_memory"
        if progress:
            progress(size, outcome)
        if outcome == "out_of_memory":
            out_of_memory.append(size)
            break
        try:
            _raise_for_outcome(result, size, request)
        except CalibrationError as error:
            failed = error
            break
        results.append((size, result))
    if failed is not None and len(results) < 2:
        raise failed
    if len(results) < 2:
        raise CalibrationError(
            f"size {out_of_memory[0]} ran out of memory: give at least two sizes that fit, such as --sizes 1,2,4"
        )
    kinds = {result["memory"]["kind"] for _, result in results}
    if len(kinds) > 1:
        raise CalibrationError(f"memory was measured in different ways ({', '.join(sorted(kinds))}): probe again")
    try:
        profile = _build_profile(request, results, out_of_memory)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc']))} {each['msg']}".strip() for each in error.errors())
        raise WorkloadError(
            f"{request.workload} was measured, but its figures are not a valid profile ({problems}): check that each "
            "step trains on a batch of the requested size"
        ) from error
    if failed is not None:
        measured = ", ".join(str(size) for size, _ in results)
        raise IncompleteProbeError(f"{failed} (measured before it: {measured})", profile) from failed
    return profile


def _build_profile(
    request: ProbeRequest, results: list[tuple[int, dict[str, Any]]], out_of_memory: list[int]
) -> Profile:
    """Raises ValidationError for figures that a profile does not allow, such as 0 bytes of memory."""
    first = results[0][1]
    return Profile(
        gpu_type=first["device_name"],
        workload=request.workload,
        precision=request.precision,
        memory_kind=first["memory"]["kind"],
        device_memory_bytes=first["device_bytes"],
        created_timestamp_seconds=time.time(),
        software={"torch": first["torch"], "python": sys.version.split()[0]},
        measurements=tuple(to_measurement(size, result) for size, result in results),
        out_of_memory_batch_sizes=tuple(out_of_memory),
    )


def with_trace(profile: Profile, timeout_seconds: float = 300.0) -> Profile:
    """The profile with the traced step's memory at sizes up to eight times the largest, without a GPU.

    Raises CalibrationError if the workload cannot be traced.
    """
    sizes = sizes_to_trace([each.batch_size for each in profile.measurements])
    traced = trace_in_subprocess(
        profile.factory or profile.workload, sizes, profile.precision, profile.memory_kind, timeout_seconds
    )
    rows = tuple(TracedSize(batch_size=size, memory_bytes=memory) for size, memory in traced.points)
    return profile.model_copy(update={"traced_sizes": rows})


def to_measurement(size: int, result: dict[str, Any]) -> Measurement:
    """Convert one worker's figures."""
    memory, seconds = result["memory"], result["step_seconds"]
    tenths = quantiles(seconds, n=10, method="inclusive")
    middle = median(seconds)
    return Measurement(
        batch_size=size,
        peak_memory_bytes=memory["peak_bytes"],
        peak_allocated_bytes=memory["allocated_bytes"],
        peak_reserved_bytes=memory["reserved_bytes"],
        peak_driver_bytes=memory["driver_bytes"],
        kept_bytes_per_step=memory.get("kept_bytes_per_step"),
        samples_per_second=size / middle,
        step_seconds_median=middle,
        step_seconds_low=tenths[0],
        step_seconds_high=tenths[-1],
        utilization_ratio=result["utilization_ratio"],
    )


def _raise_for_outcome(result: dict[str, Any], size: int, request: ProbeRequest) -> None:
    message = f"batch size {size}: {result.get('message', '')}"
    match result["outcome"]:
        case "measured":
            return
        case "taken":
            raise DeviceBusyError(f"{message}: stop the other processes on this GPU, or use another, and probe again")
        case "workload":
            raise WorkloadError(message)
        case "maybe_out_of_memory":
            raise WorkloadError(
                f"{message}: the device's memory was not full; if it is memory, a smaller size succeeds"
            )
        case "host_memory":
            raise HostMemoryError(
                f"{message}: the host's memory ran out, not the GPU's: load less data, or use fewer workers"
            )
        case "timeout":
            raise WorkloadError(
                f"batch size {size}: {request.workload} did not finish within {request.size_timeout_seconds:g} s: "
                "find out where it hangs, or raise --timeout"
            )
        case _:
            raise CalibrationError(message)


def run_in_subprocess(request: ProbeRequest, size: int) -> dict[str, Any]:
    """Measure one size in its own process."""
    task = ProbeTask(
        request.workload, size, request.device, request.precision, request.limit_bytes, request.timed_seconds,
        request.threads,
    )  # fmt: skip
    try:
        ended = run_worker("gpu_advisor.calibration.worker", asdict(task), request.size_timeout_seconds)
    except TimeoutError:
        return {"outcome": "timeout"}
    if ended.result is not None:
        return ended.result
    if ended.killed:  # the kernel's OOM killer: host memory, not GPU memory
        return {"outcome": "host_memory", "message": "the kernel killed the process"}
    last = ended.last_line or "no output; check whether the workload ends its own process"
    return {"outcome": "failed", "message": f"the process exited with code {ended.return_code}: {last}"}
