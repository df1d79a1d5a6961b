"""Device allocations of containers, from the kubelet's pod-resources API.

The response has names of pods and containers, and device ids, but no pod uids or container ids: pod_names.py joins it
with those from cgroup paths. Definition: k8s.io/kubelet, pkg/apis/podresources/v1/api.proto.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gpu_exporter.owners import grpc

log = logging.getLogger(__name__)

SOCKET_PATH = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
LIST_METHOD = "/v1.PodResourcesLister/List"
#: For one refresh, including the connection.
CALL_TIMEOUT_SECONDS = 4.0
#: How long the last good response is used: longer than a restart of the kubelet, but not long after a pod has ended.
MAX_STALE_SECONDS = 120.0
#: Retry interval while the socket does not exist.
ABSENT_RETRY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class DeviceAllocation:
    """A device allocated to a container. `resource` is its resource name, such as nvidia.com/gpu or amd.com/gpu.

    `aliases`: other names of the device. With dynamic resource allocation, `device_id` is its CDI name, and POOL/DEVICE
    an alias.
    """

    namespace: str
    pod: str
    container: str
    resource: str
    device_id: str
    aliases: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class PodResourcesStatus:
    """Allocations, None if unknown. `state` is ok, stale, absent, no_permission or failed."""

    state: str
    allocations: frozenset[DeviceAllocation] | None = None


class PodResourcesClient:
    """Queries the kubelet on `refresh`, and keeps the last response."""

    def __init__(self, socket: Path = SOCKET_PATH, clock: Callable[[], float] = time.monotonic) -> None:
        self._socket = str(socket)
        self._clock = clock
        self._state = "absent"
        self._allocations: frozenset[DeviceAllocation] | None = None
        self._answered_at = 0.0

    def refresh(self) -> float | None:
        """Query once, within CALL_TIMEOUT_SECONDS. May return seconds to wait instead of the usual interval.

        Raises OSError, GrpcError or ValueError if the socket exists and the query fails.
        """
        try:
            allocations = parse_allocations(grpc.unary_call(self._socket, LIST_METHOD, b"", CALL_TIMEOUT_SECONDS))
        except FileNotFoundError:
            self._state = "absent"
            return ABSENT_RETRY_SECONDS
        except PermissionError:
            self._state = "no_permission"
            raise
        except (OSError, grpc.GrpcError, ValueError):
            self._state = "failed"
            raise
        self._allocations, self._answered_at, self._state = allocations, self._clock(), "ok"
        return None

    def current(self) -> PodResourcesStatus:
        """The last response, without waiting. It becomes stale if a refresh fails, and expires."""
        state, allocations = self._state, self._allocations
        if allocations is None:
            return PodResourcesStatus(state)
        age = self._clock() - self._answered_at
        if age > MAX_STALE_SECONDS:
            return PodResourcesStatus("failed" if state == "ok" else state)
        return PodResourcesStatus("ok" if state == "ok" else "stale", allocations)


def parse_allocations(message: bytes) -> frozenset[DeviceAllocation]:
    """Parse an encoded ListPodResourcesResponse. Raises ValueError if it is malformed."""
    found: set[DeviceAllocation] = set()
    for pod in _fields_numbered(message, 1):
        name, namespace = _strings(pod, 1), _strings(pod, 2)
        for container in _fields_numbered(pod, 3):
            owner = (_last_or_empty(namespace), _last_or_empty(name), _last_or_empty(_strings(container, 1)))
            for devices in _fields_numbered(container, 2):
                resource = _last_or_empty(_strings(devices, 1))
                found.update(DeviceAllocation(*owner, resource, device) for device in _strings(devices, 2))
            for claim in (part for dynamic in _fields_numbered(container, 5) for part in _fields_numbered(dynamic, 4)):
                found.update(DeviceAllocation(*owner, *device) for device in _claim_devices(claim))
    return frozenset(found)


def _claim_devices(claim: bytes) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(resource, device, aliases) of a ClaimResource: CDI names (vendor/class=device), and since Kubernetes 1.34 the
    driver's names of pool and device. Which of them contains the uuid or the index depends on the driver."""
    driver, pool, device = (_last_or_empty(_strings(claim, number)) for number in (2, 3, 4))
    names = (f"{pool}/{device}" if pool else device,) if device else ()
    cdi = [text.partition("=") for part in _fields_numbered(claim, 1) for text in _strings(part, 1)]
    yield from ((kind, name, names) for kind, _, name in cdi)
    if names and not cdi:
        yield driver, names[0], ()


def _fields_numbered(message: bytes, field_number: int) -> list[bytes]:
    return [value for number, value in _fields(message) if number == field_number]


def _strings(message: bytes, field_number: int) -> list[str]:
    return [value.decode("utf-8") for value in _fields_numbered(message, field_number)]


def _last_or_empty(texts: list[str]) -> str:
    """The value of a singular field: the last occurrence, empty if there is none."""
    return texts[-1] if texts else ""


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, content) of each length-delimited field (strings, messages); skips others."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        kind = tag & 7
        if kind == 0:
            _, at = _read_varint(message, at)
            continue
        if kind == 2:
            length, at = _read_varint(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"unknown wire type {kind}")
        if at + length > len(message):
            raise ValueError("message is truncated")
        if kind == 2:
            yield tag >> 3, message[at : at + length]
        at += length


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("message is truncated")
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise ValueError("varint is too long")
