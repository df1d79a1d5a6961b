"""The resource manager by node names: `gpu_advisor.allocation.manager` has sessions, whose leases a job can check."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from gpu_advisor.allocation import manager as allocation_manager
from gpu_advisor.allocation.client import config as allocation_config
from gpu_advisor.allocation.client.session import Session
from gpu_advisor.allocation.errors import InsufficientCapacityError, InvalidRequestError, UnsatisfiableRequestError
from gpu_advisor.allocation.gpu_request import DEFAULT_MEMORY_FRACTION

R = TypeVar("R")

#: The logger that the users' guides configure.
log = logging.getLogger("gpu_resource_manager")


@dataclass(slots=True)
class TrainingGPUConfig:
    """Like `gpu_advisor.allocation.manager.TrainingGPUConfig`, and can be changed. It is checked when it is used."""

    gpu_count: int = 1
    gpu_type: str = ""
    memory_gb: float | None = None
    distributed_training: bool = False
    mixed_precision: bool = False
    gpu_memory_fraction: float = DEFAULT_MEMORY_FRACTION
    cpu_fallback: bool = False
    min_memory_gb: float | None = None
    wait_seconds: float = 0.0
    lease_seconds: float | None = None
    client_token: str | None = None

    def request(self) -> allocation_config.TrainingGPUConfig:
        """Raises InvalidRequestError."""
        return allocation_config.TrainingGPUConfig(**{each.name: getattr(self, each.name) for each in fields(self)})


@dataclass(frozen=True, slots=True)
class GPUNode(Mapping[str, Any]):
    """A node's free GPUs of one type, by attribute or key. `utilization`: 0 to 1, NaN if unknown; memory in GB."""

    node_name: str
    gpu_type: str
    available_gpus: int
    memory_per_gpu: float | None
    utilization: float

    def __getitem__(self, key: str) -> Any:
        if key not in set(self):
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return (each.name for each in fields(self))

    def __len__(self) -> int:
        return len(fields(self))


class AllocatedNode(str):
    """The name of a node with leased GPUs, with the attributes of its `session`, as `pytorch()` and `check()`."""

    session: Session

    def __new__(cls, session: Session) -> AllocatedNode:
        node = super().__new__(cls, session.allocation.node_names[0])
        node.session = session
        return node

    def __getattr__(self, name: str) -> Any:
        if name == "session":
            raise AttributeError(name)
        return getattr(self.session, name)


class GPUResourceManager:
    """Leases GPUs by node name. A lease is renewed until `cleanup_gpu_resources`, or until this process exits."""

    def __init__(self, manager: allocation_manager.GPUResourceManager) -> None:
        self.manager = manager
        self._sessions: dict[str, list[Session]] = {}

    def validate_gpu_requirements(self, config: TrainingGPUConfig) -> bool:
        """Whether these GPUs exist, free or not; the log has the reason if not."""
        try:
            found = self.manager.validate(config.request())
        except InvalidRequestError as error:
            log.warning("invalid request: %s", error)
            return False
        if not found["valid"]:
            log.warning("GPU requirements cannot be met: %s", found["message"])
        return bool(found["valid"])

    def allocate_gpu_resources(self, config: TrainingGPUConfig) -> AllocatedNode | None:
        """The name of the (first) node, or None if no GPU is available. Raises AllocationError if that is unknown."""
        session = self.allocate_session(config)
        if session is None:
            return None
        node = AllocatedNode(session)
        self._sessions.setdefault(node, []).append(session)
        return node

    def allocate_session(self, config: TrainingGPUConfig) -> Session | None:
        """The session itself, which the caller releases."""
        try:
            session = self.manager.allocate(config.request())
        except (InsufficientCapacityError, UnsatisfiableRequestError) as error:
            log.warning("no GPUs allocated: %s", error)
            return None
        if session.on_cpu:
            session.release()
            return None
        return session

    def cleanup_gpu_resources(self, node: str | None, gpu_count: int | None = None) -> None:
        """Release the latest allocation on a node, of `gpu_count` GPUs if given. None and unknown nodes are ignored."""
        sessions = self._sessions.get(node or "", [])
        own = node.session if isinstance(node, AllocatedNode) else None
        fitting = [each for each in sessions if own in (None, each) and gpu_count in (None, each.allocation.gpu_count)]
        if fitting:
            sessions.remove(fitting[-1])
            fitting[-1].release()

    def get_available_gpu_nodes(self, gpu_type: str = "", min_memory_gb: float | None = None) -> list[GPUNode]:
        """Nodes with free GPUs of this type ("" for any) and of at least this memory."""
        rows = self.manager.nodes(gpu_type, min_memory_gb)
        return [
            GPUNode(
                row["node_name"], row["gpu_type"], row["available_gpus"], row["memory_per_gpu"],
                _known(row["utilization"]),
            )
            for row in rows
        ]  # fmt: skip

    def get_gpu_monitoring_data(self) -> dict[str, Any]:
        """As GET /api/v1/gpu/monitoring, with NaN for a utilization that is unknown."""
        found = self.manager.monitoring()
        return {**found, "utilization": {name: _known(value) for name, value in found["utilization"].items()}}

    def close(self) -> None:
        """Release all GPUs, and close the manager."""
        for sessions in self._sessions.values():
            for session in sessions:
                session.release()
        self._sessions.clear()
        self.manager.close()


def _known(ratio: float | None) -> float:
    """NaN can be formatted as a number, and is none."""
    return math.nan if ratio is None else ratio


def get_gpu_resource_manager(
    address: str | None = None,
    *,
    token: str | None = None,
    ca_file: str | None = None,
    inventory_file: str | Path | None = None,
    database: str | Path | None = None,
) -> GPUResourceManager:
    """See `gpu_advisor.allocation.manager.get_gpu_resource_manager`."""
    return GPUResourceManager(
        allocation_manager.get_gpu_resource_manager(
            address, token=token, ca_file=ca_file, inventory_file=inventory_file, database=database
        )
    )


#: Of the functions below, so that one of them releases what another allocated.
_default_manager: list[GPUResourceManager] = []


def _manager(manager: GPUResourceManager | None) -> GPUResourceManager:
    if manager is not None:
        return manager
    if not _default_manager:
        _default_manager.append(get_gpu_resource_manager())
    return _default_manager[0]


def validate_gpu_requirements(config: TrainingGPUConfig, manager: GPUResourceManager | None = None) -> bool:
    """See GPUResourceManager. Here and below, `manager` defaults to one for this process."""
    return _manager(manager).validate_gpu_requirements(config)


def allocate_gpu_resources(
    config: TrainingGPUConfig, manager: GPUResourceManager | None = None
) -> AllocatedNode | None:
    """See GPUResourceManager: the node, or None if no GPU is available."""
    return _manager(manager).allocate_gpu_resources(config)


def cleanup_gpu_resources(
    node: str | None, gpu_count: int | None = None, manager: GPUResourceManager | None = None
) -> None:
    """See GPUResourceManager: release the latest allocation on the node."""
    _manager(manager).cleanup_gpu_resources(node, gpu_count)


def get_available_gpu_nodes(
    gpu_type: str = "", min_memory_gb: float | None = None, manager: GPUResourceManager | None = None
) -> list[GPUNode]:
    """See GPUResourceManager: nodes with free GPUs."""
    return _manager(manager).get_available_gpu_nodes(gpu_type, min_memory_gb)


def get_gpu_monitoring_data(manager: GPUResourceManager | None = None) -> dict[str, Any]:
    """See GPUResourceManager: as GET /api/v1/gpu/monitoring."""
    return _manager(manager).get_gpu_monitoring_data()


@contextmanager
def gpu_resources(
    config: TrainingGPUConfig, manager: GPUResourceManager | None = None, on_lost: Callable[[str], None] | None = None
) -> Iterator[Session]:
    """See `gpu_advisor.allocation.manager.gpu_resources`: the session, or AllocationError."""
    with allocation_manager.gpu_resources(config.request(), _manager(manager).manager, on_lost) as session:
        yield session


def train_with_gpu_resources(
    config: TrainingGPUConfig, train: Callable[[Session], R], manager: GPUResourceManager | None = None, tries: int = 3
) -> R:
    """See `gpu_advisor.allocation.manager.train_with_gpu_resources`."""
    return allocation_manager.train_with_gpu_resources(config.request(), train, _manager(manager).manager, tries)
