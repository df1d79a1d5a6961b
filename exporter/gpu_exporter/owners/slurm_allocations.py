"""Which Slurm job has which GPU, from all that the node and the controller say. Pure.

The device cgroup (v1) is exact. Otherwise the controller's indices count more than those of the environment, which a
process can change. A GPU that the controller has allocated, but to no job that is known here, is allocated to an
unknown job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gpu_exporter.owners.device_ids import DeviceIdResolver
from gpu_exporter.owners.scontrol import ScontrolAnswer
from gpu_exporter.owners.slurm_cgroups import NodeJob
from gpu_exporter.owners.slurm_gres import GresConf
from gpu_exporter.snapshot import DeviceIdentity

#: The job of a GPU that is allocated, but not known to which job.
UNKNOWN_JOB = ""

#: Values of AutoDetect that find NVIDIA GPUs, and nothing else first.
_DETECTS_NVIDIA = ("nvml", "nvidia", "full")


@dataclass
class SlurmAllocations:
    """`jobs`: GPU uuid -> the jobs that have it, UNKNOWN_JOB if not known which. `is_complete`: a GPU without a job is
    free. `unresolved`: GPUs of jobs that match no known GPU. `explained`: indices of GPUs whose job is known."""

    jobs: dict[str, set[str]] = field(default_factory=dict)
    is_complete: bool = False
    unresolved: int = 0
    explained: frozenset[int] = frozenset()

    def gpus_by_job(self) -> dict[str, frozenset[str]]:
        """Job -> its GPUs."""
        found: dict[str, set[str]] = {}
        for uuid, jobs in self.jobs.items():
            for job in jobs:
                found.setdefault(job, set()).add(uuid)
        return {job: frozenset(uuids) for job, uuids in found.items()}

    def add(self, job: str, found: tuple[Iterable[str], int]) -> None:
        """Add GPUs of a job, and how many of its GPUs match none."""
        uuids, unresolved = found
        for uuid in uuids:
            self.jobs.setdefault(uuid, set()).add(job)
        self.unresolved += unresolved


@dataclass(frozen=True, slots=True)
class GpuIndices:
    """Slurm's index of a GPU -> its uuid, for one node. `gpus`: those that jobs can have, so no MIG parents.
    `conf`: None if gres.conf was not found."""

    ids: DeviceIdResolver
    gpus: tuple[DeviceIdentity, ...]
    conf: GresConf | None

    def resolve(self, indices: frozenset[int]) -> tuple[frozenset[str], int]:
        """The GPUs, and how many of the indices match none."""
        found: set[str] = set()
        unresolved = 0
        order = self.order
        if order is None and len(indices) == len(self.gpus):  # all of them, in whatever order
            return frozenset(gpu.uuid for gpu in self.gpus), 0
        for index in indices:
            uuids = order[index] if order and index < len(order) else frozenset()
            found |= uuids
            unresolved += not uuids
        return frozenset(found), unresolved

    @property
    def order(self) -> list[frozenset[str]] | None:
        """The GPUs of each index; None if the order is not known."""
        if self.conf is None:
            return None
        if self.conf.files:
            return [self._of_files(files) for files in self.conf.files]
        kinds = {(gpu.vendor.lower(), gpu.name, gpu.mig_profile) for gpu in self.gpus}
        if self.conf.autodetect not in _DETECTS_NVIDIA or len(kinds) != 1 or next(iter(kinds))[0] != "nvidia":
            return None
        # slurmd numbers them by PCI address, as NVML does; of several types, by type.
        return [frozenset({gpu.uuid}) for gpu in sorted(self.gpus, key=lambda gpu: _numbers(gpu.index))]

    def _of_files(self, files: tuple[str, ...]) -> frozenset[str]:
        uuids, unresolved = self.ids.resolve_device_files(file.rpartition("/")[2] for file in files)
        return frozenset() if unresolved else uuids


def slurm_allocations(
    jobs: Mapping[str, NodeJob], freed: frozenset[str], answer: ScontrolAnswer | None, indices: GpuIndices
) -> SlurmAllocations:
    """`jobs`: those with cgroups here, by number or SLUID. `answer`: None if the controller did not answer. `freed`:
    GPUs of jobs that have ended here since, which it still counts."""
    result = SlurmAllocations()
    asked = answer.jobs if answer else {}
    explained: set[int] = set()
    for job in jobs.values():
        controller = asked.get(job.number)
        held = controller.gpu_indices if controller and controller.holds else None
        held = job.gpu_indices if held is None else held
        explained |= held or set()
        if job.devices is not None:
            names = [name for numbers in job.devices if (name := indices.ids.file_name(*numbers))]
            result.add(job.number or job.key, indices.ids.resolve_device_files(names))
        elif held is not None:
            result.add(job.number or job.key, indices.resolve(held))
    local = {job.number for job in jobs.values()}
    for number, controller in asked.items():
        if number in local or not controller.holds or controller.gpu_indices is None:
            continue
        explained |= controller.gpu_indices
        result.add(number, indices.resolve(controller.gpu_indices))
    if answer and answer.used_indices is not None:
        _add_unknown_jobs(result, answer.used_indices, explained, freed, indices)
        result.is_complete = not result.unresolved
    result.explained = frozenset(explained)
    return result


def _add_unknown_jobs(
    result: SlurmAllocations, used: frozenset[int], explained: set[int], freed: frozenset[str], indices: GpuIndices
) -> None:
    """Add the GPUs that the controller has allocated to jobs that are not known here."""
    known = result.jobs.keys() | freed
    if len(used) >= len(indices.gpus):
        result.unresolved = 0
        result.add(UNKNOWN_JOB, ({gpu.uuid for gpu in indices.gpus} - known, 0))
    elif indices.order is None:
        result.unresolved = max(0, len(used) - len(known))
    else:
        found, unresolved = indices.resolve(used - explained)
        result.add(UNKNOWN_JOB, (found - known, unresolved))


def _numbers(index: str) -> tuple[int, ...]:
    """`0:1` -> (0, 1): the order of NVML's indices."""
    return tuple(int(part) for part in index.split(":") if part.isdigit())
