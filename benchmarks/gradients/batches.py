"""Batches of sequences: of several sizes, with padding, with sequences that have no label at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

FEATURES = 8
CLASSES = 6
IGNORED = -100

Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class BatchShape:
    """`lengths`: labeled positions of each sample, cyclic; others are padding. `micro`: samples of a part."""

    samples: int
    tokens: int
    lengths: tuple[int, ...]
    micro: int

    def __str__(self) -> str:
        return f"{self.samples}x{self.tokens}/{self.micro}"


SHAPES = (
    BatchShape(2, 4, (4,), 1),
    BatchShape(5, 7, (7, 3, 1, 5, 2), 2),
    BatchShape(8, 3, (3, 2, 1, 0, 0, 0, 0, 1), 3),  # a micro-batch may have no label
    BatchShape(13, 6, (1, 6, 2, 6, 3), 5),
    BatchShape(16, 5, (5, 5, 5, 5, 1, 1, 1, 1), 4),  # sorted by length
)


def make_batch(shape: BatchShape, seed: int = 0) -> dict[str, torch.Tensor]:
    """float64. x: [samples, tokens, FEATURES]; labels, mask: [samples, tokens]; the rest: targets of the losses."""
    generator = torch.Generator().manual_seed(seed)
    samples, tokens = shape.samples, shape.tokens

    def normal(*sizes: int) -> torch.Tensor:
        return torch.randn(samples, *sizes, generator=generator, dtype=torch.float64)

    lengths = torch.tensor([shape.lengths[each % len(shape.lengths)] for each in range(samples)])
    mask = torch.arange(tokens) < lengths[:, None]
    labels = torch.randint(CLASSES, (samples, tokens), generator=generator)
    return {
        "x": normal(tokens, FEATURES),
        "labels": labels.masked_fill(~mask, IGNORED),
        "all_labels": labels,
        "mask": mask.double(),
        "lengths": lengths,
        "y": normal(tokens, CLASSES),
        "class": torch.randint(CLASSES, (samples,), generator=generator),
        "sign": torch.randint(2, (samples,), generator=generator) * 2.0 - 1,
        "sample_weight": torch.rand(samples, generator=generator, dtype=torch.float64) + 0.1,
    }
