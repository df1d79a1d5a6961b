"""Headroom tuned to an SLO as JSON."""

from __future__ import annotations

from gpu_advisor.documents import schema
from gpu_advisor.evaluation.scaling.frontier import FrontierPoint
from gpu_advisor.evaluation.scaling.headroom import TunedHeadroom

HOURS_PER_DAY = 24


def pool_slo(headroom: TunedHeadroom, gpus_per_replica: int) -> schema.PoolSloDocument:
    """The objective, what it reached in the replay, and what others would cost."""
    chosen, of_windows = headroom.chosen, headroom.of_windows
    return {
        "unserved_ratio": None if of_windows else headroom.target_ratio,
        "missed_windows_ratio": headroom.target_ratio if of_windows else None,
        "headroom_deviations": headroom.deviations,
        "min_replicas": headroom.min_replicas,
        "history_seconds": headroom.history_seconds,
        "missing_seconds": headroom.missing_seconds,
        "reached_ratio": headroom.reached_ratio,
        "reached_upper_ratio": headroom.upper_ratio,
        "shortages": headroom.shortages,
        "gpu_hours_per_day": gpu_hours_per_day(chosen, gpus_per_replica) if chosen else None,
        "frontier": [
            {
                "unserved_ratio": None if of_windows else point.unserved_ratio,
                "missed_windows_ratio": point.unserved_ratio if of_windows else None,
                "headroom_deviations": point.deviations,
                "min_replicas": point.min_replicas,
                "gpu_hours_per_day": gpu_hours_per_day(point, gpus_per_replica),
            }
            for point in headroom.frontier
        ],
    }


def gpu_hours_per_day(point: FrontierPoint, gpus_per_replica: int) -> float:
    return point.replicas * gpus_per_replica * HOURS_PER_DAY
