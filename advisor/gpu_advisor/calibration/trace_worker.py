"""Trace a workload in its own process: a factory that crashes or hangs ends that process alone.

python -m gpu_advisor.calibration.trace_worker RESULT_FD < task.json
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from gpu_advisor.calibration.errors import CalibrationError, WorkloadError
from gpu_advisor.calibration.traced_memory import TracedMemory
from gpu_advisor.calibration.worker_process import run_worker

MODULE = "gpu_advisor.calibration.trace_worker"


def trace_in_subprocess(
    workload: str, sizes: Sequence[int], precision: str, memory_kind: str, timeout_seconds: float = 300.0
) -> TracedMemory:
    """Bytes of the traced step at these sizes: see `memory_estimate.trace_memory`. Raises CalibrationError."""
    task = {"workload": workload, "sizes": list(sizes), "precision": precision, "memory_kind": memory_kind}
    try:
        ended = run_worker(MODULE, task, timeout_seconds)
    except TimeoutError as error:
        raise WorkloadError(
            f"tracing {workload} did not finish within {timeout_seconds:g} s: find out where it hangs, or measure a "
            "third size instead"
        ) from error
    if ended.result is None:
        raise CalibrationError(
            f"tracing {workload}: the process exited with code {ended.return_code}: {ended.last_line}"
        )
    if "error" in ended.result:
        raise WorkloadError(str(ended.result["error"]))
    return TracedMemory(tuple((int(size), int(memory)) for size, memory in ended.result["points"]))


def main() -> None:
    from gpu_advisor.calibration.memory_estimate import trace_memory

    task = json.load(sys.stdin)
    sys.path.insert(0, os.getcwd())
    try:
        traced = trace_memory(task["workload"], task["sizes"], task["precision"], task["memory_kind"])
        result: dict[str, object] = {"points": traced.points}
    except CalibrationError as error:
        result = {"error": str(error)}
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as out:
        json.dump(result, out)


if __name__ == "__main__":
    main()
