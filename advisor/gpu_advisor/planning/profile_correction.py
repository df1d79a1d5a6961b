"""A plan's memory, corrected by a profile of the model on one GPU.

Over the measured sizes, peak = intercept + ratio * activations, fitted by least squares of the relative errors. The
ratio scales every layout's activations. The intercept is weights, gradients, optimizer states and driver context. A
step without accumulation peaks before its gradients exist, so the intercept may lack them; a plan keeps them. The
excess over the model states is the context, and replaces the assumed overhead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpu_advisor.calibration.profile import Profile
from gpu_advisor.hardware.errors import PlanError
from gpu_advisor.hardware.gpu_types import GIB
from gpu_advisor.planning.layout import OptimizerSpec, ParallelLayout
from gpu_advisor.planning.memory_model import activations, memory
from gpu_advisor.planning.transformer_shape import TransformerShape

#: Beyond these limits the profile is of another model: relative distance of a peak from the line, and measured
#: activations relative to the formula's.
MAX_SPREAD_RATIO = 0.15
MIN_ACTIVATIONS_RATIO, MAX_ACTIVATIONS_RATIO = 0.5, 2.0

#: Memory kinds that include the driver context; for the others the assumed overhead stays.
_WITH_CONTEXT = ("driver",)

_PROFILE_HINT = "is it of this model, with this --optimizer, --sequence and --attention?"


@dataclass(frozen=True, slots=True)
class ProfileCorrection:
    """Correction of the formulas. `spread_ratio`: maximum relative distance of the measured peaks from the line;
    `planned_ratio`: mean of measured peak / uncorrected plan."""

    overhead_bytes: float
    activations_ratio: float
    spread_ratio: float
    planned_ratio: float
    sizes: int
    profile: str


def correct_from_profile(
    profile: Profile, shape: TransformerShape, recipe: OptimizerSpec, flash_attention: bool, overhead_bytes: float
) -> ProfileCorrection:
    """Fit the correction to a profile of the complete model on one GPU, without checkpointing.

    Batch sizes of the profile are micro-batches of the plan. With fewer layers the embedding and output layer would
    dominate. Raises PlanError if the profile's precision or model does not match the plan.
    """
    if (profile.precision == "float32") != (recipe.activations == 4):
        other = "adamw-fp32" if profile.precision == "float32" else "adamw-mixed"
        raise PlanError(
            f"the profile was measured in {profile.precision}, but {recipe.name} uses another precision: use "
            f"--optimizer {other}, or probe in the precision of the plan"
        )
    layouts = [
        ParallelLayout(micro_batch=each.batch_size, flash_attention=flash_attention) for each in profile.measurements
    ]
    peaks = [float(each.peak_memory_bytes) for each in profile.measurements]
    need = memory(shape, layouts[0], recipe, 0.0)
    activation_bytes = [activations(shape, layout, recipe.activations) for layout in layouts]
    intercept, ratio = _fit_line(activation_bytes, peaks)
    spread = max(
        abs((intercept + ratio * planned) / peak - 1) for planned, peak in zip(activation_bytes, peaks, strict=True)
    )
    if not MIN_ACTIVATIONS_RATIO <= ratio <= MAX_ACTIVATIONS_RATIO:
        raise PlanError(f"activations of the profile are {ratio:.2g} times those of the plan: {_PROFILE_HINT}")
    if spread > MAX_SPREAD_RATIO:
        raise PlanError(f"the profile's peaks deviate up to {spread:.0%} from the plan's line: {_PROFILE_HINT}")
    min_intercept = (1 - MAX_SPREAD_RATIO) * (need.states - need.gradients)
    if intercept < min_intercept:
        raise PlanError(
            f"the profile leaves {intercept / GIB:.3g} GiB for weights and optimizer, the plan needs at least "
            f"{min_intercept / GIB:.3g} GiB: {_PROFILE_HINT}"
        )
    context_bytes = 0.0 if profile.memory_kind in _WITH_CONTEXT else overhead_bytes
    planned_ratios = [
        peak / (need.states + planned + overhead_bytes) for planned, peak in zip(activation_bytes, peaks, strict=True)
    ]
    return ProfileCorrection(
        context_bytes + max(0.0, intercept - need.states), ratio, spread, sum(planned_ratios) / len(peaks), len(peaks),
        f"{profile.workload} on {profile.gpu_type}, {profile.precision}",
    )  # fmt: skip


def _fit_line(activation_bytes: Sequence[float], peaks: Sequence[float]) -> tuple[float, float]:
    """Intercept and slope by least squares of the relative errors. A profile has at least two distinct sizes."""
    weights = [1 / peak**2 for peak in peaks]
    total = sum(weights)
    mean_x = sum(w * x for w, x in zip(weights, activation_bytes, strict=True)) / total
    mean_y = sum(w * y for w, y in zip(weights, peaks, strict=True)) / total
    across = sum(w * (x - mean_x) * (y - mean_y) for w, x, y in zip(weights, activation_bytes, peaks, strict=True))
    along = sum(w * (x - mean_x) ** 2 for w, x in zip(weights, activation_bytes, strict=True))
    slope = across / along
    return mean_y - slope * mean_x, slope
