"""GPUs for a training job, from Python: ask, train, give back.

    from gpu_advisor.allocation.manager import TrainingGPUConfig, gpu_resources

    with gpu_resources(TrainingGPUConfig(gpu_count=2, gpu_type="A100-80GB")) as gpus:
        gpus.apply_pytorch()      # before torch is imported
        train(gpus)

The manager talks to a running advisor, or, with a file of machines, decides by itself; a job does not see which.
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
#: Between two looks for free GPUs; twice as long each time, up to the longest.
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.5, 30.0
#: An answer that was lost is asked for again so often, with the same token: nothing is leased twice.
MAX_ATTEMPTS = 3

R = TypeVar("R")


class GPUResourceManager:
    """Every method raises AllocationError, of the kind that fits."""

    def __init__(self, end: AllocationBackend) -> None:
        self.end = end

    def validate(self, config: TrainingGPUConfig) -> dict[str, Any]:
        """Whether the request can be met, at all (`valid`) and now (`available_now`), and why not. Changes nothing."""
        return self.end.validate(config.fields())

    def nodes(self, gpu_type: str = "", min_memory_gb: float | None = None) -> list[dict[str, Any]]:
        """Nodes on which such GPUs are free."""
        return [each for each in self.end.nodes(gpu_type, min_memory_gb) if each["available_gpus"]]

    def monitoring(self) -> dict[str, Any]:
        return self.end.monitoring()

    def allocate(self, config: TrainingGPUConfig, on_lost: Callable[[str], None] | None = None) -> Session:
        """What is asked for, or, as far as the config allows it, after waiting, GPUs with less memory, or the CPU.

        The session renews its lease by itself until it is released. `on_lost` is called, in another thread, if that
        fails for good.
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
        self.end.close()

    def _allocate_first_available(
        self, config: TrainingGPUConfig, token: str, on_lost: Callable[[str], None] | None
    ) -> Session:
        """Raises TokenConflictError where the token was used for something else, the first InsufficientCapacityError where waiting can
        help, else the first UnsatisfiableRequestError.

        One token for all: where a repeated call was given less memory before, that is the one request it fits.
        """
        sizes = [each["memory_per_gpu"] for each in self.end.nodes("", None)] if config.min_memory_gb else []
        refused: list[TokenConflictError | InsufficientCapacityError | UnsatisfiableRequestError] = []
        for body in candidate_bodies(config, sizes):
            try:
                session = self._request_allocation(body, token, config, on_lost)
            except (TokenConflictError, InsufficientCapacityError, UnsatisfiableRequestError) as error:
                refused.append(error)
                continue
            if refused:
                log.warning("taken GPUs of %g GB instead: %s", body["memory_gb"], refused[0])
            return session
        order = (TokenConflictError, InsufficientCapacityError, UnsatisfiableRequestError)
        raise next(each for kind in order for each in refused if isinstance(each, kind))

    def _fall_back_to_cpu(
        self, config: TrainingGPUConfig, token: str, on_lost: Callable[[str], None] | None, why: AllocationError
    ) -> Session:
        if not config.cpu_fallback:
            raise why
        log.warning("no GPU can be had, going on without, as asked: %s", why)
        return self._request_allocation({**config.fields(), "cpu_fallback": True}, token, config, on_lost)

    def _request_allocation(
        self, body: dict[str, Any], token: str, config: TrainingGPUConfig, on_lost: Callable[[str], None] | None
    ) -> Session:
        for left in reversed(range(MAX_ATTEMPTS)):
            requested_at = time.monotonic()
            try:
                leased = self.end.allocate(body, token, config.lease_seconds)
            except ServiceUnavailableError:
                if not left:
                    raise
                time.sleep(MIN_RETRY_SECONDS)
                continue
            return Session(self.end, leased, requested_at, config.lease_seconds, on_lost)
        raise AssertionError("the last failure is raised")


def get_gpu_resource_manager(
    address: str | None = None,
    *,
    token: str | None = None,
    ca_file: str | None = None,
    inventory_file: str | Path | None = None,
    database: str | Path | None = None,
) -> GPUResourceManager:
    """Of the service at `address`, else at GPU_ADVISOR_URL, else on this machine; its bearer token is `token`, or what
    the file at GPU_ADVISOR_TOKEN_FILE has. With `inventory_file` and `database`, of this process alone.

    Raises AllocationError, or ConfigError for a file that cannot be used.
    """
    if (inventory_file is None) != (database is None):
        raise AllocationError("without a service both are needed: inventory_file and database")
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
    """See GPUResourceManager.validate; like all below, by the usual manager if none is given."""
    return (manager or get_gpu_resource_manager()).validate(config)


def allocate_gpu_resources(config: TrainingGPUConfig, manager: GPUResourceManager | None = None) -> Session:
    """To be given back with `cleanup_gpu_resources`; `with gpu_resources(...)` does both."""
    return (manager or get_gpu_resource_manager()).allocate(config)


def cleanup_gpu_resources(session: Session) -> None:
    session.release()


def get_available_gpu_nodes(
    gpu_type: str = "", min_memory_gb: float | None = None, manager: GPUResourceManager | None = None
) -> list[dict[str, Any]]:
    """Rows with node_name, gpu_type, available_gpus, memory_per_gpu (GB), utilization (0..1) and more."""
    return (manager or get_gpu_resource_manager()).nodes(gpu_type, min_memory_gb)


def get_gpu_monitoring_data(manager: GPUResourceManager | None = None) -> dict[str, Any]:
    return (manager or get_gpu_resource_manager()).monitoring()


@contextmanager
def gpu_resources(
    config: TrainingGPUConfig,
    manager: GPUResourceManager | None = None,
    on_lost: Callable[[str], None] | None = None,
) -> Iterator[Session]:
    """GPUs for the block, given back at its end, however it ends."""
    with (manager or get_gpu_resource_manager()).allocate(config, on_lost) as session:
        yield session


def train_with_gpu_resources(
    config: TrainingGPUConfig,
    train: Callable[[Session], R],
    manager: GPUResourceManager | None = None,
    tries: int = 3,
) -> R:
    """Calls `train` with the session. Where it runs out of memory it is called again, with `batch_scale` halved each
    time, `tries` times in all; then, if the config has cpu_fallback, once more on the CPU. Any other error is raised.

    It must begin anew, or from its own checkpoint: nothing of the failed attempt is kept.
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
            # Outside of `except`: the error holds the frames, and these the tensors.
            _empty_cuda_cache()
            session.batch_scale /= 2
        log.warning("out of memory whatever was tried: going on without GPUs, as asked")
        session.fall_back_to_cpu()
        return train(session)


def is_device_out_of_memory(error: BaseException) -> bool:
    """Of a device, as PyTorch or TensorFlow tells it."""
    if type(error).__name__ == "ResourceExhaustedError":
        return True
    if "torch" not in sys.modules:
        return False
    from gpu_advisor.training.memory.errors import is_out_of_memory

    return is_out_of_memory(error)


def _empty_cuda_cache() -> None:
    """So that the next attempt finds the memory in one piece."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
