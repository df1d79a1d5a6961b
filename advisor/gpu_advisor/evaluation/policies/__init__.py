"""Policies: facts + settings -> recommendations. One pure file each.

by_diagnosis.py registers the policies that act on a diagnosis; all others are registered here, one line each.
"""

from __future__ import annotations

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
from gpu_advisor.evaluation.policies.base import Policy
from gpu_advisor.evaluation.serving.decision_table import KINDS as SERVING_KINDS

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
