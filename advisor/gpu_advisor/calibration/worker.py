"""Measure one batch size in its own process: python -m gpu_advisor.calibration.worker RESULT_FD < task.json.

The result goes to the file descriptor RESULT_FD as one line of JSON, so that the workload may print to stdout.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

WARM_UP_STEPS = 2
MIN_STEPS = 5
MAX_STEPS = 200


@dataclass(frozen=True, slots=True)
class ProbeTask:
    """What the worker measures. Memory in bytes, times in seconds."""

    workload: str
    batch_size: int
    device: str
    precision: str
    limit_bytes: int | None
    timed_seconds: float
    threads: int | None = None


def measure_batch_size(task: ProbeTask) -> dict[str, Any]:
    """Return the outcome: `measured`, `out_of_memory`, `maybe_out_of_memory` (an error with several causes, while
    memory was not full), `host_memory`, `workload`, `taken` or `failed`, with its figures or message.
    """
    import torch

    from gpu_advisor.calibration.device_meters import DeviceMeter, create_meter, device_bytes, device_name
    from gpu_advisor.calibration.errors import CalibrationError, WorkloadError
    from gpu_advisor.calibration.out_of_memory import memory_failure
    from gpu_advisor.calibration.workloads import build_step, run_step

    if task.threads:
        torch.set_num_threads(task.threads)
    device_meter: DeviceMeter | None = None
    try:
        device_meter = create_meter(task.device, task.limit_bytes)

        def make_step() -> Callable[[], object]:
            step = build_step(task.workload, task.batch_size, device_meter.device, task.precision)
            return lambda: run_step(task.workload, step)

        step, memory = device_meter.memory(make_step)
        seconds, utilization = _time_steps(step, device_meter, task.timed_seconds)
        contention = device_meter.contention_reason()
    except WorkloadError as error:
        return {"outcome": "workload", "message": str(error)}
    except CalibrationError as error:
        return {"outcome": "failed", "message": str(error)}
    except Exception as error:
        if memory_failure(error) is None:
            raise
        return {"outcome": _memory_outcome(error, device_meter), "message": f"{type(error).__name__}: {error}"}
    if contention is not None:
        return {"outcome": "taken", "message": contention}
    return {
        "outcome": "measured",
        "memory": asdict(memory),
        "step_seconds": seconds,
        "utilization_ratio": utilization,
        "device_name": device_name(device_meter.device),
        "device_bytes": device_bytes(device_meter.device),
        "torch": torch.__version__,
    }


def _memory_outcome(error: Exception, device_meter: Any) -> str:
    """Called while the error is handled: its traceback keeps the step's memory."""
    from gpu_advisor.calibration.out_of_memory import MemoryFailure, memory_failure

    match memory_failure(error):
        case MemoryFailure.HOST:  # on a CPU there is no other memory
            return "out_of_memory" if device_meter and device_meter.device.type == "cpu" else "host_memory"
        case MemoryFailure.AMBIGUOUS:
            return "out_of_memory" if device_meter and device_meter.is_nearly_full() else "maybe_out_of_memory"
        case _:
            return "out_of_memory"


def _time_steps(
    step: Callable[[], object], device_meter: Any, timed_seconds: float
) -> tuple[list[float], float | None]:
    for _ in range(WARM_UP_STEPS):
        step()
    device_meter.synchronize()
    device_meter.utilization()
    seconds: list[float] = []
    end = time.perf_counter() + timed_seconds
    while len(seconds) < MIN_STEPS or (time.perf_counter() < end and len(seconds) < MAX_STEPS):
        begin = time.perf_counter()
        step()
        device_meter.synchronize()
        seconds.append(time.perf_counter() - begin)
    return seconds, device_meter.utilization()


def main() -> None:
    task = ProbeTask(**json.load(sys.stdin))
    sys.path.insert(0, os.getcwd())
    result = measure_batch_size(task)
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as out:
        json.dump(result, out)


if __name__ == "__main__":
    main()
