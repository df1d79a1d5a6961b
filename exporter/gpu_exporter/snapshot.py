"""Immutable readings of devices, with data and health separate.

A failed reading has no value. Health of a device or family is an explicit field, never inferred from a value.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from gpu_exporter import metrics
from gpu_exporter.metrics import FamilySamples, MetricFamily, group_by_family


class DownReason(str, Enum):
    """Why a GPU is down."""

    LOST = "lost"
    HUNG = "hung"
    DRIVER_GONE = "driver_gone"
    RELEASED = "released"
    NO_PERMISSION = "no_permission"
    """The exporter may not open this GPU, as where a device cgroup allows it only some of the node's. It may be up."""
    ERROR = "error"


class AbsenceReason(str, Enum):
    """Why a family has no value on a GPU that is up."""

    UNSUPPORTED = "unsupported"
    NO_PERMISSION = "no_permission"
    ERROR = "error"
    NOT_YET = "not_yet"
    """Needs two readings, or a complete window, and does not have them yet."""
    SHARED = "shared"
    """Shared with another device, which has the value: of the compute instances of one GPU instance, the first."""


class DriverState(str, Enum):
    """State of a GPU driver as a whole."""

    OK = "ok"
    ABSENT = "absent"
    NO_PERMISSION = "no_permission"
    FAILED = "failed"
    HUNG = "hung"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """Identity of a GPU, as in gpu_info. Fields that the vendor does not have are empty.

    `gpu_instance_id` is the driver's id of a MIG instance, `mig_placement` its first memory slice. `unified` is "true"
    if GPU and CPU share their memory.
    """

    uuid: str
    index: str
    name: str
    vendor: str
    pci_bus_id: str = ""
    driver_version: str = ""
    parent_uuid: str = ""
    mig_profile: str = ""
    gpu_instance_id: str = ""
    mig_placement: str = ""
    unified: str = ""


@dataclass(frozen=True, slots=True)
class MetricReading:
    """One value in the family's own unit; `labels` are the values of the family's labels after `uuid`."""

    family: MetricFamily
    value: float
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Absence:
    """A family without a value for this GPU, and the reason."""

    family: MetricFamily
    reason: AbsenceReason


class GpuProcess(NamedTuple):
    """A process with a context on a GPU: its pid in the host's namespace, and the GPU memory that it uses.

    `used_bytes` is None if the driver does not report memory per process.
    """

    pid: int
    used_bytes: int | None


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """One GPU at one time. `down` is None for a GPU that responded.

    `processes` are those that the driver lists now. In MIG mode they belong to the instance that they run on.
    """

    identity: DeviceIdentity
    readings: tuple[MetricReading, ...] = ()
    absences: tuple[Absence, ...] = ()
    down: DownReason | None = None
    processes: tuple[GpuProcess, ...] = ()

    def as_down(self, reason: DownReason) -> DeviceReading:
        """The same GPU without values, down for this reason."""
        return DeviceReading(self.identity, down=reason)


def device_samples(devices: Iterable[DeviceReading], nodename: str) -> list[FamilySamples]:
    """The metric families of these GPUs, ready to be rendered."""
    rows: list[tuple[MetricFamily, tuple[str, ...], float]] = []
    for device in devices:
        uuid = device.identity.uuid
        rows.append((metrics.INFO, _info_labels(device.identity, nodename), 1))
        if device.down is not DownReason.NO_PERMISSION:  # whether such a GPU is up is unknown
            rows.append((metrics.UP, (uuid,), 0 if device.down else 1))
        if device.down:
            rows.append((metrics.DOWN_INFO, (uuid, device.down.value), 1))
        uuid_only = (uuid,)  # most families have no further labels
        rows += [(r.family, (uuid, *r.labels) if r.labels else uuid_only, r.value) for r in device.readings]
        rows += [(metrics.FAMILY_ABSENT_INFO, (uuid, a.family.name, a.reason.value), 1) for a in device.absences]
    return group_by_family(rows)


def _info_labels(identity: DeviceIdentity, nodename: str) -> tuple[str, ...]:
    return (
        identity.uuid, identity.index, identity.name, identity.vendor, identity.pci_bus_id, identity.driver_version,
        identity.parent_uuid, identity.mig_profile, identity.gpu_instance_id, identity.unified, nodename,
    )  # fmt: skip
