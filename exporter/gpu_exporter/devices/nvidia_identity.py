"""Who an NVIDIA GPU is, also where the driver does not say so.

The driver's uuid is used if it has one that no other GPU of the machine has. Otherwise the machine and the PCI address,
or the index of a GPU without an address (Jetson), make one up: it must not occur on another machine as well.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from ctypes import byref, c_uint, create_string_buffer
from dataclasses import dataclass, replace
from typing import Any

from gpu_exporter.devices.inventory import DeviceInventory
from gpu_exporter.devices.nvidia_drivers import ADDRESSING_MODE
from gpu_exporter.devices.nvidia_families import family_of
from gpu_exporter.devices.nvml import DriverUnloaded, GpuLost, NvmlSession, NvmlValueError, decode_text
from gpu_exporter.snapshot import AbsenceReason, DeviceIdentity

VENDOR = "nvidia"

_ADDRESSING_MODE_V1, _ADDRESSING_MODE_ATS = 0x01000008, 2

_PCI_INFO = struct.Struct("=16s5I32s")  # nvmlPciInfo_t: legacy address, five numbers, address
_PCI_ADDRESS = re.compile(r"[0-9A-F]{4,8}:[0-9A-F]{2}:[0-9A-F]{2}\.[0-7]")
_UUID = re.compile(r"(GPU|MIG)-[0-9A-Za-z./-]+")
_NOT_AVAILABLE = frozenset({"", "N/A", "[N/A]", "Unknown", "Not Supported"})


@dataclass(frozen=True, slots=True)
class GpuProbe:
    """What the driver says about the identity of one GPU; empty if it does not.

    `coherent`: the GPU addresses the memory of the CPU as its own. `complete` is False if it may say more later.
    """

    handle: Any
    index: int
    uuid: str
    name: str
    pci_bus_id: str
    coherent: bool
    complete: bool


def probe_gpu(nvml: NvmlSession, index: int) -> GpuProbe:
    """Open one GPU and ask for its identity. Raises GpuLost, NvmlValueError or DriverUnloaded.

    It is an error if neither the uuid nor the place of the GPU can be read: then it is unknown which one it is.
    """
    handle = nvml.call("nvmlDeviceGetHandleByIndex", index)
    if not handle:
        raise NvmlValueError(AbsenceReason.ERROR, f"NVML has no handle for GPU {index}")
    uuid, uuid_error = _attempt(read_uuid, nvml, handle)
    address, address_error = _attempt(_read_pci_address, nvml, handle)
    name, name_error = _attempt(lambda nvml, handle: nvml.text("nvmlDeviceGetName", handle), nvml, handle)
    if not uuid and address_error:
        if isinstance(address_error, NvmlValueError):  # not its code: an invalid argument here is not an invalid index
            raise NvmlValueError(address_error.reason, f"GPU {index} has neither uuid nor address: {address_error}")
        raise address_error
    complete = bool(uuid) and not (uuid_error or address_error or name_error)
    return GpuProbe(handle, index, uuid, name, address, _is_coherent(nvml, handle), complete)


def _is_coherent(nvml: NvmlSession, handle: Any) -> bool:
    """Whether the GPU shares the CPU's page tables (ATS), as those of Grace do. Known since driver 580."""
    mode = (c_uint * 2)(_ADDRESSING_MODE_V1, 0)  # nvmlDeviceAddressingMode_v1_t
    return nvml.function(ADDRESSING_MODE)(handle, byref(mode)) == 0 and mode[1] == _ADDRESSING_MODE_ATS


_Error = NvmlValueError | GpuLost | DriverUnloaded


def _attempt(read: Callable[[NvmlSession, Any], str], nvml: NvmlSession, handle: Any) -> tuple[str, _Error | None]:
    """A text, and why it is missing unless the driver does not support it."""
    try:
        return read(nvml, handle), None
    except (NvmlValueError, GpuLost, DriverUnloaded) as error:
        unsupported = isinstance(error, NvmlValueError) and error.reason is AbsenceReason.UNSUPPORTED
        return "", None if unsupported else error


def read_uuid(nvml: NvmlSession, handle: Any) -> str:
    """The driver's uuid; empty if it is a placeholder, which other machines have as well.

    Raises GpuLost, NvmlValueError or DriverUnloaded; also if the text is no uuid.
    """
    uuid = nvml.text("nvmlDeviceGetUUID", handle)
    if uuid in _NOT_AVAILABLE or set(uuid.removeprefix("GPU-")) <= {"0", "-"}:
        return ""
    if not _UUID.fullmatch(uuid):
        raise NvmlValueError(AbsenceReason.ERROR, f"no uuid: {uuid}")
    return uuid


def _read_pci_address(nvml: NvmlSession, handle: Any) -> str:
    """The PCI address, such as `00000000:1B:00.0`; empty if there is none, as on Jetson.

    Raises GpuLost, NvmlValueError or DriverUnloaded; also if the text is no address.
    """
    info = create_string_buffer(2 * _PCI_INFO.size)
    code = nvml.function("nvmlDeviceGetPciInfo_v3")(handle, byref(info))
    nvml.check(code, "nvmlDeviceGetPciInfo_v3")
    address = decode_text(_PCI_INFO.unpack_from(info)[-1].partition(b"\0")[0])
    if address in _NOT_AVAILABLE:
        return ""
    if not _PCI_ADDRESS.fullmatch(address.upper()):
        raise NvmlValueError(AbsenceReason.ERROR, f"no PCI address: {address}")
    return address.upper()


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
        unified = "true" if probe.coherent else family_of(found.name).memory.unified
        identities.append(replace(found, unified=unified))
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
