"""A training job's allocation: renewed in the background, released at the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

from gpu_advisor.allocation.client.backends import AllocationBackend, GrantedLease
from gpu_advisor.allocation.errors import AllocationError, UnknownAllocationError
from gpu_advisor.allocation.frameworks import (
    AppliedPyTorch,
    AppliedTensorFlow,
    PyTorchSettings,
    SetupOptions,
    TensorFlowSettings,
    apply_pytorch,
    apply_tensorflow,
    child_environment,
    pytorch_settings,
    tensorflow_settings,
)
from gpu_advisor.allocation.model import Allocation

log = logging.getLogger(__name__)

#: Time between renewals, as a share of the remaining lease.
RENEW_RATIO = 1 / 3
MIN_PAUSE_SECONDS = 0.05


class LeaseLostError(AllocationError):
    """The GPUs may be leased to another job: stop using them."""


class Session:
    """An active allocation. `batch_scale` is 1, and smaller when training is retried after it ran out of memory:
    multiply the batch size by it.

    `lost` is set as soon as the lease is no longer certain; then `check` raises. A training loop that calls `check` in
    each step stops in time.
    """

    def __init__(
        self,
        backend: AllocationBackend,
        lease: GrantedLease,
        requested_at: float,
        lease_seconds: float | None,
        on_lost: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`requested_at`: reading of `clock` before the request was sent."""
        self.allocation: Allocation = lease.allocation
        self.batch_scale = 1.0
        self.lost = threading.Event()
        self.lost_reason = ""
        self.renewals = 0
        self._backend, self._lease_seconds, self._on_lost, self._clock = backend, lease_seconds, on_lost, clock
        self._expires_at = requested_at + lease.seconds
        self._stopped, self._losing = threading.Event(), threading.Lock()
        self._on_cpu_fallback = False
        self._thread = threading.Thread(target=self._renew, name="gpu-lease", daemon=True)
        if not lease.allocation.on_cpu:  # without GPUs there is no lease to renew
            self._thread.start()

    @property
    def on_cpu(self) -> bool:
        """Whether the training runs without GPUs: as allocated, or after `fall_back_to_cpu`."""
        return self.allocation.on_cpu or self._on_cpu_fallback

    @property
    def seconds_left(self) -> float:
        """Guaranteed remaining seconds of the lease, without further renewals."""
        return max(0.0, self._expires_at - self._clock())

    def fall_back_to_cpu(self) -> None:
        """Continue without GPUs. They stay leased: this process keeps its memory on them until it exits."""
        self._on_cpu_fallback, self.batch_scale = True, 1.0

    def check(self) -> None:
        """Raises LeaseLostError if the lease is lost."""
        if self.on_cpu:
            return
        if not self._stopped.is_set() and self._clock() >= self._expires_at:
            self._mark_lost("the lease could not be renewed in time")  # the renewing thread may be blocked
        if self.lost.is_set():
            raise LeaseLostError(f"lease {self.allocation.id}: {self.lost_reason}: stop, and allocate again")

    def pytorch(self, options: SetupOptions | None = None) -> PyTorchSettings:
        """The settings for PyTorch, as data. Raises InvalidRequestError."""
        return pytorch_settings(self._effective_allocation, options)

    def tensorflow(self, options: SetupOptions | None = None) -> TensorFlowSettings:
        """The settings for TensorFlow, as data. Raises InvalidRequestError."""
        return tensorflow_settings(self._effective_allocation, options)

    def apply_pytorch(self, options: SetupOptions | None = None, node: str | None = None) -> AppliedPyTorch:
        """Apply the settings in this process, before it imports torch. Raises SetupError."""
        settings = self.pytorch(options)
        if self._on_cpu_fallback:  # the framework is already imported, with the GPUs' environment
            settings = replace(settings, nodes=(replace(settings.nodes[0], environment={}),))
        return apply_pytorch(settings, node)

    def apply_tensorflow(self, options: SetupOptions | None = None, node: str | None = None) -> AppliedTensorFlow:
        """Apply the settings in this process, before it imports tensorflow. Raises SetupError."""
        settings = self.tensorflow(options)
        if self._on_cpu_fallback:
            settings = replace(settings, nodes=(replace(settings.nodes[0], environment={}),))
        return apply_tensorflow(settings, node)

    def environment(self, options: SetupOptions | None = None, node: str | None = None) -> dict[str, str]:
        """Environment for child processes, such as torchrun, in which `apply_pytorch()` finds the settings."""
        return child_environment(self.pytorch(options), node)

    def release(self) -> None:
        """Release the GPUs. Never raises: a lease that cannot be released expires, and a warning says when."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        try:
            self._backend.release(self.allocation.id)
        except UnknownAllocationError:
            log.info("lease %s had already ended", self.allocation.id)
        except AllocationError as error:
            log.warning(
                "cannot release lease %s (%s); it expires in %.0f s", self.allocation.id, error, self.seconds_left
            )

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def _effective_allocation(self) -> Allocation:
        return replace(self.allocation, shares=()) if self._on_cpu_fallback else self.allocation

    def _renew(self) -> None:
        """Renew early, and retry until the lease has expired."""
        while not self._stopped.wait(max(MIN_PAUSE_SECONDS, RENEW_RATIO * (self._expires_at - self._clock()))):
            requested_at = self._clock()
            if requested_at >= self._expires_at:
                return self._mark_lost("the lease could not be renewed in time")
            try:
                lease = self._backend.renew(self.allocation.id, self._lease_seconds, self._expires_at - requested_at)
            except UnknownAllocationError as error:
                return self._mark_lost(str(error))
            except AllocationError as error:
                log.warning("cannot renew lease %s, retrying: %s", self.allocation.id, error)
                continue
            if self.lost.is_set():  # by `check`, while the answer was late: the job has been asked to stop
                return None
            self._expires_at = requested_at + lease.seconds
            self.allocation = replace(self.allocation, expires=lease.allocation.expires)
            self.renewals += 1
        return None

    def _mark_lost(self, why: str) -> None:
        with self._losing:  # the job's and the renewing thread may find out at once: `on_lost` is called once
            if self._stopped.is_set() or self.lost.is_set():
                return
            self.lost_reason = why
            self.lost.set()
        log.error("lost lease %s: %s", self.allocation.id, why)
        if self._on_lost is not None:
            self._on_lost(why)
