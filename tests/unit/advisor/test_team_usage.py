"""GPUs by team and namespace: sums by hand, and nothing counted that is not known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.money import GpuPrice
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.evaluation.savings import NO_NAMESPACE, NO_TEAM
from gpu_advisor.evaluation.team_usage import TeamUsage, team_usage
from gpu_advisor.settings import Settings
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.advisor.builders import GpuSpec, facts

VISION = GpuOwner("vision", "a", team="Perception")
LANGUAGE = GpuOwner("language", "b", team="Models")


def test_sums_by_hand() -> None:
    fleet = facts(
        [GpuSpec("g1", 0.25), GpuSpec("g2", None), GpuSpec("g3", 0.5), GpuSpec("g4", 1.0), GpuSpec("g5", 0.0),
         GpuSpec("g6", 1.0)],
        owners={"g1": (VISION,), "g2": (VISION,), "g3": (LANGUAGE,), "g4": (LANGUAGE, VISION), "g6": (VISION,)},
    )  # fmt: skip
    prices = {uuid: GpuPrice(2.0, "EUR", uuid == "g1") for uuid in ("g1", "g2", "g3", "g4", "g6")}
    assert team_usage(fleet, prices) == (
        TeamUsage("Models", "language", 1, 1, 0.5, 1.0, "EUR", False),
        TeamUsage("Models and Perception", "language and vision", 1, 1, 1.0, 0.0, "EUR", False),
        TeamUsage("Perception", "vision", 3, 2, 1.25, 1.5, "EUR", True),
        TeamUsage(NO_TEAM, NO_NAMESPACE, 1, 1, 0.0, None),
    )


def test_of_a_gpu_in_mig_mode_the_slices_count() -> None:
    fleet = facts([GpuSpec("board", None), GpuSpec("slice", 0.5)], owners={"slice": (VISION,)})
    board, part = fleet.gpus
    fleet = replace(fleet, gpus=(board, replace(part, mig_profile="1g.10gb", parent="board")))
    [found] = team_usage(fleet, {})
    assert (found.team, found.gpus, found.busy) == ("Perception", 1, 0.5)


@given(
    st.lists(
        st.tuples(st.sampled_from([(), (VISION,), (LANGUAGE,), (VISION, LANGUAGE)]), st.none() | st.floats(0, 1)),
        min_size=1,
        max_size=8,
    )
)
def test_every_gpu_is_in_one_row(fleet: list[tuple[tuple[GpuOwner, ...], float | None]]) -> None:
    cards = [GpuSpec(f"g{i}", utilization) for i, (_, utilization) in enumerate(fleet)]
    found = team_usage(facts(cards, owners={f"g{i}": owners for i, (owners, _) in enumerate(fleet)}), {})
    assert len({(each.team, each.namespace) for each in found}) == len(found)
    assert sum(each.gpus for each in found) == len(fleet)
    known = [utilization for _, utilization in fleet if utilization is not None]
    assert sum(each.measured for each in found) == len(known)
    assert sum(each.busy for each in found) == pytest.approx(sum(known))


def test_the_engine_has_the_prices() -> None:
    settings = Settings.model_validate({"cost": {"gpu_price_per_hour": {"NVIDIA H100": 2.0}}})
    evaluation = decide(facts([GpuSpec("g1", 0.25)], settings), settings)
    [found] = team_usage(evaluation.facts, evaluation.prices.by_gpu)
    assert found.unused_cost_per_hour == pytest.approx(1.5)
