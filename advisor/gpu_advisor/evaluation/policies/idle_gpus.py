"""The GPUs on which nothing ran for the whole idle window."""

from __future__ import annotations

from collections.abc import Iterable

from gpu_advisor.evaluation.diagnosis.idle import Idleness, idleness
from gpu_advisor.evaluation.facts import Facts, Gpu

IDLE_STATES = frozenset({Idleness.IDLE, Idleness.HOLDING_MEMORY})


def idle_gpus(facts: Facts, gpus: Iterable[Gpu]) -> list[Gpu]:
    """Those, of the given ones, whose window has enough data."""
    return [gpu for gpu in gpus if idleness(facts, gpu) in IDLE_STATES]
