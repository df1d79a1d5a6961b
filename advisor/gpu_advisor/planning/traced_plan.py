"""A data-parallel plan for any module: its memory from a trace without a GPU (`calibration.memory_estimate`).

A trace gives the memory of a step, but does not attribute it to parameters. So these plans have no sharding and no
tensor or pipeline parallelism; they only choose the micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpu_advisor.calibration.memory_estimate import EstimateCorrection, MemoryEstimate, estimate_memory, fit_correction
from gpu_advisor.calibration.profile import Profile
from gpu_advisor.hardware.cluster_spec import ClusterSpec
from gpu_advisor.hardware.errors import PlanError
from gpu_advisor.planning.layout import ParallelLayout
from gpu_advisor.planning.layout_search import MAX_MICRO_BATCH

Tracer = Callable[[str, int, str, EstimateCorrection], MemoryEstimate]


@dataclass(frozen=True, slots=True)
class TracedPlan:
    """A micro-batch per GPU and its estimated memory."""

    layout: ParallelLayout
    estimate: MemoryEstimate
    capacity_bytes: int

    @property
    def used_ratio(self) -> float:
        return self.estimate.corrected_bytes / self.capacity_bytes

    def fits(self, margin_ratio: float) -> bool:
        """Whether the estimate leaves the margin free and the upper end of its 90 % interval still fits."""
        return self.used_ratio <= 1 - margin_ratio and self.estimate.high <= self.capacity_bytes


@dataclass(frozen=True, slots=True)
class TracedPlans:
    """`fitting`: largest micro-batch first, as it utilizes the GPU best; `smallest`: set if not even that fits."""

    fitting: tuple[TracedPlan, ...]
    smallest: TracedPlan | None
    correction: EstimateCorrection


def traced_plans(
    workload: str, hardware: ClusterSpec, global_batch: int, margin_ratio: float, precision: str,
    correction: EstimateCorrection,
    trace: Tracer = estimate_memory,
) -> TracedPlans:  # fmt: skip
    """Try micro-batches in ascending order until one does not fit. Raises PlanError and CalibrationError."""
    if global_batch < 1 or global_batch % hardware.gpus:
        raise PlanError(
            f"a batch of {global_batch} cannot be split over {hardware.gpus} GPUs: choose a multiple of their number"
        )
    each = global_batch // hardware.gpus
    fitting: list[TracedPlan] = []
    for micro_batch in range(1, min(each, MAX_MICRO_BATCH) + 1):
        if each % micro_batch:
            continue
        layout = ParallelLayout(data=hardware.gpus, micro_batch=micro_batch, accumulation=each // micro_batch)
        found = TracedPlan(layout, trace(workload, micro_batch, precision, correction), hardware.memory_bytes)
        if not found.fits(margin_ratio):
            return TracedPlans(tuple(reversed(fitting)), None if fitting else found, correction)
        fitting.append(found)
    return TracedPlans(tuple(reversed(fitting)), None, correction)


def correction_from_profiles(
    profiles: Sequence[Profile], hardware: ClusterSpec, overhead_bytes: float, trace: Tracer = estimate_memory
) -> EstimateCorrection:
    """Fit the correction of estimates to measured peaks; without profiles, the assumed overhead alone.

    Raises PlanError for profiles of several GPU types.
    """
    if not profiles:
        return EstimateCorrection(context_bytes=overhead_bytes)
    types = sorted({profile.gpu_type for profile in profiles})
    if len(types) > 1:
        raise PlanError(f"profiles of several GPU types ({', '.join(types)}): give those of {hardware.gpu_type} only")
    uncorrected = EstimateCorrection()
    return fit_correction(
        [
            (trace(of.workload, each.batch_size, of.precision, uncorrected).reserved_bytes, each.peak_memory_bytes)
            for of in profiles
            for each in of.measurements
        ]
    )
