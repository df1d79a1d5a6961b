"""The benchmark of replicas that go: its pools, and what counts as right and as false."""

from __future__ import annotations

import pytest

from benchmarks.serving_removals import KINDS, Decided, Totals


@pytest.mark.parametrize("kind", KINDS)
def test_pools_have_several_replicas_and_are_drawn_by_their_seed(kind: str) -> None:
    drawn = [KINDS[kind](seed) for seed in range(6)]
    assert drawn == [KINDS[kind](seed) for seed in range(6)]
    assert len({each.load for each in drawn}) == len(drawn)
    for each in drawn:
        assert each.name == kind
        assert 2 <= len(each.delays) <= 5
        assert each.load.rate > 0


@pytest.mark.parametrize(
    ("enough", "recommended", "kept", "counted"),
    [
        (3, 3, 1.0, Totals(1)),  # none could go, none does
        (2, 3, 1.0, Totals(1, could=1)),
        (2, 2, 0.999, Totals(1, could=1, did=1, removed=1)),
        (3, 2, 0.97, Totals(1, removed=1)),  # hardly enough
        (3, 2, 0.94, Totals(1, removed=1, false=1)),
        (2, 1, 0.5, Totals(1, could=1, did=1, removed=1, false=1)),  # one too many
    ],
)
def test_a_removal_is_false_where_those_left_miss_the_objectives(
    enough: int, recommended: int, kept: float, counted: Totals
) -> None:
    totals = Totals()
    totals.add(Decided("long_prompts", 0, 3, enough, recommended, kept))
    assert totals == counted
