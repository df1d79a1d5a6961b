"""Policies: facts + settings -> what to do. One pure file each.

A policy on a diagnosis is registered in diagnosed.py by its kind, every other one here: a line each.
"""

from __future__ import annotations

from gpu_advisor.evaluation.policies import by_diagnosis, calibrated_batch_size, failing_gpu, idle_reclaim, scale_pool
from gpu_advisor.evaluation.policies.base import Policy

POLICIES: tuple[Policy, ...] = (
    idle_reclaim.recommend,
    scale_pool.recommend,
    by_diagnosis.recommend,
    calibrated_batch_size.recommend,
    failing_gpu.recommend,
)
