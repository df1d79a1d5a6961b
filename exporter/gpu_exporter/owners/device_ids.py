"""Ids of GPUs in Kubernetes and Slurm -> GPU uuid.

Device plugins:

    NVIDIA  GPU-<uuid>, MIG-<uuid>; with ::<n> for a replica (time slicing, MPS); -_-<n> or -<n> for a share
    GKE     nvidia<minor>, nvidia<minor>/gi<GPU instance>; with /vgpu<n> for a share
    AMD     the PCI address, which is also that of the first partition; amdgpu_xcp_<n> for the others
    Intel   <DRM card>-<n>, where n is the share, as in card0-0; or the PCI address

Drivers of dynamic resource allocation (DRA), as <pool>/<device>, <device>, or in a CDI name <claim uid>-<device>:

    NVIDIA  gpu-<minor>, gpu-<minor>-mig-<profile without dot>-[<profile id>-]<placement>
    AMD     gpu-<card>-<render node>
    Intel   the PCI address with - for : and ., then the PCI id, as in 0000-03-00-0-0x56c0

Device files, by base name, as in gres.conf: nvidia<minor>, nvidia-cap<n>, card<n>, renderD<n>.

Where NVML does not show the placement of MIG instances, one is only resolved if it is the GPU's only one of its
profile.
Sources: the documentation and code of these projects (NVIDIA/k8s-device-plugin, ROCm/k8s-device-plugin,
intel/intel-device-plugins-for-kubernetes, GoogleCloudPlatform/container-engine-accelerators,
kubernetes-sigs/dra-driver-nvidia-gpu, ROCm/k8s-gpu-dra-driver, intel/intel-resource-drivers-for-kubernetes).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from gpu_exporter.owners.kfd_partitions import KfdPartitions
from gpu_exporter.snapshot import DeviceIdentity

_PCI_ADDRESS = re.compile(r"(?:(?P<domain>[0-9a-f]{4,8}):)?(?P<rest>[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])")
_INTEL_DRA = re.compile(
    r"(?P<domain>[0-9a-f]{4})-(?P<bus>[0-9a-f]{2})-(?P<slot>[0-9a-f]{2})-(?P<function>[0-7])-0x[0-9a-f]+"
)
_GKE_DEVICE = re.compile(r"nvidia(?P<minor>\d+)(?:/gi(?P<instance>\d+))?(?:/vgpu\d+)?")
_DRM_DEVICE = re.compile(r"(?P<card>card\d+|renderD\d+)(?:-\d+)?")
_DRA_GPU = re.compile(r"gpu-(?P<minor>\d+)")
_DRA_MIG = re.compile(
    r"gpu-(?P<minor>\d+)-mig-(?P<profile>(?:\d+c\.?)?\d+g\.?\d+gb[a-z0-9]*(?:[-+.][a-z][a-z0-9]*)*)(?:-\d+)?"
    r"-(?P<placement>\d+)"
)
_DRA_AMD = re.compile(r"gpu-(?P<card>\d+)-(?P<render>\d+)")
#: A CDI name of a claim starts with the claim's uid.
_CLAIM_PREFIX = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}-")
#: Replicas and shares. Stripped only if the rest is a known uuid: a uuid ends in digits, too.
_SHARE_SUFFIX = re.compile(r"(?:::|-_-|-_|-)\d+$")
#: Names of GPU resources, whose unresolved ids are counted.
_GPU_RESOURCE = re.compile(r"^(nvidia\.com|amd\.com|gpu\.intel\.com|huawei\.com/Ascend)|gpu|mig-")

_NVIDIA_MAJOR, _DRM_MAJOR = 195, 226
#: Minor numbers of nvidiactl and nvidia-modeset, which every job may use.
_NVIDIA_CONTROL_MINORS = (254, 255)
_FIRST_RENDER_MINOR = 128


class DeviceIdResolver:
    """The present GPUs, by all ids that a device plugin, a DRA driver or Slurm may use."""

    def __init__(
        self,
        identities: Iterable[DeviceIdentity],
        sysfs: Path,
        procfs: Path = Path("/proc"),
        minors: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`minors`: from `nvidia_minors`."""
        self._sysfs, self._procfs = sysfs, procfs
        self._kfd = KfdPartitions(sysfs)
        self._uuids: dict[str, str] = {}
        self._instances: dict[str, list[DeviceIdentity]] = {}
        for identity in identities:
            self._uuids[identity.uuid] = identity.uuid
            if identity.parent_uuid:  # a MIG instance has its parent's address
                self._instances.setdefault(identity.parent_uuid, []).append(identity)
                continue
            address = _normalize_pci_address(identity.pci_bus_id)
            if address:
                self._uuids[address] = identity.uuid
            if identity.vendor.lower() == "nvidia":
                # The index is the minor number on most machines; only the driver knows.
                self._uuids[f"nvidia{minors.get(address, identity.index)}"] = identity.uuid

    def resolve(self, device_id: str) -> str:
        """The GPU's uuid; empty if the id matches no known GPU."""
        return self._resolve(device_id) or self._resolve(_CLAIM_PREFIX.sub("", device_id.rpartition("/")[2]))

    def _resolve(self, device_id: str) -> str:
        get = self._uuids.get
        if partition := self._amd_partition(device_id):
            return partition
        found = get(device_id) or get(_normalize_pci_address(device_id)) or get(_SHARE_SUFFIX.sub("", device_id))
        if found:
            return found
        if match := _GKE_DEVICE.fullmatch(device_id):
            parent = get(f"nvidia{match['minor']}", "")
            return self._instance(parent, match["instance"]) if match["instance"] else parent
        if match := _DRM_DEVICE.fullmatch(device_id):
            return get(_normalize_pci_address(self._card_address(match["card"])), "")
        if match := _DRA_GPU.fullmatch(device_id):
            return get(f"nvidia{match['minor']}", "")
        if match := _DRA_MIG.fullmatch(device_id):
            parent = get(f"nvidia{match['minor']}", "")
            return self._instance_of_profile(parent, match["profile"], match["placement"])
        if match := _DRA_AMD.fullmatch(device_id):
            return get(_normalize_pci_address(self._card_address(f"renderD{match['render']}")), "")
        if match := _INTEL_DRA.fullmatch(device_id):
            return get("{domain}:{bus}:{slot}.{function}".format(**match.groupdict()), "")
        return ""

    def resolve_device_files(self, names: Iterable[str]) -> tuple[frozenset[str], int]:
        """GPUs of the device files (base names) of one Slurm job, and how many could not be resolved.

        A job with a MIG instance may use the file of the whole GPU too, and has only the instance.
        """
        found: set[str] = set()
        capabilities: set[str] = set()
        unresolved = 0
        for name in names:
            if match := re.fullmatch(r"nvidia-cap(\d+)", name):
                capabilities.add(match[1])
            elif uuid := self._resolve(name):
                found.add(uuid)
            elif is_gpu_file(name):
                unresolved += 1
        instances = self._instances_by_capability() if capabilities else {}
        for number in capabilities:
            found |= instances.get(number, set())
        parents = {uuid for uuid in found if uuid in self._instances}
        with_instance = {parent for parent in parents if found & {each.uuid for each in self._instances[parent]}}
        return frozenset(found - parents), unresolved + len(parents - with_instance)

    def file_name(self, major: int, minor: int) -> str:
        """The base name of a GPU's device file; empty if the device is no GPU."""
        if major == _NVIDIA_MAJOR:
            return "" if minor in _NVIDIA_CONTROL_MINORS else f"nvidia{minor}"
        if major == _DRM_MAJOR:
            return f"renderD{minor}" if minor >= _FIRST_RENDER_MINOR else ""  # a card comes with its render node
        return f"nvidia-cap{minor}" if major == self._capability_major() else ""

    def _amd_partition(self, device_id: str) -> str:
        """The uuid of a partition; empty if the id is of none, or of a GPU that is not partitioned."""
        if match := _DRA_AMD.fullmatch(device_id):
            device_id = f"renderD{match['render']}"
        address = _normalize_pci_address(device_id)
        if address in self._uuids:
            return self._partition(address, 0)
        found = self._kfd.of_device(device_id)
        return self._partition(found.address, found.number) if found else ""

    def _partition(self, address: str, number: int) -> str:
        partitions = self._instances.get(self._uuids.get(address, ""), ())
        return next(
            (each.uuid for each in partitions if each.vendor.lower() == "amd" and each.index.endswith(f":{number}")), ""
        )

    def _instance(self, parent: str, instance: str) -> str:
        return next((each.uuid for each in self._instances.get(parent, ()) if each.gpu_instance_id == instance), "")

    def _instance_of_profile(self, parent: str, profile: str, placement: str) -> str:
        known = [each for each in self._instances.get(parent, ()) if _plain(each.mig_profile) == _plain(profile)]
        placed = [each for each in known if each.mig_placement == placement]
        if len(known) == 1 and not known[0].mig_placement:
            placed = known
        return placed[0].uuid if len(placed) == 1 else ""

    def _instances_by_capability(self) -> dict[str, set[str]]:
        """Minor number of a capability's file -> the MIG instances that it gives access to (`gpu0/gi7/access 66`)."""
        found: dict[str, set[str]] = {}
        for line in self._read("driver/nvidia-caps/mig-minors").splitlines():
            if match := re.fullmatch(r"gpu(\d+)/gi(\d+)/access (\d+)", line.strip()):
                uuid = self._instance(self._uuids.get(f"nvidia{match[1]}", ""), match[2])
                found.setdefault(match[3], set()).update({uuid} - {""})
        return found

    def _capability_major(self) -> int:
        match = re.search(r"^\s*(\d+) nvidia-caps$", self._read("devices"), re.MULTILINE)
        return int(match[1]) if match else -1

    def _read(self, path: str) -> str:
        try:
            return (self._procfs / path).read_text(encoding="ascii", errors="replace")
        except OSError:
            return ""

    def _card_address(self, card: str) -> str:
        try:
            return os.path.basename(os.readlink(self._sysfs / "class/drm" / card / "device"))
        except OSError:
            return ""


def nvidia_minors(procfs: Path) -> dict[str, str]:
    """PCI address -> minor number of the device file, of NVIDIA's GPUs; empty without its kernel module."""
    found = {}
    for path in sorted((procfs / "driver/nvidia/gpus").glob("*/information")):
        try:
            text = path.read_text(encoding="ascii", errors="replace")
        except OSError:
            continue
        if match := re.search(r"^Device Minor:\s*(\d+)", text, re.MULTILINE):
            found[_normalize_pci_address(path.parent.name)] = match[1]
    return found


def is_gpu_resource(resource: str) -> bool:
    """Whether a resource of this name is a GPU resource of one of the vendors."""
    return bool(_GPU_RESOURCE.search(resource))


def is_gpu_file(name: str) -> bool:
    """Whether a device file of this base name is a GPU."""
    return bool(re.fullmatch(r"nvidia\d+|renderD\d+|card\d+", name))


def _plain(profile: str) -> str:
    """`1g.10gb+me` and `1g10gb-me` in one spelling."""
    return re.sub(r"[^a-z0-9]", "", profile.lower())


def _normalize_pci_address(text: str) -> str:
    """A PCI address in one spelling: the domain has eight digits in NVML, four in sysfs, none in some tools."""
    match = _PCI_ADDRESS.fullmatch(text.lower())
    return f"{int(match['domain'] or '0', 16):04x}:{match['rest']}" if match else text
