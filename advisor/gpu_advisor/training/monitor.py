"""TrainingMonitor: measures where a training loop spends its time, and publishes it while the job runs.

    with TrainingMonitor(job="resnet50", directory="/var/lib/gpu-exporter/textfile") as monitor:
        for images, labels in monitor.batches(loader):
            loss = train_step(images, labels)
            monitor.record(loss=loss)

Times are measured on the host. CUDA kernels are queued ahead, so a single step's time is the host's; the sum over many
steps is right, because the host cannot run more than a few steps ahead. The monitor never makes the loop wait for the
GPU.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from gpu_advisor.training.batches import sample_count
from gpu_advisor.training.identity import (
    JobIdentity,
    current_cuda_device,
    gpu_uuid,
    job_name_from_environment,
    rank_from_environment,
)
from gpu_advisor.training.metrics import MetricSample, render
from gpu_advisor.training.publishers import HttpPublisher, MetricsPublisher, MonitorError, TextfilePublisher
from gpu_advisor.training.reporter import WindowReporter
from gpu_advisor.training.step_clock import StepClock, StepWindow
from gpu_advisor.training.summary import (
    STEP_STATISTICS,
    TrainingSummary,
    memory_samples,
    step_samples,
    summarize_training,
)
from gpu_advisor.training.value_statistics import ValueStatistics

if TYPE_CHECKING:
    import torch

    from gpu_advisor.training.collector import TrainingCollector
    from gpu_advisor.training.deferred import DeferredValues
    from gpu_advisor.training.memory.device_memory import DeviceMemory

#: Environment variable that names the node's textfile directory.
DIRECTORY_VARIABLE = "GPU_ADVISOR_TEXTFILE_DIRECTORY"

B = TypeVar("B")

log = logging.getLogger(__name__)


class TrainingMonitor:
    """Measures one rank's training loop and publishes metrics. Call its methods from the loop's thread.

    Publishes from `start()` (or `with`) until `close()`, which removes the textfile. Errors while publishing are logged
    and never raised into the training loop.
    """

    def __init__(
        self,
        job: str | None = None,
        *,
        rank: int | None = None,
        directory: str | None = None,
        listen: str | None = None,
        uuid: str | None = None,
        interval_seconds: float = 10.0,
        figures: bool = True,
        memory: DeviceMemory | None = None,
        keep_file: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """
        job: label training_job; the scheduler's job id if None. Concurrent jobs need different names.
        rank: from torchrun or Slurm if None.
        directory: the exporter's textfile directory; $GPU_ADVISOR_TEXTFILE_DIRECTORY if None.
        listen: HOST:PORT on which to serve /metrics, for jobs that share no directory with an exporter.
        uuid: of the GPU; detected with CUDA if None.
        interval_seconds: length of a reporting window, and how often the textfile is written.
        figures: whether to record a few host and GPU metrics, too, once per window.
        memory: source of memory statistics; the current CUDA device if None. Pass `MemoryManager.memory` here.
        keep_file: whether to keep the textfile after the job.
        """
        if not interval_seconds > 0:
            raise MonitorError(f"interval_seconds={interval_seconds} must be greater than 0")
        environment = os.environ
        self._identity = JobIdentity(
            job_name_from_environment(environment) if job is None else job,
            rank_from_environment(environment) if rank is None else rank,
            uuid or "",
        )
        if not self._identity.job:
            raise MonitorError("job='' is empty; give the job a name, or None for the scheduler's job id")
        self._clock = StepClock(clock)
        self._values = ValueStatistics(reserved_names=STEP_STATISTICS)
        self._window = StepWindow(None, None, None)
        self._deferred: DeferredValues | None = None
        self._memory = memory
        self._micro_batch_size: int | None = None
        self._interval_seconds = interval_seconds
        self._collect_due = True
        self._pid = os.getpid()
        self._closed = False
        directory = environment.get(DIRECTORY_VARIABLE) or None if directory is None else directory
        self._publishers: list[MetricsPublisher] = []
        if directory is not None:
            self._publishers.append(
                TextfilePublisher(directory, self._identity.job, self._identity.rank, self.page, keep_file)
            )
        self.port: int | None = None
        if listen is not None:
            http_publisher = HttpPublisher(listen, self.page)
            self.port = http_publisher.port
            self._publishers.append(http_publisher)
        self._reporter = WindowReporter(interval_seconds, self._close_window, figures)

    def start(self) -> TrainingMonitor:
        """Start publishing. Idempotent."""
        if not self._closed and self._reporter.start():
            atexit.register(self.close)
        return self

    def close(self) -> None:
        """Publish a last time and stop. Idempotent."""
        if self._closed or os.getpid() != self._pid:  # a forked child must not remove its parent's file
            return
        self._closed = True
        self._collect(wait=True)
        self._reporter.stop()
        if self._reporter.started:
            self._close_window({})
        for publisher in self._publishers:
            publisher.close()
        atexit.unregister(self.close)

    def __enter__(self) -> TrainingMonitor:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # --- timing of the loop ---

    def batches(
        self, loader: Iterable[B], *, accumulate: int = 1, samples: Callable[[B], int | None] = sample_count
    ) -> Iterator[B]:
        """Yield the loader's batches. Fetching a batch is data wait; a step lasts until the next batch is requested.

        accumulate: batches per step, with gradient accumulation. samples: returns a batch's number of samples.
        A batch whose loop body ends in `break` counts as a step.
        """
        if accumulate < 1:
            raise MonitorError(f"accumulate={accumulate} must be at least 1")
        clock = self._clock
        sample_total: int | None = 0
        batch_total = 0
        try:
            clock.begin_wait()
            batches = iter(loader)  # starts the loader's workers: data wait, too
            clock.end_wait()
            while True:
                clock.begin_wait()
                try:
                    batch = next(batches)
                except StopIteration:
                    break
                clock.end_wait()
                count = samples(batch)
                sample_total = None if sample_total is None or count is None else sample_total + count
                batch_total += 1
                yield batch
                if batch_total == accumulate:
                    self.end_step(sample_total)
                    sample_total, batch_total = 0, 0
            clock.cancel_wait()
            if batch_total:  # the last step of an epoch may have fewer batches
                self.end_step(sample_total)
        except GeneratorExit:
            if not self._closed:
                self.end_step(sample_total)
            raise
        finally:
            clock.cancel_step()

    @contextmanager
    def step(self, samples: int | None = None) -> Iterator[None]:
        """Time one step, for loops that do not iterate over batches. A step that raises is not counted."""
        self.begin_step()
        try:
            yield
        except BaseException:
            self._clock.cancel_step()
            raise
        self.end_step(samples)

    @contextmanager
    def data_wait(self) -> Iterator[None]:
        """Time a wait for data. Outside a step, this begins one."""
        self._clock.begin_wait()
        try:
            yield
        finally:
            self._clock.end_wait()

    @contextmanager
    def communication(self) -> Iterator[None]:
        """Time a wait for other ranks. With CUDA, only the host's own waiting is measured."""
        self._clock.begin_communication()
        try:
            yield
        finally:
            self._clock.end_communication()

    def add_communication_seconds(self, seconds: float) -> None:
        """Add communication time that the job measures itself."""
        self._clock.add_communication(seconds)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Exclude time within a step that is not training: validation, a checkpoint."""
        self._clock.begin_pause()
        try:
            yield
        finally:
            self._clock.end_pause()

    # The same as pairs of calls, for callbacks of trainers.

    def begin_step(self) -> None:
        """Begin a step, unless one is open: see `step`."""
        self._clock.begin_step()

    def begin_wait(self) -> None:
        """Begin a wait for data: see `data_wait`."""
        self._clock.begin_wait()

    def end_wait(self) -> None:
        """End the wait for data, if there is one."""
        self._clock.end_wait()

    def begin_pause(self) -> None:
        """Begin a pause: see `pause`."""
        self._clock.begin_pause()

    def end_pause(self) -> None:
        """End the pause, if there is one."""
        self._clock.end_pause()

    def cancel_step(self) -> None:
        """Discard the current step."""
        self._clock.cancel_step()

    def end_step(self, samples: int | None = None) -> None:
        """End the current step, if there is one."""
        self._clock.end_step(samples)
        if self._collect_due or (self._deferred is not None and self._deferred.full):
            self._collect()

    # --- recorded values ---

    def record(
        self, values: Mapping[str, float | torch.Tensor] | None = None, /, **named: float | torch.Tensor
    ) -> None:
        """Record numbers by name; `loss` also sets training_loss. GPU tensors are fetched later, without a sync.

        Raises MonitorError for a value that is not a single number, and for too many names.
        """
        for name, value in {**values, **named}.items() if values else named.items():
            if type(value) is not float:
                if _element_count(value) != 1:
                    raise MonitorError(
                        f"{name} has {_element_count(value)} elements; record one number, such as their mean"
                    )
                if not isinstance(value, float | int) and _on_device(value):
                    self._defer(name, value)
                    continue
                try:
                    value = float(value)
                except (TypeError, ValueError) as error:
                    raise MonitorError(f"{name} is not a number: {error}") from error
            self._values.record(name, value)

    def _defer(self, name: str, value: torch.Tensor) -> None:
        if self._deferred is None:
            from gpu_advisor.training.deferred import DeferredValues

            self._deferred = DeferredValues()
        self._deferred.add(name, value)

    def record_micro_batch_size(self, samples: int) -> None:
        """Record the samples per forward pass, where a step is split."""
        self._micro_batch_size = samples

    def _collect(self, wait: bool = False) -> None:
        """Once per window, in the loop's thread: detect the GPU, fetch deferred values."""
        self._collect_due = False
        self._find_gpu()
        if self._deferred is not None and self._deferred.pending:
            self._deferred.send()
            for name, number in self._deferred.take(wait):
                self._values.record(name, number)

    def _find_gpu(self) -> None:
        if self._identity.uuid and self._memory is not None:
            return
        device = current_cuda_device()
        if device is None:
            return
        if not self._identity.uuid:
            self._identity = JobIdentity(self._identity.job, self._identity.rank, gpu_uuid(device, os.environ))
        if self._memory is None:
            from gpu_advisor.training.memory.device_memory import CudaMemory

            self._memory = CudaMemory(device)
        self._reporter.watch_gpu(self._identity.uuid)

    # --- output ---

    def summary(self) -> TrainingSummary:
        """Summarize the run so far. May wait for the GPU, to include values that are still on it."""
        self._collect(wait=True)
        return summarize_training(self._clock.totals(), self._values.statistics())

    def page(self) -> str:
        """The metrics in the Prometheus text format; empty before the first step has ended. Thread-safe."""
        return render(self.labels(), self.samples())

    def samples(self) -> list[MetricSample]:
        """The current metrics; none before the first step has ended. Thread-safe."""
        samples = step_samples(self._clock.totals(), self._window, self._micro_batch_size, self._interval_seconds)
        if not samples:
            return []  # the GPU may not be known yet, and adding its label later would split the series
        return [*samples, *self._memory_samples(), *self._values.samples()]

    def labels(self) -> dict[str, str]:
        """The labels of every series; "" if unknown."""
        return self._identity.labels()

    @property
    def closed(self) -> bool:
        """Whether `close` was called: nothing more is published."""
        return self._closed

    def collector(self) -> TrainingCollector:
        """A collector for a `prometheus_client` registry: `REGISTRY.register(monitor.collector())`.

        Raises MonitorError if prometheus_client is not installed.
        """
        try:
            from gpu_advisor.training.collector import TrainingCollector
        except ModuleNotFoundError as error:
            raise MonitorError("collector() needs prometheus_client: pip install prometheus-client") from error
        return TrainingCollector(self)

    def _memory_samples(self) -> list[MetricSample]:
        if self._memory is None:
            return []
        try:
            return memory_samples(self._memory.read())
        except RuntimeError as error:  # a device error: the training loop will raise it, too
            log.warning("cannot read the device's memory: %s", error)
            return []

    def _close_window(self, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            with suppress(MonitorError):  # the job itself has used up MAX_NAMES
                self._values.record(name, value)
        window = self._clock.take_window()
        if window.step_seconds is not None:  # no step ended in this window: keep the last one
            self._window = window
        self._values.close_window()
        self._collect_due = True
        for publisher in self._publishers:
            publisher.publish()


def _element_count(value: object) -> int:
    count = getattr(value, "numel", None)
    return int(count()) if count else 1


def _on_device(value: object) -> bool:
    device = getattr(value, "device", None)
    return getattr(device, "type", "cpu") != "cpu"
