"""What an autoscaler is told, and what a change of a workload's size has to respect. Pure."""

from __future__ import annotations

from dataclasses import dataclass

#: A HorizontalPodAutoscaler does nothing while metric / (target * replicas) is this near to 1.
HPA_TOLERANCE = 0.1
ROUNDING = 1e-9


def hpa_acts(metric: float, replicas: int) -> bool:
    """Whether an HPA with an External metric and target AverageValue 1 acts; it then wants ceil(metric) replicas.

    The arithmetic of GetExternalPerPodMetricReplicas, whose tolerance holds for AverageValue as well:
    https://github.com/kubernetes/kubernetes/blob/master/pkg/controller/podautoscaler/replica_calculator.go
    Whether it acts just at the edge hangs on rounding, and differs between its versions: here it does not.
    """
    return replicas == 0 or abs(metric / replicas - 1.0) > HPA_TOLERANCE + ROUNDING


def round_past_tolerance(desired: int, replicas: int) -> int:
    """The least number not below `desired` that makes an HPA act, if the pool should grow.

    With ten replicas or more an HPA overlooks one more, and no metric can make it add just one: if it acts, it wants
    ceil(metric), and it acts only from a metric of more than 1.1 times the replicas. So the growth is rounded up, by
    less than a tenth of the pool and one. A shrinkage that it overlooks is left: too much capacity harms nobody.
    """
    if desired <= replicas:
        return desired
    while not hpa_acts(desired, replicas):
        desired += 1
    return desired


@dataclass(frozen=True, slots=True)
class ScaleStep:
    """What to do with a workload now: `replicas` to set, or None to leave it; and why. `refused`: it should change,
    but what it is set to is not what the advisor saw."""

    replicas: int | None
    why: str
    blocked: bool = False


def plan_scale_step(wanted: int, seen: int, replicas: int) -> ScaleStep:
    """From the advisor's numbers to the workload's: `seen` replicas were there when `wanted` was concluded, and
    `replicas` is what the workload is set to now."""
    if wanted == seen:
        return ScaleStep(None, f"{seen} replicas are right")
    if replicas == wanted or (seen < wanted < replicas) or (replicas < wanted < seen):
        return ScaleStep(None, f"it is set to {replicas} replicas already")
    if replicas == seen or (seen < replicas < wanted):  # a growth that is under way may go on
        return ScaleStep(wanted, f"from {replicas} to {wanted} replicas")
    return ScaleStep(
        None,
        f"it is set to {replicas} replicas, but {seen} were seen: nothing is changed before both agree. If they stay "
        "different, see that the pool's selectors name the GPUs of this workload, and no others",
        blocked=True,
    )
