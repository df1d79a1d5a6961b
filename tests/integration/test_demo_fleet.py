"""README's simulated fleet: each fault is found, the lost GPU is first, and the money is there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import fsum
from pathlib import Path

import pytest
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.settings import Settings
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.openmetrics_import import import_openmetrics
from gpu_advisor.sources.embedded.source import EmbeddedSource
from gpu_exporter.devices.simulated import SCENARIOS, generate_history, parse_fleet
from gpu_exporter.exposition import render_history
from gpu_exporter.metrics import FamilySamples

from tests.contradictions import contradictions
from tests.integration.test_scenarios import AT, EXPECTED, LENGTH_SECONDS, START, TARGET, UNAME, UP

README = Path(__file__).parents[2] / "README.md"
_FLEET = re.search(r"make up SIMULATE=(\S+)", README.read_text(encoding="utf-8"))
assert _FLEET, "README has no simulated fleet"
FLEET = _FLEET[1]


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluation]:
    """With no settings at all, as `make up` has none."""
    history = History(tmp_path_factory.mktemp("demo") / "history.db")
    import_openmetrics(history, iter(list(render_history(_past()))), *TARGET)
    yield evaluate(EmbeddedSource(history), Settings(), AT)
    history.close()


def _past() -> Iterator[tuple[float, list[FamilySamples]]]:
    target = [FamilySamples(UNAME, ((("node-1",), 1.0),)), FamilySamples(UP, ((TARGET, 1.0),))]
    for at, samples in generate_history(FLEET, 0, "node-1", START, START + LENGTH_SECONDS, 15):
        yield at, [*samples, *target]


def uuids_by_scenario() -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = {}
    for gpu in parse_fleet(FLEET):
        name = next(name for name, scenario in SCENARIOS.items() if scenario is gpu.scenario)
        found.setdefault(name, set()).add(gpu.identity.uuid)
    return found


def test_each_fault_is_found_and_nothing_else(evaluation: Evaluation) -> None:
    reported = {each.kind: set(each.gpus) for each in evaluation.recommendations}
    assert reported == {kind: uuids for name, uuids in uuids_by_scenario().items() for kind in EXPECTED[name]}


def test_all_recommendations_can_be_followed_together(evaluation: Evaluation) -> None:
    assert contradictions(evaluation.recommendations, evaluation.facts) == []


def test_the_lost_gpu_is_first(evaluation: Evaluation) -> None:
    assert evaluation.recommendations[0].kind == "lost_gpu"
    assert set(evaluation.recommendations[0].gpus) == uuids_by_scenario()["lost"]


def test_each_is_worth_money_estimated_at_dated_list_prices(evaluation: Evaluation) -> None:
    for each in evaluation.recommendations:
        assert each.savings is not None
        money = each.savings.money
        prices = [evaluation.prices.by_gpu[uuid].amount for uuid in each.gpus]
        assert money.estimated
        assert re.fullmatch(r"estimate, list prices of \d{4}-\d\d-\d\d( to \d{4}-\d\d-\d\d)?", money.basis)
        assert 0 < (money.value_per_hour or 0.0) <= fsum(prices) + 1e-9


def test_the_sum_is_that_of_the_parts(evaluation: Evaluation) -> None:
    """No GPU has two faults in this fleet."""
    parts = [each.savings.money.per_hour for each in evaluation.recommendations if each.savings]
    total = evaluation.summarize(evaluation.recommendations)
    assert total.savings.money.per_hour.low == pytest.approx(fsum(each.low for each in parts))
    assert total.savings.money.value_per_hour == pytest.approx(fsum(each.high or 0.0 for each in parts))
    for groups in total.by.values():
        assert fsum(each.worth.money.value_per_hour or 0.0 for each in groups) == pytest.approx(
            total.waste.money.value_per_hour
        )


def test_the_cost_of_the_fleet_has_the_lost_gpu(evaluation: Evaluation) -> None:
    (cost,) = [each for each in evaluation.checks if each.item == "cost"]
    assert len(evaluation.prices.by_gpu) == len(parse_fleet(FLEET))
    assert "lost GPU" in cost.message
    assert "estimate, list prices of" in cost.message
