"""The grid: each scenario on each model by each exporter gets the right advice, or one question.

Facts come from an embedded history of simulated time, so that nothing waits.
"""

from __future__ import annotations

from functools import cache

import pytest
from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.diagnosis.inputs import INPUTS
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.policies import unseen_errors
from gpu_exporter.devices.simulated import SCENARIOS
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.grid import cells, fleet
from benchmarks.grid.cells import COLUMNS, Verdict, judge
from benchmarks.grid.expectations import BLIND_TO_LOST_GPUS, RIGHT_ADVICE, TOGETHER
from tests.contradictions import contradictions

#: One column with all signals, and those with the fewest of each vendor.
RICH, POOR = COLUMNS[0], (("A100-80GB", "dcgm-exporter"), ("RTX4090-24GB", "nvidia_gpu_exporter"), COLUMNS[-1])

#: Right on each GPU through our exporter, which has throttle reasons and owners everywhere.
SEEN_EVERYWHERE = frozenset(
    {"throttled", "power-limited", "straggler", "idle", "idle-hoarder", "small-batch", "failing"}
)


@cache
def observed(column: tuple[str, str]) -> tuple[Facts, dict[str, str]]:
    return cells.observe(column)


def test_the_expectations_are_for_all_scenarios() -> None:
    assert list(RIGHT_ADVICE) == list(SCENARIOS)
    assert {name for group in TOGETHER for name in group} <= set(SCENARIOS)


@pytest.mark.parametrize("column", COLUMNS, ids="/".join)
def test_advice_is_right_or_abstains_and_names_one_input(column: tuple[str, str]) -> None:
    found = tuple(cells.column_cells(column))
    assert [cell.scenario for cell in found] == list(SCENARIOS)
    assert not [cell for cell in found if cell.verdict in (Verdict.FALSE, Verdict.SILENT)]
    asked = {cell.question for cell in found if cell.verdict is Verdict.ABSTAINS}
    assert asked <= {*INPUTS, unseen_errors.INPUT}
    invisible = [cell.scenario for cell in found if cell.verdict is Verdict.INVISIBLE]
    assert invisible == (["lost"] if column[1] in BLIND_TO_LOST_GPUS else [])
    if column[1] == "gpu-exporter":
        assert {cell.scenario for cell in found if cell.verdict is Verdict.RIGHT} >= SEEN_EVERYWHERE
    if column == RICH:
        assert {cell.verdict for cell in found} == {Verdict.RIGHT}


@pytest.mark.parametrize("column", [RICH, *POOR], ids="/".join)
def test_once_the_kind_of_the_pool_is_set_nobody_asks_for_it(column: tuple[str, str]) -> None:
    facts, scenario_of = observed(column)
    for scenario, gpus in fleet.gpus_by_scenario(facts, scenario_of).items():
        group = next((names for names in TOGETHER if scenario in names), (scenario,))
        kind = "serving" if scenario in ("saturated-serving", "small-service") else "training"
        pools = {"pools": [{"name": "p", "kind": kind}], "resources": {"gpu": {"min": 0, "max": 1000}}}
        one = fleet.only(facts, {gpu.uuid for gpu in facts.gpus if scenario_of[gpu.uuid] in group})
        evaluation = decide(one, cells.settings().model_validate(pools))
        cell = judge(column, scenario, {gpu.uuid for gpu in gpus}, evaluation)
        assert cell.verdict not in (Verdict.FALSE, Verdict.SILENT), cell
        assert cell.question != "pool_kind", cell


@pytest.mark.parametrize("column", [RICH, *POOR], ids="/".join)
def test_all_recommendations_can_be_followed_together(column: tuple[str, str]) -> None:
    facts, _ = observed(column)
    assert contradictions(decide(facts, cells.settings()).recommendations, facts) == []


def kinds(facts: Facts, scenario_of: dict[str, str]) -> dict[str, frozenset[str]]:
    evaluation = decide(facts, cells.settings())
    groups = fleet.gpus_by_scenario(facts, scenario_of)
    return {name: cells.advice(evaluation, {gpu.uuid for gpu in gpus}) for name, gpus in groups.items()}


def present(facts: Facts) -> list[str]:
    return [signal.name for signal in signals.SIGNALS if facts.values.get(signal.name)]


@pytest.mark.parametrize("column", [RICH, POOR[1]], ids="/".join)
def test_without_one_signal_no_cause_is_new(column: tuple[str, str]) -> None:
    facts, scenario_of = observed(column)
    whole = kinds(facts, scenario_of)
    for name in present(facts):
        fewer = kinds(fleet.without(facts, {name}), scenario_of)
        assert all(fewer[scenario] <= whole[scenario] for scenario in whole), name


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_without_several_signals_no_cause_is_new(data: st.DataObject) -> None:
    facts, scenario_of = observed(data.draw(st.sampled_from([RICH, ("A100-80GB", "gpu-exporter"), *POOR])))
    removed = data.draw(st.sets(st.sampled_from(present(facts)), min_size=2))
    whole, fewer = kinds(facts, scenario_of), kinds(fleet.without(facts, removed), scenario_of)
    assert all(fewer[scenario] <= whole[scenario] for scenario in whole)
