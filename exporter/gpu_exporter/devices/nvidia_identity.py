"""Who an NVIDIA GPU is, also where the driver does not say so.

The driver's uuid is used if it has one that no other GPU of the machine has. Otherwise the machine and the PCI address,
or the index of a GPU without an address (Jetson), make one up: it must not occur on another machine as well.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from ctypes import byref, create_string_buffer
from dataclasses import dataclass, replace
from typing import Any

from gpu_exporter.devices.inventory import DeviceInventory
from gpu_exporter.devices.nvidia_families import family_of
from gpu_exporter.devices.nvml import DriverUnloaded, GpuLost, NvmlSession, NvmlValueError, decode_text
from gpu_exporter.snapshot import AbsenceReason, DeviceIdentity

VENDOR = "nvidia"

_PCI_INFO = struct.Struct("=16s5I32s")  # nvmlPciInfo_t: legacy address, five numbers, address
_PCI_ADDRESS = re.compile(r"[0-9A-F]{4,8}:[0-9A-F]{2}:[0-9A-F]{2}\.[0-7]")
_NO_UUIDS = frozenset({"", "n/a", "unknown", "not supported"})


@dataclass(frozen=True, slots=True)
class GpuProbe:
    """What the driver says about the identity of one GPU; empty if it does not.

    `complete` is False if a call failed that may succeed later.
    """

    handle: Any
    index: int
    uuid: str
    name: str
    pci_bus_id: str
    complete: bool


def probe_gpu(nvml: NvmlSession, index: int) -> GpuProbe:
    """Open one GPU and ask for its identity. Raises GpuLost, NvmlValueError or DriverUnloaded.

    It is an error if neither the uuid nor the place of the GPU is known: which one it is cannot be told then.
    """
    handle = nvml.call("nvmlDeviceGetHandleByIndex", index)
    if not handle:
        raise NvmlValueError(AbsenceReason.ERROR, f"NVML has no handle for GPU {index}")
    texts: list[str] = []
    errors: list[Exception] = []
    for read in (_uuid, _pci_address, lambda nvml, handle: nvml.text("nvmlDeviceGetName", handle)):
        try:
            texts.append(read(nvml, handle))
        except (NvmlValueError, GpuLost, DriverUnloaded) as error:
            texts.append("")
            errors.append(error)
    uuid, address, name = texts
    transient = [error for error in errors if not _is_unsupported(error)]
    if transient and not uuid and not address:
        raise transient[0]
    return GpuProbe(handle, index, uuid, name, address, complete=not transient)


def _is_unsupported(error: Exception) -> bool:
    return isinstance(error, NvmlValueError) and error.reason is AbsenceReason.UNSUPPORTED


def _uuid(nvml: NvmlSession, handle: Any) -> str:
    """The driver's uuid; empty if it is a placeholder, which other machines have as well."""
    uuid = nvml.text("nvmlDeviceGetUUID", handle)
    digits = re.sub(r"^GPU-|-", "", uuid).lower()
    return "" if digits in _NO_UUIDS or set(digits) in ({"0"}, {"f"}) else uuid


def _pci_address(nvml: NvmlSession, handle: Any) -> str:
    """The PCI address, such as `00000000:1B:00.0`; empty if it is none, as on Jetson."""
    info = create_string_buffer(2 * _PCI_INFO.size)
    code = nvml.function("nvmlDeviceGetPciInfo_v3")(handle, byref(info))
    nvml.check(code, "nvmlDeviceGetPciInfo_v3")
    address = decode_text(_PCI_INFO.unpack_from(info)[-1].partition(b"\0")[0]).upper()
    return address if _PCI_ADDRESS.fullmatch(address) else ""


def name_gpus(
    probes: Sequence[GpuProbe], known: DeviceInventory, machine: str, driver_version: str
) -> list[DeviceIdentity]:
    """The identities of all GPUs of a machine, in order. `machine` is unique to it.

    What the driver does not say now is taken from the known GPUs. Two GPUs with the same uuid both get another one:
    which of the two a series belongs to must not depend on which of them is read first.
    """
    uses = Counter(probe.uuid for probe in probes)
    identities = []
    for probe in probes:
        found = DeviceIdentity(probe.uuid, str(probe.index), probe.name, VENDOR, probe.pci_bus_id, driver_version)
        place = probe.pci_bus_id or found.index
        if not probe.uuid:
            former = known.at(found)
            found = replace(found, uuid=former.uuid if former else made_up_uuid(machine, place))
        elif uses[probe.uuid] > 1 or known.get(f"{probe.uuid}-{place}"):
            found = replace(found, uuid=f"{probe.uuid}-{place}")
        former = known.get(found.uuid)
        if former and not probe.complete:
            found = replace(found, name=found.name or former.name, pci_bus_id=found.pci_bus_id or former.pci_bus_id)
        identities.append(replace(found, unified=family_of(found.name).memory.unified))
    return _distinct(identities)


def made_up_uuid(machine: str, place: str) -> str:
    """A uuid for a GPU whose own is unknown."""
    return f"NVIDIA-{machine}-{place}"


def _distinct(identities: Iterable[DeviceIdentity]) -> list[DeviceIdentity]:
    """The same identities, with the index added to a uuid that still occurs twice: GPUs with one PCI address."""
    identities = list(identities)
    uses = Counter(identity.uuid for identity in identities)
    return [
        replace(identity, uuid=f"{identity.uuid}-{identity.index}") if uses[identity.uuid] > 1 else identity
        for identity in identities
    ]
