"""Throughput from calibration profiles: the best that `gpu-advisor probe` measured on one GPU of a type."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_advisor.calibration.profile import Profile
from gpu_advisor.cost.errors import CostError
from gpu_advisor.cost.offer_throughput import WorkRate
from gpu_advisor.cost.offers import GpuVariant
from gpu_advisor.hardware.gpu_types import GPU_MEMORY_GIB, nominal_gb, parse_gpu_type


def rates_from_profiles(profiles: Sequence[Profile], units_per_sample: float = 1.0) -> tuple[WorkRate, ...]:
    """The rate of the best measured batch size of each profile, fastest first.

    `units_per_sample`: tokens per sample, if work is counted in tokens. Raises CostError for profiles of several
    workloads, and for one without throughput or without the GPU's memory.
    """
    workloads = sorted({profile.workload for profile in profiles})
    if len(workloads) > 1:
        raise CostError(f"profiles of several workloads ({', '.join(workloads)}): pass profiles of one")
    found = []
    for profile in profiles:
        measured = [each for each in profile.measurements if each.samples_per_second is not None]
        if not measured:
            raise CostError(f"the profile of {profile.workload} on {profile.gpu_type} has no throughput: probe again")
        best = max(measured, key=lambda each: each.samples_per_second or 0.0)
        assert best.samples_per_second is not None
        basis = (
            f"profile of {profile.workload} on {profile.gpu_type}, {profile.precision}, batch {best.batch_size}: "
            f"{best.samples_per_second:.5g} samples/s"
        )
        found.append(WorkRate(best.samples_per_second * units_per_sample, basis, gpu=_profile_gpu(profile)))
    return tuple(sorted(found, key=lambda rate: -rate.per_second))


def _profile_gpu(profile: Profile) -> GpuVariant:
    """With the memory size in the name, the only size of the type, or the one that the device reported."""
    named = parse_gpu_type(profile.gpu_type)
    sizes = GPU_MEMORY_GIB.get(named.name, ())
    if named.memory_gb is not None:
        return GpuVariant(named.name, named.memory_gb)
    if len(sizes) == 1:
        return GpuVariant(named.name, float(sizes[0]))
    if profile.device_memory_bytes is None:
        raise CostError(f"the profile of {profile.gpu_type} does not have its memory size: probe again")
    return GpuVariant(named.name, nominal_gb(named.name, profile.device_memory_bytes))
