"""One batch size in a process of its own: python -m gpu_advisor.calibration.worker RESULT_FD < task.json.

What it finds goes to the descriptor RESULT_FD as one line of JSON: a workload may print what it likes.
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
LEAST_STEPS = 5
MOST_STEPS = 200


@dataclass(frozen=True, slots=True)
class Task:
    """What the worker is to measure. Memory in bytes, times in seconds."""

    workload: str
    batch_size: int
    device: str
    precision: str
    limit_bytes: int | None
    timed_seconds: float
    threads: int | None = None


def measure(task: Task) -> dict[str, Any]:
    """The outcome: `measured`, `out_of_memory`, `workload`, `taken` or `failed`, with its figures or message."""
    import torch

    from gpu_advisor.calibration.errors import CalibrationError, WorkloadError
    from gpu_advisor.calibration.meters import device_bytes, device_name, meter
    from gpu_advisor.calibration.workloads import build, run_step

    if task.threads:
        torch.set_num_threads(task.threads)
    try:
        instrument = meter(task.device, task.limit_bytes)

        def make_step() -> Callable[[], object]:
            step = build(task.workload, task.batch_size, instrument.device, task.precision)
            return lambda: run_step(task.workload, step)

        step, memory = instrument.memory(make_step)
        seconds, utilization = _time(step, instrument, task.timed_seconds)
        occupied = instrument.taken()
    except (torch.OutOfMemoryError, MemoryError):
        return {"outcome": "out_of_memory"}
    except WorkloadError as error:
        return {"outcome": "workload", "message": str(error)}
    except CalibrationError as error:
        return {"outcome": "failed", "message": str(error)}
    if occupied is not None:
        return {"outcome": "taken", "message": occupied}
    return {
        "outcome": "measured",
        "memory": asdict(memory),
        "step_seconds": seconds,
        "utilization_ratio": utilization,
        "device_name": device_name(instrument.device),
        "device_bytes": device_bytes(instrument.device),
        "torch": torch.__version__,
    }


def _time(step: Callable[[], object], instrument: Any, timed_seconds: float) -> tuple[list[float], float | None]:
    for _ in range(WARM_UP_STEPS):
        step()
    instrument.synchronize()
    instrument.utilization()
    seconds: list[float] = []
    end = time.perf_counter() + timed_seconds
    while len(seconds) < LEAST_STEPS or (time.perf_counter() < end and len(seconds) < MOST_STEPS):
        begin = time.perf_counter()
        step()
        instrument.synchronize()
        seconds.append(time.perf_counter() - begin)
    return seconds, instrument.utilization()


def main() -> None:
    task = Task(**json.load(sys.stdin))
    sys.path.insert(0, os.getcwd())
    result = measure(task)
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as out:
        json.dump(result, out)


if __name__ == "__main__":
    main()
