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
from gpu_advisor.hardware.machines import GIB
from gpu_advisor.planning.layout import Layout, Recipe
from gpu_advisor.planning.memory import activations, memory
from gpu_advisor.planning.shape import Shape

#: Measurements that are further than this from the line, or activations further from the formula's, are of another
#: model than the one that is planned.
FARTHEST_RATIO = 0.15
LEAST_RATIO, MOST_RATIO = 0.5, 2.0

#: Kinds of memory that have the driver's context in them; of the others the assumed overhead stays.
_WITH_CONTEXT = ("driver",)

_MEND = "is it of this model, with this --optimizer, --sequence and --attention?"


@dataclass(frozen=True, slots=True)
class Corrected:
    """What the formulas are corrected by. `spread_ratio`: how far the measured peaks are from the line, at most;
    `planned_ratio`: measured peaks beside the uncorrected plan, in the mean."""

    overhead_bytes: float
    activations_ratio: float
    spread_ratio: float
    planned_ratio: float
    sizes: int
    profile: str


def corrected(
    profile: Profile, shape: Shape, recipe: Recipe, flash_attention: bool, overhead_bytes: float
) -> Corrected:
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
    layouts = [Layout(micro_batch=each.batch_size, flash_attention=flash_attention) for each in profile.measurements]
    peaks = [float(each.peak_memory_bytes) for each in profile.measurements]
    need = memory(shape, layouts[0], recipe, 0.0)
    kept = [activations(shape, layout, recipe.activations) for layout in layouts]
    intercept, ratio = _line(kept, peaks)
    spread = max(abs((intercept + ratio * planned) / peak - 1) for planned, peak in zip(kept, peaks, strict=True))
    if not LEAST_RATIO <= ratio <= MOST_RATIO:
        raise PlanError(f"activations in the profile are {ratio:.2g} times those of the plan: {_MEND}")
    if spread > FARTHEST_RATIO:
        raise PlanError(f"the profile's peaks are up to {spread:.0%} off what the plan's form allows: {_MEND}")
    least = (1 - FARTHEST_RATIO) * (need.states - need.gradients)
    if intercept < least:
        raise PlanError(
            f"the profile leaves {intercept / GIB:.3g} GiB for weights and optimizer, the plan has at least "
            f"{least / GIB:.3g} GiB: {_MEND}"
        )
    outside = 0.0 if profile.memory_kind in _WITH_CONTEXT else overhead_bytes
    planned_ratios = [
        peak / (need.states + planned + overhead_bytes) for planned, peak in zip(kept, peaks, strict=True)
    ]
    return Corrected(
        outside + max(0.0, intercept - need.states), ratio, spread, sum(planned_ratios) / len(peaks), len(peaks),
        f"{profile.workload} on {profile.gpu_type}, {profile.precision}",
    )  # fmt: skip


def _line(kept: Sequence[float], peaks: Sequence[float]) -> tuple[float, float]:
    """Intercept and slope by least relative squares; a profile has two sizes at least, and no size twice."""
    weights = [1 / peak**2 for peak in peaks]
    total = sum(weights)
    mean_x = sum(w * x for w, x in zip(weights, kept, strict=True)) / total
    mean_y = sum(w * y for w, y in zip(weights, peaks, strict=True)) / total
    across = sum(w * (x - mean_x) * (y - mean_y) for w, x, y in zip(weights, kept, peaks, strict=True))
    along = sum(w * (x - mean_x) ** 2 for w, x in zip(weights, kept, strict=True))
    slope = across / along
    return mean_y - slope * mean_x, slope
