"""A day of fleets in which nothing is wrong: jobs that train, pause and are capped, services that follow the day."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from benchmarks.situations.gpu_group import DAY_SECONDS, GpuGroup
from benchmarks.situations.healthy import healthy
from benchmarks.situations.situation import Rng, Situation, bernoulli, uniform


def days(seed: int, gpus: int) -> Iterator[tuple[Situation, Rng]]:
    """Situations that last a day, of `gpus` GPUs together or a few more; each with a generator of its own."""
    number = 0
    while gpus > 0:
        rng = np.random.default_rng([seed, 1_000_003, number])
        number += 1
        made = healthy(rng)
        if made.variant in ("just started", "pausing"):
            continue  # jobs below pause by themselves
        gpus -= len(made.scene.ranks)
        yield replace(made, scene=_day(rng, made)), rng


def _day(rng: Rng, made: Situation) -> GpuGroup:
    scene = made.scene
    if made.variant.startswith("serving"):
        night = made.variant == "serving at night"
        lift = uniform(rng, 1.0, 1.3) if night else 1.0  # this one is awake by day
        ranks = tuple(replace(rank, load=min(0.85, uniform(rng, 0.3, 0.5) * lift) if night else rank.load)
                      for rank in scene.ranks)  # fmt: skip
        return replace(scene, ranks=ranks, daily_amplitude=uniform(rng, 0.3, 0.9),
                       daily_peak_seconds=uniform(rng, 0, DAY_SECONDS), day_peak=None)  # fmt: skip
    if made.variant == "unused":
        return scene
    return replace(scene, pauses=tuple(_pauses(rng)), jitter_seconds=uniform(rng, 120, 1800))


def _pauses(rng: Rng) -> Iterator[tuple[float, float]]:
    """Evaluations and checkpoints all day, and now and then a restart with its loading."""
    every, lasting = uniform(rng, 900, 7200), uniform(rng, 15, 240)
    at = uniform(rng, 0, every)
    while at < DAY_SECONDS:
        seconds = uniform(rng, 300, 1500) if bernoulli(rng, 0.02) else lasting * uniform(rng, 0.8, 1.2)
        yield at, at + seconds
        at += every * uniform(rng, 0.8, 1.2) + seconds
