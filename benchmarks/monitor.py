"""The overhead of TrainingMonitor in a training loop: python -m benchmarks.monitor

Short blocks of the same loop, with and without the monitor, alternate so that both have the same machine. A step is
busy for 10 ms, mostly with copies that evict the CPU's caches, as a loop is that feeds a GPU and waits for it. Timed is
the gap between two steps: without the monitor the loop itself, with it the recording of two values, the end of the
step, and the request for the next batch. Timing whole blocks would mostly show other work on the machine. The reporting
thread's work for a report, to a file and with host metrics, is measured separately and divided by the steps of the
default interval.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from gpu_advisor.training.monitor import TrainingMonitor
from gpu_advisor.training.system_metrics import HostSampler

from benchmarks.common import Goal, missed_goals, percentile, table, write

STEP_SECONDS = 0.010
REPORT_INTERVAL_SECONDS = 10.0
GOAL_RATIO = 0.005
#: More than the caches of a core hold.
CACHE_BYTES = 4 * 2**20


@dataclass(frozen=True)
class OverheadPlan:
    """pairs: of blocks with and without the monitor. steps: per block. reports: number of timed reports."""

    pairs: int
    steps: int
    reports: int


@dataclass(frozen=True)
class MonitorOverhead:
    """Seconds between steps without and with the monitor, and CPU seconds of each report."""

    plain: Sequence[float]
    monitored: Sequence[float]
    reports: Sequence[float]

    def added_seconds(self, share: float = 0.5) -> float:
        """Return the seconds that the monitor adds, at this quantile."""
        return percentile(self.monitored, share) - percentile(self.plain, share)

    @property
    def report_seconds(self) -> float:
        return percentile(self.reports, 0.5)

    @property
    def ratio(self) -> float:
        """Overhead as a ratio of a 10 ms step, with its share of a report."""
        return self.added_seconds() / STEP_SECONDS + self.report_seconds / REPORT_INTERVAL_SECONDS


_FROM, _TO = bytes(CACHE_BYTES), bytearray(CACHE_BYTES)


class TimedSteps:
    """A step, and the seconds between the end of each call and the start of the next."""

    def __init__(self) -> None:
        self.between: list[float] = []
        self._ended: float | None = None

    def __call__(self) -> None:
        began = time.perf_counter()
        if self._ended is not None:
            self.between.append(began - self._ended)
        while time.perf_counter() < began + 0.7 * STEP_SECONDS:
            _TO[:] = _FROM
        while time.perf_counter() < began + STEP_SECONDS:
            pass
        self._ended = time.perf_counter()


def run_plain_block(steps: int) -> list[float]:
    step = TimedSteps()
    for _ in range(steps):
        step()
    return step.between


def run_monitored_block(steps: int, monitor: TrainingMonitor) -> list[float]:
    step = TimedSteps()
    for _ in monitor.batches(range(steps), samples=lambda _: 32):
        step()
        monitor.record(loss=0.5, accuracy=0.9)
    return step.between


def measure(plan: OverheadPlan) -> MonitorOverhead:
    plain: list[float] = []
    monitored: list[float] = []
    reports: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        monitor = TrainingMonitor("benchmark", directory=directory)  # not started: its thread is measured apart
        for _ in range(plan.pairs):
            plain += run_plain_block(plan.steps)
            monitored += run_monitored_block(plan.steps, monitor)
        figures = HostSampler()
        for _ in range(plan.reports):
            # As many steps as an interval has are to be summed up.
            for _ in monitor.batches(range(round(REPORT_INTERVAL_SECONDS / STEP_SECONDS)), samples=lambda _: 32):
                monitor.record(loss=0.5, accuracy=0.9)
            began = time.thread_time()
            monitor._close_window(figures.read())
            reports.append(time.thread_time() - began)
        monitor.close()
    return MonitorOverhead(plain, monitored, reports)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=120)
    parser.add_argument("--steps", type=int, default=25)
    arguments = parser.parse_args()
    cost = measure(OverheadPlan(arguments.pairs, arguments.steps, reports=50))
    rows = [("with the monitor", "microseconds", "of a 10 ms step")]
    for name, seconds, of in (
        ("more time a step, median", cost.added_seconds(), STEP_SECONDS),
        ("more time a step, 90th percentile", cost.added_seconds(0.9), STEP_SECONDS),
        ("CPU time of a report, one in 10 s", cost.report_seconds, REPORT_INTERVAL_SECONDS),
    ):
        rows.append((name, f"{seconds * 1e6:.1f}", f"{seconds / of:.3%}"))
    print(table(rows))
    goal = Goal("TrainingMonitor costs under 0.5 % of a 10 ms step", cost.ratio < GOAL_RATIO, f"{cost.ratio:.3%}")
    print(goal)
    path = write(
        "monitor",
        {
            "step_seconds": STEP_SECONDS,
            "pairs": arguments.pairs,
            "steps": arguments.steps,
            "added_seconds_p50": cost.added_seconds(),
            "added_seconds_p90": cost.added_seconds(0.9),
            "report_cpu_seconds": cost.report_seconds,
            "ratio": cost.ratio,
        },
    )
    print(f"written to {path}")
    return 1 if missed_goals([goal]) else 0


if __name__ == "__main__":
    sys.exit(main())
