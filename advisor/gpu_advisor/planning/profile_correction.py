"""A plan's memory, corrected by what a probe measured of the model on one GPU.

Over the sizes measured, peak = intercept + ratio * activations, a line by least relative squares. The ratio scales
every layout's activations. The intercept should be weights, gradients and optimizer with the context; a step without
accumulation peaks before its gradients are there, so it may lack those, but a plan keeps them. What is above is the
context, and replaces the assumed overhead.
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

#: Measurements that are further than this from the line, or activations further from the formula's, are of another
#: model than the one that is planned.
MAX_SPREAD_RATIO = 0.15
MIN_ACTIVATIONS_RATIO, MAX_ACTIVATIONS_RATIO = 0.5, 2.0

#: Kinds of memory that have the driver's context in them; of the others the assumed overhead stays.
_WITH_CONTEXT = ("driver",)

_PROFILE_HINT = "is it of this model, with this --optimizer, --sequence and --attention?"


@dataclass(frozen=True, slots=True)
class ProfileCorrection:
    """What the formulas are corrected by. `spread_ratio`: how far the measured peaks are from the line, at most;
    `planned_ratio`: measured peaks beside the uncorrected plan, in the mean."""

    overhead_bytes: float
    activations_ratio: float
    spread_ratio: float
    planned_ratio: float
    sizes: int
    profile: str


def correct_from_profile(
    profile: Profile, shape: TransformerShape, recipe: OptimizerSpec, flash_attention: bool, overhead_bytes: float
) -> ProfileCorrection:
    """From a profile of the same model on one GPU, whole and without checkpointing. A batch size of it is a micro-batch
    here. Fewer layers of the model will not do: what its ends take is then too large a part.

    Raises PlanError where the profile is of another precision, or of another model than the shape.
    """
    if (profile.precision == "float32") != (recipe.activations == 4):
        other = "adamw-fp32" if profile.precision == "float32" else "adamw-mixed"
        raise PlanError(
            f"the profile was measured in {profile.precision}, {recipe.name} is not: say --optimizer {other} or so, or "
            "probe in the precision that you plan with"
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
        raise PlanError(f"activations in the profile are {ratio:.2g} times those of the plan: {_PROFILE_HINT}")
    if spread > MAX_SPREAD_RATIO:
        raise PlanError(f"the profile's peaks are up to {spread:.0%} off what the plan's form allows: {_PROFILE_HINT}")
    min_intercept = (1 - MAX_SPREAD_RATIO) * (need.states - need.gradients)
    if intercept < min_intercept:
        raise PlanError(
            f"the profile leaves {intercept / GIB:.3g} GiB for weights and optimizer, the plan has at least "
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
    """Intercept and slope by least relative squares; a profile has two sizes at least, and no size twice."""
    weights = [1 / peak**2 for peak in peaks]
    total = sum(weights)
    mean_x = sum(w * x for w, x in zip(weights, activation_bytes, strict=True)) / total
    mean_y = sum(w * y for w, y in zip(weights, peaks, strict=True)) / total
    across = sum(w * (x - mean_x) * (y - mean_y) for w, x, y in zip(weights, activation_bytes, peaks, strict=True))
    along = sum(w * (x - mean_x) ** 2 for w, x in zip(weights, activation_bytes, strict=True))
    slope = across / along
    return mean_y - slope * mean_x, slope
