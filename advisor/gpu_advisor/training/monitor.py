"""TrainingMonitor: what a training loop does with its time, told to the exporter while it runs.

    with TrainingMonitor(job="resnet50", directory="/var/lib/gpu-exporter/textfile") as monitor:
        for images, labels in monitor.batches(loader):
            loss = train_step(images, labels)
            monitor.record(loss=loss)

Times are the host's. A GPU is given work ahead of time, so a single step's figure says when the host was done with it;
their sum is right, because the host cannot run ahead by more than a few steps. The monitor never makes the loop wait
for the GPU.
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

    from gpu_advisor.training.deferred import DeferredValues
    from gpu_advisor.training.memory.device_memory import DeviceMemory

#: Environment: the textfile directory of the node, so that a job's code need not know it.
DIRECTORY_VARIABLE = "GPU_ADVISOR_TEXTFILE_DIRECTORY"

B = TypeVar("B")

log = logging.getLogger(__name__)


class TrainingMonitor:
    """Measures one rank's training loop and reports it. Its methods belong to the loop's thread.

    Reports once it is entered (`with`) or started, and no more once it is closed: the file is then removed. Trouble
    with reporting is logged and never reaches the training.
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
        job: label training_job; as the scheduler says it if None. Of two that run at once each needs its own.
        rank: as torchrun or Slurm say it if None.
        directory: the exporter's textfile directory; the environment's GPU_ADVISOR_TEXTFILE_DIRECTORY if None.
        listen: HOST:PORT to serve /metrics at, for jobs that share no directory with an exporter.
        uuid: of the GPU; found by itself with CUDA if None.
        interval_seconds: length of the windows of statistics, and how often the file is written.
        figures: whether a few figures of host and GPU are recorded, too, once a window.
        memory: where memory is read; the CUDA device in use if None. Give `MemoryManager.memory` here.
        keep_file: whether the file stays after the job.
        """
        if not interval_seconds > 0:
            raise MonitorError(f"interval_seconds={interval_seconds} must be more than 0")
        environment = os.environ
        self._identity = JobIdentity(
            job_name_from_environment(environment) if job is None else job,
            rank_from_environment(environment) if rank is None else rank,
            uuid or "",
        )
        if not self._identity.job:
            raise MonitorError("job='' is no name; give the job a name, or None for the scheduler's")
        self._clock = StepClock(clock)
        self._values = ValueStatistics(taken=STEP_STATISTICS)
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
        """Begin to report. A second call does nothing."""
        if not self._closed and self._reporter.start():
            atexit.register(self.close)
        return self

    def close(self) -> None:
        """Report once more, then no more. A second call does nothing."""
        if self._closed or os.getpid() != self._pid:  # a forked child must not remove the file of its parent
            return
        self._closed = True
        self._collect(wait=True)
        self._reporter.stop()
        if self._reporter.started:
            self._close_window({})
        for outlet in self._publishers:
            outlet.close()
        atexit.unregister(self.close)

    def __enter__(self) -> TrainingMonitor:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # --- marks of the loop ---

    def batches(
        self, loader: Iterable[B], *, accumulate: int = 1, samples: Callable[[B], int | None] = sample_count
    ) -> Iterator[B]:
        """The loader's batches; the time to get each is data wait, and all until the next is asked for is its step.

        accumulate: batches a step, where gradients are accumulated. samples: how many a batch holds.
        A batch whose loop body was left by `break` counts as a step.
        """
        if accumulate < 1:
            raise MonitorError(f"accumulate={accumulate} must be at least 1")
        clock = self._clock
        sample_total: int | None = 0
        batch_total = 0
        try:
            clock.begin_wait()
            batches = iter(loader)  # starts the loader's workers: a wait as any other
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
            if batch_total:  # the rest of an epoch that `accumulate` does not divide
                self.end_step(sample_total)
        except GeneratorExit:
            if not self._closed:
                self.end_step(sample_total)
            raise
        finally:
            clock.cancel_step()

    @contextmanager
    def step(self, samples: int | None = None) -> Iterator[None]:
        """One step, for loops that are not over batches. A step that raises is not counted."""
        self.begin_step()
        try:
            yield
        except BaseException:
            self._clock.cancel_step()
            raise
        self.end_step(samples)

    @contextmanager
    def data_wait(self) -> Iterator[None]:
        """Time in which the loop waits for its data. Outside of a step it opens the next one."""
        self._clock.begin_wait()
        try:
            yield
        finally:
            self._clock.end_wait()

    @contextmanager
    def communication(self) -> Iterator[None]:
        """Time in which the step waits for other ranks. With CUDA only what the host waits for is seen."""
        self._clock.begin_communication()
        try:
            yield
        finally:
            self._clock.end_communication()

    def add_communication_seconds(self, seconds: float) -> None:
        """The same, where the job measures it itself."""
        self._clock.add_communication(seconds)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time within a step that is no training: validation, a checkpoint."""
        self._clock.begin_pause()
        try:
            yield
        finally:
            self._clock.end_pause()

    def begin_step(self) -> None:
        self._clock.begin_step()

    def begin_wait(self) -> None:
        self._clock.begin_wait()

    def end_wait(self) -> None:
        self._clock.end_wait()

    def begin_pause(self) -> None:
        self._clock.begin_pause()

    def end_pause(self) -> None:
        self._clock.end_pause()

    def cancel_step(self) -> None:
        """Forget the step that is open."""
        self._clock.cancel_step()

    def end_step(self, samples: int | None = None) -> None:
        """Ends the step that is open; without one it does nothing."""
        self._clock.end_step(samples)
        if self._collect_due or (self._deferred is not None and self._deferred.full):
            self._collect()

    # --- what the job tells ---

    def record(
        self, values: Mapping[str, float | torch.Tensor] | None = None, /, **named: float | torch.Tensor
    ) -> None:
        """Numbers by name. `loss` is also training_loss. One on a GPU is fetched later, without waiting for it.

        Raises MonitorError for what is not one number, and where there are too many names.
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
                    raise MonitorError(f"{name} is no number: {error}") from error
            self._values.record(name, value)

    def _defer(self, name: str, value: torch.Tensor) -> None:
        if self._deferred is None:
            from gpu_advisor.training.deferred import DeferredValues

            self._deferred = DeferredValues()
        self._deferred.add(name, value)

    def record_micro_batch_size(self, samples: int) -> None:
        """Samples that go through the model at once, where that is less than a step's."""
        self._micro_batch_size = samples

    def _collect(self, wait: bool = False) -> None:
        """What only the loop's thread can do, once a window."""
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

    # --- what is told to others ---

    def summary(self) -> TrainingSummary:
        """The run so far, values that are still on a GPU included: it may wait for the GPU."""
        self._collect(wait=True)
        return summarize_training(self._clock.totals(), self._values.statistics())

    def page(self) -> str:
        """The metrics in the Prometheus text format; empty before the first step has ended. Any thread may call."""
        samples = step_samples(self._clock.totals(), self._window, self._micro_batch_size, self._interval_seconds)
        if not samples:
            return ""  # the GPU may not be known yet, and a label that comes later would split the series
        return render(self._identity.labels(), [*samples, *self._memory_samples(), *self._values.samples()])

    def _memory_samples(self) -> list[MetricSample]:
        if self._memory is None:
            return []
        try:
            return memory_samples(self._memory.read())
        except RuntimeError as error:  # the device is in trouble: that is for the training to meet
            log.warning("the device's memory cannot be read: %s", error)
            return []

    def _close_window(self, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            with suppress(MonitorError):  # a job with all the names there may be has no room for these
                self._values.record(name, value)
        window = self._clock.take_window()
        if window.step_seconds is not None:  # a step longer than a window leaves the last one standing
            self._window = window
        self._values.close_window()
        self._collect_due = True
        for outlet in self._publishers:
            outlet.publish()


def _element_count(value: object) -> int:
    count = getattr(value, "numel", None)
    return int(count()) if count else 1


def _on_device(value: object) -> bool:
    device = getattr(value, "device", None)
    return getattr(device, "type", "cpu") != "cpu"
