"""Micro-batches have the gradients of their batch, or are refused: a slice of `python -m benchmarks.gradients`."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.gradients.batches import SHAPES
from benchmarks.gradients.comparison import compare
from benchmarks.gradients.losses import LOSSES
from benchmarks.gradients.models import COUPLED, MODELS, SEPARABLE

pytestmark = pytest.mark.filterwarnings("ignore")  # of the variance of a single sample

#: Every loss and every model, each with some of the others.
ROTATED = [
    (loss, list(SEPARABLE)[number % len(SEPARABLE)], SHAPES[1 + number % 4]) for number, loss in enumerate(LOSSES)
]
CASES = [*ROTATED, *itertools.product(["tokens", "squared error"], MODELS, SHAPES[1:2])]


@pytest.mark.parametrize(("loss", "model", "shape"), CASES, ids=lambda each: str(each))
def test_gradients_are_equal_or_refused(loss, model, shape):
    found = compare(loss, model, shape)
    assert found.equal or found.refused, found.error_ratio
    assert not (found.refused and found.has_exact_weight), found.reason
    assert not (found.equal and model in COUPLED)


def test_the_harness_is_as_large_as_it_says():
    assert sum(loss.exact for loss in LOSSES.values()) >= 30
    assert len(SEPARABLE) >= 10
    assert len(SHAPES) >= 5
