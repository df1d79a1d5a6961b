"""Workspaces of convolutions: which algorithm a library takes depends on the shape and on the batch.

The sizes follow the algorithms' own arithmetic: a change of layout copies input and output; Winograd F(4x4, 3x3) keeps
transformed tiles of 6x6 for each 4x4 (https://arxiv.org/abs/1509.09308); FFT tiling keeps spectra of 32x32 tiles of
input, output and every pair of filters; a split of the reduction keeps a copy of the filters' gradient for each part.
Which one is chosen is a private matter of the library, so here it is drawn at random, once for each shape, with a batch
size at which the choice changes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.memory.step import Pass
from benchmarks.memory.tape import Convolution

_TILE = 32


@dataclass(frozen=True, slots=True)
class ConvolutionLibrary:
    """How freely a library spends on workspaces. Shares are weights of the algorithms, not necessarily summing to 1."""

    none: float = 1.0
    layout: float = 0.0
    winograd: float = 0.0
    transform: float = 0.0
    split: float = 0.0
    switches: float = 0.5
    """Share of the shapes whose algorithm changes at some batch size between 2 and 512."""
    tries: bool = False
    """Tries every algorithm once, as with cudnn.benchmark: the largest workspace within the limit counts."""
    limit_bytes: int = 1 << 30
    element_bytes: int = 4
    seed: int = 0


Size = tuple[int, int]
"""Bytes: fixed, and a sample's."""


def _candidates(spec: Convolution, which: Pass, library: ConvolutionLibrary) -> list[tuple[float, Size]]:
    pairs = spec.inputs * spec.outputs // spec.groups
    area = spec.height * spec.width
    inputs = spec.inputs * area * spec.stride**2
    outputs = spec.outputs * area
    filters = pairs * spec.kernel**2
    size = library.element_bytes
    rows: list[tuple[float, Size]] = [(library.none, (0, 0))]
    if spec.groups == 1:
        rows.append((library.layout, (size * filters, size * (inputs + outputs))))
    if spec.kernel == 3 and spec.stride == 1 and spec.groups == 1:
        rows.append((library.winograd, (36 * 4 * pairs, int(2.25 * 4 * (inputs + outputs)))))
    if spec.kernel >= 3 and spec.stride == 1 and spec.groups == 1:
        spectrum = _TILE * (_TILE // 2 + 1) * 8
        tiles = (-(-spec.height // (_TILE - spec.kernel + 1))) ** 2
        rows.append((library.transform, (pairs * spectrum, (spec.inputs + spec.outputs) * tiles * spectrum)))
    if which == "weights":
        rows.append((library.split, (4 * filters * (2 + pairs % 15), 0)))
    return [row for row in rows if row[0] > 0]


def workspaces(library: ConvolutionLibrary) -> Callable[[Convolution, Pass, int], int]:
    """The function (shape, pass, batch) -> bytes of one library."""
    chosen: dict[tuple[Convolution, Pass], tuple[Size, Size, float]] = {}

    def choose(spec: Convolution, which: Pass) -> tuple[Size, Size, float]:
        generator = random.Random(f"{library.seed} {spec} {which}")
        rows = _candidates(spec, which, library)
        if not rows:
            return (0, 0), (0, 0), 0.0
        weights = [weight for weight, _ in rows]
        small, large = generator.choices([size for _, size in rows], weights, k=2)
        if generator.random() >= library.switches:
            large = small
        return small, large, 2.0 ** generator.uniform(1, 9)

    def workspace(spec: Convolution, which: Pass, batch: int) -> int:
        if library.tries:
            sizes = [fixed + per_sample * batch for _, (fixed, per_sample) in _candidates(spec, which, library)]
            return max((size for size in sizes if size <= library.limit_bytes), default=0)
        key = (spec, which)
        if key not in chosen:
            chosen[key] = choose(spec, which)
        small, large, threshold = chosen[key]
        for fixed, per_sample in (small, large) if batch < threshold else (large, small):
            size = fixed + per_sample * batch
            if size <= library.limit_bytes:
                return size
        return 0

    return workspace
