"""GPUs that a training job has: renewed in the background for as long as it goes on, given back at its end."""

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

#: A lease is renewed when this share of it is over, and from then on at this share of what is left.
RENEW_RATIO = 1 / 3
MIN_PAUSE_SECONDS = 0.05


class LeaseLostError(AllocationError):
    """The GPUs may be somebody else's by now: stop using them."""


class Session:
    """An allocation while it is held. `batch_scale` is 1, and smaller when training is tried again after it ran out of
    memory: multiply the batch size by it.

    `lost` is set as soon as the lease cannot be counted on any more; `check` raises then. A training loop that calls
    `check` in each step stops in time.
    """

    def __init__(
        self,
        end: AllocationBackend,
        leased: GrantedLease,
        requested_at: float,
        lease_seconds: float | None,
        on_lost: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`requested_at` is what `clock` said before the allocation was asked for."""
        self.allocation: Allocation = leased.allocation
        self.batch_scale = 1.0
        self.lost = threading.Event()
        self.lost_reason = ""
        self.renewals = 0
        self._end, self._lease_seconds, self._on_lost, self._clock = end, lease_seconds, on_lost, clock
        self._expires_at = requested_at + leased.seconds
        self._stopped = threading.Event()
        self._on_cpu_fallback = False
        self._thread = threading.Thread(target=self._renew, name="gpu-lease", daemon=True)
        if not leased.allocation.on_cpu:  # without GPUs there is nothing to lose
            self._thread.start()

    @property
    def on_cpu(self) -> bool:
        return self.allocation.on_cpu or self._on_cpu_fallback

    @property
    def seconds_left(self) -> float:
        """For so long the GPUs are this job's for sure, if no renewal should succeed any more."""
        return max(0.0, self._expires_at - self._clock())

    def fall_back_to_cpu(self) -> None:
        """Training goes on without GPUs. They stay leased: what this process has on them, it has until it ends."""
        self._on_cpu_fallback, self.batch_scale = True, 1.0

    def check(self) -> None:
        """Raises LeaseLostError if the lease is lost."""
        if self.on_cpu:
            return
        if not self._stopped.is_set() and self._clock() >= self._expires_at:
            self._mark_lost("the lease could not be renewed in time")  # also where the renewing thread was held up
        if self.lost.is_set():
            raise LeaseLostError(f"{self.allocation.id}: {self.lost_reason}: stop, and allocate again")

    def pytorch(self, options: SetupOptions | None = None) -> PyTorchSettings:
        return pytorch_settings(self._effective_allocation, options)

    def tensorflow(self, options: SetupOptions | None = None) -> TensorFlowSettings:
        return tensorflow_settings(self._effective_allocation, options)

    def apply_pytorch(self, options: SetupOptions | None = None, node: str | None = None) -> AppliedPyTorch:
        """In this process, before `import torch` in it. Raises SetupError."""
        settings = self.pytorch(options)
        if self._on_cpu_fallback:  # the framework is there already, with the variables of the GPUs
            settings = replace(settings, nodes=(replace(settings.nodes[0], environment={}),))
        return apply_pytorch(settings, node)

    def apply_tensorflow(self, options: SetupOptions | None = None, node: str | None = None) -> AppliedTensorFlow:
        """In this process, before `import tensorflow` in it. Raises SetupError."""
        settings = self.tensorflow(options)
        if self._on_cpu_fallback:
            settings = replace(settings, nodes=(replace(settings.nodes[0], environment={}),))
        return apply_tensorflow(settings, node)

    def environment(self, options: SetupOptions | None = None, node: str | None = None) -> dict[str, str]:
        """Variables for processes that this one starts, as torchrun: `apply_pytorch()` in them finds the settings."""
        return child_environment(self.pytorch(options), node)

    def release(self) -> None:
        """Give the GPUs back. Never raises: what cannot be given back ends by itself, and a warning says when."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        try:
            self._end.release(self.allocation.id)
        except UnknownAllocationError:
            log.info("%s was over already", self.allocation.id)
        except AllocationError as error:
            log.warning(
                "%s is not given back (%s); it ends by itself in %.0f s", self.allocation.id, error, self.seconds_left
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
        """Early, and again and again while the service does not answer; over for good once the lease's time is."""
        while not self._stopped.wait(max(MIN_PAUSE_SECONDS, RENEW_RATIO * (self._expires_at - self._clock()))):
            requested_at = self._clock()
            if requested_at >= self._expires_at:
                return self._mark_lost("the lease could not be renewed in time")
            try:
                leased = self._end.renew(self.allocation.id, self._lease_seconds, self._expires_at - requested_at)
            except UnknownAllocationError as error:
                return self._mark_lost(str(error))
            except AllocationError as error:
                log.warning("%s: not renewed yet: %s", self.allocation.id, error)
                continue
            self._expires_at = requested_at + leased.seconds
            self.allocation = replace(self.allocation, expires=leased.allocation.expires)
            self.renewals += 1
        return None

    def _mark_lost(self, why: str) -> None:
        if self._stopped.is_set() or self.lost.is_set():
            return
        self.lost_reason = why
        self.lost.set()
        log.error("%s is lost: %s", self.allocation.id, why)
        if self._on_lost is not None:
            self._on_lost(why)
