"""Policies: facts + settings -> recommendations. One pure file each.

by_diagnosis.py registers the policies that act on a diagnosis; all others are registered here, one line each.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.policies import (
    batch_size,
    by_diagnosis,
    calibrated_batch_size,
    failing_gpu,
    hung_job,
    idle_lease,
    idle_reclaim,
    inferred_kind,
    lost_gpu,
    scale_pool,
    unseen_errors,
)
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import Abstention, Recommendation
from gpu_advisor.evaluation.serving.decision_table import KINDS as SERVING_KINDS
from gpu_advisor.settings import Settings


class Policy(Protocol):
    """A pure function: no clock, no network, no globals. The live engine and every replay run the same code."""

    def __call__(self, facts: Facts, settings: Settings, pool: Pool, /) -> Iterable[Recommendation | Abstention]: ...


#: The kinds of recommendation.
KINDS: tuple[str, ...] = (
    lost_gpu.KIND, idle_reclaim.KIND, idle_lease.KIND, hung_job.KIND, *scale_pool.KINDS, *by_diagnosis.KINDS,
    batch_size.KIND, failing_gpu.KIND, *SERVING_KINDS,
)  # fmt: skip

POLICIES: tuple[Policy, ...] = (
    lost_gpu.recommend,
    idle_reclaim.recommend,
    idle_lease.recommend,
    hung_job.recommend,
    scale_pool.recommend,
    inferred_kind.recommend,
    by_diagnosis.recommend,
    calibrated_batch_size.recommend,
    failing_gpu.recommend,
    unseen_errors.recommend,
)
