"""The number of samples of a batch, and its parts: right, or refused before the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from gpu_advisor.training import MemoryManager
from gpu_advisor.training.batches import sample_count
from gpu_advisor.training.memory.errors import MemoryManagerError
from gpu_advisor.training.memory.micro_batch import count_samples, part_ranges, split_batch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence


def images(count: int, *sizes: int) -> list[torch.Tensor]:
    return [torch.full(sizes, float(number)) for number in range(count)]


def boxes(*counts: int) -> list[dict[str, torch.Tensor]]:
    return [{"boxes": torch.zeros(count, 4), "number": torch.tensor(number)} for number, count in enumerate(counts)]


@dataclass
class Sample:
    x: torch.Tensor
    name: str = "a"


class Custom:
    """A batch class of the user's own."""

    def __init__(self, samples: int) -> None:
        self.x = torch.zeros(samples, 2)


@pytest.mark.parametrize(
    ("batch", "samples"),
    [
        (torch.zeros(5, 2), 5),
        (np.zeros((5, 2)), 5),
        ([torch.zeros(5, 2), torch.zeros(5)], 5),
        ((torch.zeros(2, 2), torch.zeros(2, 1)), 2),
        ((torch.zeros(2, 3), torch.zeros(2, 3)), 2),
        ((torch.zeros(1, 6), torch.zeros(1)), 1),  # the last batch of an epoch
        ([torch.zeros(1, 3, 9, 9), torch.zeros(1, 4), torch.zeros(1)], 1),
        (({"ids": torch.zeros(1, 4)}, torch.zeros(1)), 1),
        ((torch.zeros(8, 3), torch.zeros(8, 3), torch.zeros(8, 3)), 8),  # a triplet
        ([torch.zeros(16, 3, 9, 9)] * 2 + [torch.zeros(16, 3, 5, 5)] * 6, 16),  # views of different sizes
        (({"ids": torch.zeros(6, 4)}, {"ids": torch.zeros(6, 7)}), 6),  # two encodings
        ((images(8, 3, 10, 10), boxes(*[3] * 8)), 8),
        ((images(8, 12, 4), boxes(*range(8))), 8),
        ((images(2, 3, 5, 5), boxes(1, 2)), 2),
        (images(8, 3, 10, 10), 8),
        ([torch.zeros(length, 4) for length in (3, 5, 2)], 3),  # sequences of different lengths
        ({"x": torch.zeros(6, 2), "weight": np.arange(6.0), "id": ["a"] * 6, "n": 6, "position": torch.zeros(1, 2)}, 6),
        (Sample(torch.zeros(7, 1)), 7),
        (["one text", "another"], 2),
        ({"text": ["a", "b", "c"], "label": [0, 1, 0]}, 3),
        (pack_sequence([torch.zeros(length, 2) for length in (4, 3, 1)]), 3),
        (torch.nested.nested_tensor([torch.zeros(2, 3), torch.zeros(4, 3)]), 2),
    ],
    ids=lambda each: type(each).__name__,
)
def test_samples_are_counted(batch, samples):
    assert count_samples(batch) == samples
    assert sample_count(batch) in (samples, None)


@pytest.mark.parametrize(
    ("batch", "why"),
    [
        ({"rope": torch.zeros(16, 2), "x": torch.zeros(6, 2)}, "disagree on the number of samples: 6, 16"),
        ({"mask": torch.zeros(4, 4), "x": torch.zeros(6, 4)}, "disagree"),
        (images(8, 12, 4), "8 or 12 samples"),
        (images(2, 3, 5, 5), "2 or 3 samples"),
        (Custom(4), "holds a Custom"),
        ({"x": torch.zeros(4, 2), "graph": Custom(4)}, "holds a Custom"),
        ({"x": torch.zeros(4, 2), "more": iter([1])}, "holds a list_iterator"),
        ({"lr": 0.1}, "no tensor with samples"),
        ([], "no tensor with samples"),
    ],
)
def test_what_cannot_be_divided_is_refused_at_the_first_step(batch, why):
    with pytest.raises(MemoryManagerError, match=f"{why}.*pass split= and count="):
        MemoryManager(nn.Linear(2, 1)).backward(batch, lambda model, part: model(torch.zeros(1, 2)).sum())


def test_with_split_and_count_any_batch_is_divided():
    model = nn.Linear(2, 1)
    manager = MemoryManager(model)
    manager.micro_batch_size = 3
    sizes: list[int] = []

    def loss(net: nn.Module, part: Custom) -> Any:
        sizes.append(len(part.x))
        return net(part.x + 1).square().mean()

    def split(batch: Custom, size: int) -> list[Custom]:
        return [Custom(len(part)) for part in torch.split(batch.x, size)]

    manager.backward(Custom(7), loss, split=split, count=lambda batch: len(batch.x))
    assert sizes[-3:] == [3, 3, 1]


def test_parts_of_detection_batches_keep_images_and_boxes_together():
    batch = (images(5, 3, 4, 4), boxes(1, 2, 3, 4, 5))
    parts = list(split_batch(batch, 2))
    assert [len(part[0]) for part in parts] == [len(part[1]) for part in parts] == [1, 2, 2]
    numbers = [(int(image[0, 0, 0]), int(box["number"])) for part in parts for image, box in zip(*part, strict=True)]
    assert numbers == [(number, number) for number in range(5)]


def test_parts_of_packed_and_nested_sequences():
    sequences = [torch.full((length, 2), float(length)) for length in (2, 5, 1, 3)]
    packed = pack_sequence(sequences, enforce_sorted=False)
    found = [each for part in split_batch(packed, 2) for each in unpack_sequence(part)]
    assert all(map(torch.equal, found, sequences))
    nested = torch.nested.nested_tensor(sequences)
    found = [each for part in split_batch(nested, 3) for each in part.unbind()]
    assert all(map(torch.equal, found, sequences))


@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 5))
def test_ranges_cover_all_samples_and_no_part_is_too_small(count, most, least):
    ranges = part_ranges(count, most, least)
    assert [number for first, end in ranges for number in range(first, end)] == list(range(count))
    sizes = [end - first for first, end in ranges]
    assert min(sizes) >= min(least, count)
    assert max(sizes) - min(sizes) <= 1
    if most >= 2 * least:
        assert max(sizes) <= most
