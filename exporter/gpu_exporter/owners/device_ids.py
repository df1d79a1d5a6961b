"""Device ids of Kubernetes device plugins -> GPU uuid.

    NVIDIA  GPU-<uuid>, MIG-<uuid>; with ::<n> for a replica (time slicing, MPS); nvidia<index>[/vgpu<n>] on GKE
    AMD     the PCI address
    Intel   <DRM card>-<n>, where n is the share, as in card0-0; or the PCI address

Other ids cannot be resolved: a MIG instance on GKE (nvidia0/gi1), an AMD partition (amdgpu_xcp_3).
Sources: the plugins' documentation (NVIDIA/k8s-device-plugin, ROCm/k8s-device-plugin,
intel/intel-device-plugins-for-kubernetes).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from gpu_exporter.snapshot import DeviceIdentity

_PCI_ADDRESS = re.compile(r"(?:(?P<domain>[0-9a-f]{4,8}):)?(?P<rest>[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])")
_GKE_DEVICE = re.compile(r"nvidia(?P<index>\d+)(?:/vgpu\d+)?")
_DRM_DEVICE = re.compile(r"(?P<card>card\d+|renderD\d+)(?:-\d+)?")
_SHARE_SUFFIX = re.compile(r"::\d+$")
#: Names of GPU resources, whose unresolved ids are counted.
_GPU_RESOURCE = re.compile(r"^(nvidia\.com|amd\.com|gpu\.intel\.com)/|gpu|mig-")


class DeviceIdResolver:
    """The present GPUs, by all ids that a device plugin may use."""

    def __init__(self, identities: Iterable[DeviceIdentity], sysfs: Path) -> None:
        self._sysfs = sysfs
        self._uuids: dict[str, str] = {}
        for identity in identities:
            self._uuids[identity.uuid] = identity.uuid
            if identity.parent_uuid:
                continue  # a MIG instance has its parent's address
            if identity.pci_bus_id:
                self._uuids[_normalize_pci_address(identity.pci_bus_id)] = identity.uuid
            if identity.vendor.lower() == "nvidia":
                self._uuids[f"nvidia{identity.index}"] = identity.uuid

    def resolve(self, device_id: str) -> str:
        """The GPU's uuid; empty if the id matches no known GPU."""
        device_id = _SHARE_SUFFIX.sub("", device_id)
        if found := self._uuids.get(device_id) or self._uuids.get(_normalize_pci_address(device_id)):
            return found
        if match := _GKE_DEVICE.fullmatch(device_id):
            return self._uuids.get(f"nvidia{match['index']}", "")
        if match := _DRM_DEVICE.fullmatch(device_id):
            return self._uuids.get(_normalize_pci_address(self._card_address(match["card"])), "")
        return ""

    def _card_address(self, card: str) -> str:
        try:
            return os.path.basename(os.readlink(self._sysfs / "class/drm" / card / "device"))
        except OSError:
            return ""


def is_gpu_resource(resource: str) -> bool:
    """Whether a resource of this name is a GPU resource of one of the vendors."""
    return bool(_GPU_RESOURCE.search(resource))


def _normalize_pci_address(text: str) -> str:
    """A PCI address in one spelling: the domain has eight digits in NVML, four in sysfs, none in some tools."""
    match = _PCI_ADDRESS.fullmatch(text.lower())
    return f"{int(match['domain'] or '0', 16):04x}:{match['rest']}" if match else text
