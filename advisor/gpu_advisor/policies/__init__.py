"""Policies: facts + settings -> what to do. One pure file each, one line here."""

from __future__ import annotations

from gpu_advisor.policies import idle_reclaim, scale
from gpu_advisor.policies.base import Policy

POLICIES: tuple[Policy, ...] = (
    idle_reclaim.recommend,
    scale.recommend,
)
