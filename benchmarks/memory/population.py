"""Studies: populations of models whose peaks are recorded in one way, at the sizes 8 to 128."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gpu_advisor.calibration.caching_allocator import AllocatorPeak, replay

from benchmarks.memory.architectures import sample
from benchmarks.memory.step import StepConfig, at_batch, events
from benchmarks.memory.workspaces import ConvolutionLibrary, workspaces

SIZES = (8, 16, 32, 64, 128)
MIB = 1 << 20


Measure = Literal["allocated", "expandable", "driver"]


@dataclass(frozen=True, slots=True)
class Study:
    """One way of recording peaks. `context_bytes` is what the driver sees beside the allocator's segments."""

    way: StepConfig
    library: ConvolutionLibrary
    measure: Measure = "allocated"
    context_bytes: int = 0
    held_bytes: int = 8 * MIB
    """A workspace of the linear algebra library, held from the first use on."""


@dataclass(frozen=True, slots=True)
class MemoryCurve:
    """Peaks in bytes of one model at SIZES, and those of its trace: tensors alone, without context and workspaces."""

    name: str
    family: str
    peaks: tuple[int, ...]
    traced: tuple[int, ...]


def generate_curves(study: Study, count: int, seed: int, families: Sequence[str] | None = None) -> list[MemoryCurve]:
    found = []
    workspace = workspaces(study.library)
    for model in sample(count, seed, families):
        steps = events(model.tape, study.way)
        peaks, traced = [], []
        for batch in SIZES:
            peak = replay([(0, study.held_bytes), *at_batch(steps, batch, workspace)])
            peaks.append(_observe_peak(study, peak))
            trace = replay(at_batch(steps, batch, lambda *_: 0))
            traced.append(trace.allocated_bytes if study.measure == "allocated" else trace.reserved_bytes)
        found.append(MemoryCurve(model.name, model.family, tuple(peaks), tuple(traced)))
    return found


def _observe_peak(study: Study, peak: AllocatorPeak) -> int:
    if study.measure == "allocated":
        return peak.allocated_bytes
    if study.measure == "expandable":
        return -(-peak.allocated_bytes // (2 * MIB)) * 2 * MIB + study.context_bytes
    return peak.reserved_bytes + study.context_bytes


def draw(generator: random.Random) -> Study:
    """A study at random: training, seen by the driver, every setting that a laboratory may have chosen."""
    mixed = generator.random() < 0.4
    slots = generator.choice((0, 1, 1, 2, 2))
    way = StepConfig(
        mixed=mixed,
        optimizer_slots=slots,
        optimizer_temporaries=generator.choice((0.0, 1.0, 2.0)) if slots == 2 else 0.0,
        keeps_gradients=generator.random() < 0.3,
        in_place=generator.random() < 0.8,
    )
    return Study(
        way,
        ConvolutionLibrary(
            layout=generator.choice((0.3, 1.0, 2.0)),
            winograd=generator.choice((0.2, 0.7, 1.5)),
            transform=generator.choice((0.1, 0.3, 1.0)),
            split=generator.choice((0.0, 0.5, 2.0)),
            switches=generator.choice((0.5, 1.0)),
            limit_bytes=generator.choice((1024, 4096, 16384)) * MIB,
            element_bytes=2 if mixed else 4,
            seed=generator.randrange(1 << 30),
        ),
        "driver",
        context_bytes=generator.randrange(500, 1500) * MIB,
        held_bytes=generator.choice((8, 32, 64)) * MIB,
    )


def draw_other(generator: random.Random) -> Study:
    """A study of another kind: every algorithm tried once, segments that grow without a gap, or no context counted."""
    study = draw(generator)
    tries = generator.random() < 0.5
    measure: Measure = generator.choice(("driver", "expandable", "allocated"))
    return replace(
        study,
        library=replace(study.library, tries=tries, transform=0.0 if tries and generator.random() < 0.7 else 0.2),
        measure=measure,
        context_bytes=0 if measure == "allocated" else generator.randrange(200, 1000) * MIB,
    )
