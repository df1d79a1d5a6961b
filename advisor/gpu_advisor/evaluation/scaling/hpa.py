"""The behavior of a HorizontalPodAutoscaler, and steps from one workload size to another. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from gpu_advisor.settings.root import HPA_TOLERANCE

ROUNDING = 1e-9


def hpa_acts(metric: float, replicas: int) -> bool:
    """Whether an HPA with an External metric and target AverageValue 1 acts; it then sets ceil(metric) replicas.

    The arithmetic of GetExternalPerPodMetricReplicas, whose tolerance applies to AverageValue as well:
    https://github.com/kubernetes/kubernetes/blob/master/pkg/controller/podautoscaler/replica_calculator.go
    Exactly at the tolerance, rounding decides, and Kubernetes versions differ: here it does not act.
    """
    return replicas == 0 or abs(metric / replicas - 1.0) > HPA_TOLERANCE + ROUNDING


def round_past_tolerance(desired: int, replicas: int) -> int:
    """The smallest number, at least `desired`, at which an HPA acts, if the pool should grow.

    From ten replicas on, an HPA ignores one more, and no metric makes it add just one: it acts only above 1.1 times
    the replicas, and then sets ceil(metric). So growth is rounded up, by less than a tenth of the pool plus one. A
    reduction that it ignores is left alone: spare capacity does no harm.
    """
    if desired <= replicas:
        return desired
    while not hpa_acts(desired, replicas):
        desired += 1
    return desired


@dataclass(frozen=True, slots=True)
class ScaleStep:
    """The next change of a workload: `replicas` to set, or None to leave it; and why.

    `blocked`: it should change, but its present size is not the one that the advisor observed.
    """

    replicas: int | None
    why: str
    blocked: bool = False


def plan_scale_step(wanted: int, observed: int, replicas: int) -> ScaleStep:
    """The step from the workload's present size `replicas` to `wanted`, decided when `observed` replicas existed."""
    if wanted == observed:
        return ScaleStep(None, f"{observed} replicas are right")
    if replicas == wanted or (observed < wanted < replicas) or (replicas < wanted < observed):
        return ScaleStep(None, f"already set to {replicas} replicas")
    if replicas == observed or (observed < replicas < wanted):  # a scale-up in progress may continue
        return ScaleStep(wanted, f"from {replicas} to {wanted} replicas")
    return ScaleStep(
        None,
        f"set to {replicas} replicas, but {observed} were observed: nothing changes until both agree. If they keep "
        "differing, check that the pool's selectors match the GPUs of this workload and no others",
        blocked=True,
    )
