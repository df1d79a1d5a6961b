"""PerformanceMonitor: a run's metrics, with those of the GPU and the host.

`gpu_advisor.training.TrainingMonitor` publishes them to Prometheus while the job runs, and measures waits for data.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import asdict
from typing import Any, SupportsFloat

from gpu_advisor.extras import install_hint
from gpu_advisor.training.identity import current_cuda_device, gpu_uuid
from gpu_advisor.training.running_statistics import RunningStatistics
from gpu_advisor.training.system_metrics import GpuSampler

Summary = dict[str, dict[str, float]]
"""Name -> mean, max, min, std."""


class GPUMonitor:
    """Samples this process' GPU, while it is monitored: utilization, memory, power, temperature."""

    def __init__(self, interval_seconds: float = 1.0) -> None:
        self.interval_seconds = interval_seconds
        self._statistics: dict[str, RunningStatistics] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._sampler: GpuSampler | None = None

    def start_monitoring(self, async_mode: bool = True) -> None:
        """async_mode: sample in the background, until `stop_monitoring`; else sample once."""
        self._stopped.clear()
        self._sample()
        if async_mode:
            threading.Thread(target=self._sample_repeatedly, name="gpu-monitor", daemon=True).start()

    def stop_monitoring(self) -> None:
        """Stop sampling. The summary stays."""
        self._stopped.set()

    def get_metrics_summary(self) -> Summary:
        """Ratios are 0 to 1. Empty without a GPU."""
        with self._lock:
            return _summary(self._statistics)

    def _sample_repeatedly(self) -> None:
        while not self._stopped.wait(self.interval_seconds):
            self._sample()

    def _sample(self) -> None:
        if self._sampler is None:
            device = current_cuda_device()
            if device is None:
                return
            self._sampler = GpuSampler(gpu_uuid(device, os.environ))
        with self._lock:
            for name, value in self._sampler.read().items():
                self._statistics.setdefault(name, RunningStatistics()).add(value)


class PerformanceMonitor:
    """Metrics of a run by name, as `log_metric` is given them."""

    def __init__(self) -> None:
        self.metrics: dict[str, list[dict[str, float]]] = {}
        self.gpu_monitor = GPUMonitor()
        self.start_time = time.time()

    def start_monitoring(self) -> None:
        """Start the clock, and sampling the GPU."""
        self.start_time = time.time()
        self.gpu_monitor.start_monitoring(async_mode=True)

    def stop_monitoring(self) -> None:
        """Stop sampling the GPU."""
        self.gpu_monitor.stop_monitoring()

    def log_metric(self, name: str, value: SupportsFloat) -> None:
        """With the seconds since the start."""
        number = float(value)
        self.metrics.setdefault(name, []).append({"value": number, "timestamp": time.time() - self.start_time})

    def get_performance_report(self) -> dict[str, Any]:
        """Statistics of the GPU and of the logged metrics, and the host's present state."""
        return {
            "gpu_metrics": self.gpu_monitor.get_metrics_summary(),
            "training_metrics": self.summarize_training_metrics(),
            "system_metrics": self.get_system_metrics(),
        }

    def summarize_training_metrics(self) -> Summary:
        """Statistics of the finite values of each metric."""
        found = {name: RunningStatistics() for name in self.metrics}
        for name, values in self.metrics.items():
            for each in values:
                found[name].add(each["value"])
        return _summary(found)

    def get_system_metrics(self) -> dict[str, float]:
        """Percent, 0 to 100: of the CPU since the last call, of memory, of the root file system. Needs psutil."""
        try:
            import psutil
        except ImportError as error:
            raise ImportError(f"PerformanceMonitor needs psutil: {install_hint('compatibility')}") from error
        return {
            "cpu_usage": psutil.cpu_percent(),
            "memory_usage": psutil.virtual_memory().percent,
            "disk_usage": psutil.disk_usage("/").percent,
        }


def _summary(by_name: dict[str, RunningStatistics]) -> Summary:
    found = {name: each.statistics() for name, each in by_name.items()}
    return {
        name: {part: value for part, value in asdict(statistics).items() if part in ("mean", "max", "min", "std")}
        for name, statistics in found.items()
        if statistics is not None
    }
