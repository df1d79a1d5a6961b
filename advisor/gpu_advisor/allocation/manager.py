"""GPUs for a training job, from Python: allocate, train, release.

    from gpu_advisor.allocation.manager import TrainingGPUConfig, gpu_resources

    with gpu_resources(TrainingGPUConfig(gpu_count=2, gpu_type="A100-80GB")) as gpus:
        gpus.apply_pytorch()      # before torch is imported
        train(gpus)

The manager uses a running advisor, or allocates in this process from an inventory file, with the same API.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from gpu_advisor.allocation.client.backends import (
    AllocationBackend,
    HttpBackend,
    LocalBackend,
    LoginRequiredError,
    ServiceUnavailableError,
)
from gpu_advisor.allocation.client.config import TrainingGPUConfig, candidate_bodies
from gpu_advisor.allocation.client.session import LeaseLostError, Session
from gpu_advisor.allocation.errors import (
    AllocationError,
    InsufficientCapacityError,
    TokenConflictError,
    UnsatisfiableRequestError,
)
from gpu_advisor.calibration.out_of_memory import MemoryFailure, memory_failure

__all__ = [
    "GPUResourceManager",
    "LeaseLostError",
    "LoginRequiredError",
    "ServiceUnavailableError",
    "Session",
    "TrainingGPUConfig",
    "allocate_gpu_resources",
    "cleanup_gpu_resources",
    "get_available_gpu_nodes",
    "get_gpu_monitoring_data",
    "get_gpu_resource_manager",
    "gpu_resources",
    "train_with_gpu_resources",
    "validate_gpu_requirements",
]

log = logging.getLogger(__name__)

DEFAULT_ADDRESS = "http://127.0.0.1:9817"
#: Exponential backoff while waiting for free GPUs.
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.5, 30.0
#: Attempts per request, with the same token, so that a lost response does not lease twice.
MAX_ATTEMPTS = 3

R = TypeVar("R")


class GPUResourceManager:
    """GPU leases of one backend. Methods raise subclasses of AllocationError."""

    def __init__(self, backend: AllocationBackend) -> None:
        self.backend = backend

    def validate(self, config: TrainingGPUConfig) -> dict[str, Any]:
        """Whether the request can be met at all (`valid`) and now (`available_now`), and why not. Changes nothing."""
        return self.backend.validate(config.fields())

    def nodes(self, gpu_type: str = "", min_memory_gb: float | None = None) -> list[dict[str, Any]]:
        """Nodes with free GPUs that match: see `get_available_gpu_nodes`."""
        return [each for each in self.backend.nodes(gpu_type, min_memory_gb) if each["available_gpus"]]

    def monitoring(self) -> dict[str, Any]:
        """Utilization and changes of the inventory, as GET /api/v1/gpu/monitoring."""
        return self.backend.monitoring()

    def allocate(self, config: TrainingGPUConfig, on_lost: Callable[[str], None] | None = None) -> Session:
        """Allocate GPUs; as the config allows, wait for them, accept GPUs with less memory, or fall back to the CPU.

        The session renews its lease until it is released. If the lease is lost, it calls `on_lost` in another thread.
        """
        token = config.client_token or uuid.uuid4().hex
        until = time.monotonic() + config.wait_seconds
        pause = MIN_RETRY_SECONDS
        while True:
            try:
                return self._allocate_first_available(config, token, on_lost)
            except InsufficientCapacityError as error:
                left = until - time.monotonic()
                if left <= 0:
                    return self._fall_back_to_cpu(config, token, on_lost, error)
                log.info("waiting for GPUs, %.0f s more: %s", left, error)
                time.sleep(min(pause, left))
                pause = min(2 * pause, MAX_RETRY_SECONDS)
            except (UnsatisfiableRequestError, TokenConflictError) as error:
                return self._fall_back_to_cpu(config, token, on_lost, error)

    def close(self) -> None:
        """Close the backend. Sessions that are not released keep their GPUs until their leases expire."""
        self.backend.close()

    def _allocate_first_available(
        self, config: TrainingGPUConfig, token: str, on_lost: Callable[[str], None] | None
    ) -> Session:
        """Raises TokenConflictError if the token was used for another request, else the first InsufficientCapacityError
        (waiting can help), else the first UnsatisfiableRequestError.

        All candidates share one token: if an earlier call with it got less memory, only that request matches.
        """
        sizes = [each["memory_per_gpu"] for each in self.backend.nodes("", None)] if config.min_memory_gb else []
        refused: list[TokenConflictError | InsufficientCapacityError | UnsatisfiableRequestError] = []
        for body in candidate_bodies(config, sizes):
            try:
                session = self._request_allocation(body, token, config, on_lost)
            except (TokenConflictError, InsufficientCapacityError, UnsatisfiableRequestError) as error:
                refused.append(error)
                continue
            if refused:
                log.warning("allocated GPUs with %g GB instead: %s", body["memory_gb"], refused[0])
            return session
        order = (TokenConflictError, InsufficientCapacityError, UnsatisfiableRequestError)
        raise next(each for kind in order for each in refused if isinstance(each, kind))

    def _fall_back_to_cpu(
        self, config: TrainingGPUConfig, token: str, on_lost: Callable[[str], None] | None, why: AllocationError
    ) -> Session:
        if not config.cpu_fallback:
            raise why
        log.warning("no GPU is available, falling back to the CPU (cpu_fallback): %s", why)
        return self._request_allocation({**config.fields(), "cpu_fallback": True}, token, config, on_lost)

    def _request_allocation(
        self, body: dict[str, Any], token: str, config: TrainingGPUConfig, on_lost: Callable[[str], None] | None
    ) -> Session:
        for left in reversed(range(MAX_ATTEMPTS)):
            requested_at = time.monotonic()
            try:
                lease = self.backend.allocate(body, token, config.lease_seconds)
            except ServiceUnavailableError:
                if not left:
                    raise
                time.sleep(MIN_RETRY_SECONDS)
                continue
            return Session(self.backend, lease, requested_at, config.lease_seconds, on_lost)
        raise AssertionError("unreachable: the last failure is raised")


def get_gpu_resource_manager(
    address: str | None = None,
    *,
    token: str | None = None,
    ca_file: str | None = None,
    inventory_file: str | Path | None = None,
    database: str | Path | None = None,
) -> GPUResourceManager:
    """A manager for the advisor at `address`, else at $GPU_ADVISOR_URL, else on this machine. Its bearer token is
    `token`, or the contents of the file at $GPU_ADVISOR_TOKEN_FILE. With `inventory_file` and `database`, it allocates
    in this process.

    Raises AllocationError, or ConfigError for an invalid file.
    """
    if (inventory_file is None) != (database is None):
        raise AllocationError("set both inventory_file and database to allocate without a service")
    if inventory_file is not None and database is not None:
        return GPUResourceManager(LocalBackend(Path(inventory_file), Path(database)))
    if token is None and (path := os.environ.get("GPU_ADVISOR_TOKEN_FILE")):
        try:
            token = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise LoginRequiredError(f"GPU_ADVISOR_TOKEN_FILE: {error}; give the path of a readable file") from error
    return GPUResourceManager(
        HttpBackend(address or os.environ.get("GPU_ADVISOR_URL") or DEFAULT_ADDRESS, token or "", ca_file)
    )


def validate_gpu_requirements(config: TrainingGPUConfig, manager: GPUResourceManager | None = None) -> dict[str, Any]:
    """See GPUResourceManager.validate. Here and below, `manager` defaults to `get_gpu_resource_manager()`."""
    return (manager or get_gpu_resource_manager()).validate(config)


def allocate_gpu_resources(config: TrainingGPUConfig, manager: GPUResourceManager | None = None) -> Session:
    """Allocate; release with `cleanup_gpu_resources`. `with gpu_resources(...)` does both."""
    return (manager or get_gpu_resource_manager()).allocate(config)


def cleanup_gpu_resources(session: Session) -> None:
    """Release the GPUs: see Session.release."""
    session.release()


def get_available_gpu_nodes(
    gpu_type: str = "", min_memory_gb: float | None = None, manager: GPUResourceManager | None = None
) -> list[dict[str, Any]]:
    """Rows with node_name, gpu_type, available_gpus, memory_per_gpu (GB), utilization (0..1) and more."""
    return (manager or get_gpu_resource_manager()).nodes(gpu_type, min_memory_gb)


def get_gpu_monitoring_data(manager: GPUResourceManager | None = None) -> dict[str, Any]:
    """See GPUResourceManager.monitoring."""
    return (manager or get_gpu_resource_manager()).monitoring()


@contextmanager
def gpu_resources(
    config: TrainingGPUConfig,
    manager: GPUResourceManager | None = None,
    on_lost: Callable[[str], None] | None = None,
) -> Iterator[Session]:
    """GPUs for the block, released at its end, also if it raises."""
    with (manager or get_gpu_resource_manager()).allocate(config, on_lost) as session:
        yield session


def train_with_gpu_resources(
    config: TrainingGPUConfig,
    train: Callable[[Session], R],
    manager: GPUResourceManager | None = None,
    tries: int = 3,
) -> R:
    """Call `train` with the session. If it runs out of memory, call it again with `batch_scale` halved, up to `tries`
    calls; then, if the config has cpu_fallback, once more on the CPU. Any other error is raised.

    `train` must start from the beginning or from its own checkpoint: nothing of a failed attempt is kept.
    """
    with (manager or get_gpu_resource_manager()).allocate(config) as session:
        for number in range(tries):
            try:
                return train(session)
            except Exception as error:
                last = number == tries - 1
                if not is_device_out_of_memory(error) or session.on_cpu or (last and not config.cpu_fallback):
                    raise
                log.warning("out of memory with a batch scale of %g: %s", session.batch_scale, error)
            # Not in the `except` block: the error's traceback still references the tensors there.
            _empty_cuda_cache()
            session.batch_scale /= 2
        log.warning("out of memory after %d attempts: falling back to the CPU (cpu_fallback)", tries)
        session.fall_back_to_cpu()
        return train(session)


def is_device_out_of_memory(error: BaseException) -> bool:
    """Whether it is an out-of-memory error of a device, from PyTorch or TensorFlow."""
    return memory_failure(error) is MemoryFailure.DEVICE


def _empty_cuda_cache() -> None:
    """So that the next attempt does not find the memory fragmented."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
