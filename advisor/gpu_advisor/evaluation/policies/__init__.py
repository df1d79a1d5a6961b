"""Policies: facts + settings -> what to do. One pure file each.

A policy on a diagnosis is registered in diagnosed.py by its kind, every other one here: a line each.
"""

from __future__ import annotations

from gpu_advisor.evaluation.policies import calibrated_batch, diagnosed, failing_gpu, idle_reclaim, scale
from gpu_advisor.evaluation.policies.base import Policy

POLICIES: tuple[Policy, ...] = (
    idle_reclaim.recommend,
    scale.recommend,
    diagnosed.recommend,
    calibrated_batch.recommend,
    failing_gpu.recommend,
)
