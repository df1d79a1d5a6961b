"""What the kubelet has given to which container: its pod-resources socket, asked in the background.

The answer names pods, containers and device ids. It has no pod uid and no container id: podnames.py joins it with what
control groups tell. Definition: k8s.io/kubelet, pkg/apis/podresources/v1/api.proto.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gpu_exporter.owners import grpc

log = logging.getLogger(__name__)

SOCKET_PATH = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
LIST_METHOD = "/v1.PodResourcesLister/List"
#: One refresh, connecting included.
CALL_TIMEOUT_SECONDS = 4.0
#: The last good answer serves for so long: a kubelet restarts in less, and a pod that has gone should not stay.
MAX_STALE_SECONDS = 120.0
#: A socket that is not there is looked for again after this time.
ABSENT_RETRY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class DeviceAllocation:
    """A device that a container has. `resource` is what the pod asked for: nvidia.com/gpu, amd.com/gpu, ..."""

    namespace: str
    pod: str
    container: str
    resource: str
    device_id: str


@dataclass(frozen=True, slots=True)
class PodResourcesStatus:
    """What is known of the allocations: None if nothing. `state` is ok, stale, absent, no_permission or failed."""

    state: str
    allocations: frozenset[DeviceAllocation] | None = None


class PodResourcesClient:
    """Asks the kubelet when told to, and has the last answer at hand."""

    def __init__(self, socket: Path = SOCKET_PATH, clock: Callable[[], float] = time.monotonic) -> None:
        self._socket = str(socket)
        self._clock = clock
        self._state = "absent"
        self._allocations: frozenset[DeviceAllocation] | None = None
        self._answered_at = 0.0

    def refresh(self) -> float | None:
        """Ask once, within CALL_TIMEOUT_SECONDS; may return after how many seconds to ask again instead of the usual.

        Raises OSError or GrpcError if the kubelet is there and does not answer.
        """
        try:
            answer = allocations(grpc.unary_call(self._socket, LIST_METHOD, b"", CALL_TIMEOUT_SECONDS))
        except FileNotFoundError:
            self._state = "absent"
            return ABSENT_RETRY_SECONDS
        except PermissionError:
            self._state = "no_permission"
            raise
        except (OSError, grpc.GrpcError, ValueError):
            self._state = "failed"
            raise
        self._allocations, self._answered_at, self._state = answer, self._clock(), "ok"
        return None

    def current(self) -> PodResourcesStatus:
        """What is known now, without waiting. An answer that was not renewed in time is stale, then gone."""
        state, answer = self._state, self._allocations
        if answer is None:
            return PodResourcesStatus(state)
        age = self._clock() - self._answered_at
        if age > MAX_STALE_SECONDS:
            return PodResourcesStatus("failed" if state == "ok" else state)
        return PodResourcesStatus("ok" if state == "ok" else "stale", answer)


def allocations(message: bytes) -> frozenset[DeviceAllocation]:
    """The devices in an encoded ListPodResourcesResponse. Raises ValueError if it is not one."""
    found: set[DeviceAllocation] = set()
    for pod in _fields_numbered(message, 1):
        name, namespace = _strings(pod, 1), _strings(pod, 2)
        for container in _fields_numbered(pod, 3):
            owner = (_last_or_empty(namespace), _last_or_empty(name), _last_or_empty(_strings(container, 1)))
            for devices in _fields_numbered(container, 2):
                resource = _last_or_empty(_strings(devices, 1))
                found.update(DeviceAllocation(*owner, resource, device) for device in _strings(devices, 2))
            # Dynamic resource allocation: the claims' devices, by the names in the container device interface
            # (vendor/class=device), which hold the uuid or not as the vendor's driver likes.
            for claim in (part for dynamic in _fields_numbered(container, 5) for part in _fields_numbered(dynamic, 4)):
                for device in (text for cdi in _fields_numbered(claim, 1) for text in _strings(cdi, 1)):
                    kind, _, name_ = device.partition("=")
                    found.add(DeviceAllocation(*owner, kind, name_))
    return frozenset(found)


def _fields_numbered(message: bytes, field_number: int) -> list[bytes]:
    return [value for number, value in _fields(message) if number == field_number]


def _strings(message: bytes, field_number: int) -> list[str]:
    return [value.decode("utf-8") for value in _fields_numbered(message, field_number)]


def _last_or_empty(texts: list[str]) -> str:
    """A field that may come once counts by its last coming, and is empty where it never comes."""
    return texts[-1] if texts else ""


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The number and content of each field with a length: texts, messages. Numbers are passed over."""
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
            raise ValueError(f"field of unknown kind {kind}")
        if at + length > len(message):
            raise ValueError("a message is cut short")
        if kind == 2:
            yield tag >> 3, message[at : at + length]
        at += length


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("a message is cut short")
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise ValueError("a number is too long")
