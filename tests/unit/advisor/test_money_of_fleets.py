"""Money over drawn fleets: bounds, sums, order; prices that are set, estimated, missing or in another currency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from math import fsum
from random import Random

import pytest
from gpu_advisor.cost.list_prices import shipped_list_prices
from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.engine import Evaluation, decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.prices import billable
from gpu_advisor.evaluation.recommendation import Recommendation, Scope
from gpu_advisor.evaluation.savings import summarize
from gpu_advisor.settings import Settings

from tests.unit.advisor.builders import with_values
from tests.unit.advisor.test_agreement import advice, drawn

GIB = 1 << 30

#: What people set. A price per node is divided by its GPUs; spot, reserved and on-premise prices are set as they are.
COSTS: Mapping[str, dict[str, object]] = {
    "list prices": {},
    "one model": {"gpu_price_per_hour": {"H100": 3.0}},
    "both models": {"gpu_price_per_hour": {"H100": 3.0, "A100-80GB": 1.5}},
    "no list prices": {"gpu_price_per_hour": {"H100": 3.0}, "list_prices": False},
    "another currency": {"currency": "EUR", "gpu_price_per_hour": {"H100": 2.7}},
    "on-premise": {"gpu_price_per_hour": {"H100": 0.07, "A100": 0.04}, "currency": "CHF"},
}


def sliced(random: Random, known: Facts) -> Facts:
    """Some GPUs as boards in MIG mode, with two slices each."""
    gpus = list(known.gpus)
    values = {name: dict(found) for name, found in known.values.items()}
    for board in known.gpus:
        if random.random() < 0.2 and board.up:
            for number in (1, 2):
                uuid = f"{board.uuid}-{number}"
                gpus.append(replace(board, uuid=uuid, index=f"{board.index}:{number}", mig_profile="1g.10gb",
                                    parent=board.uuid))  # fmt: skip
                for found in values.values():
                    if board.uuid in found:
                        found[uuid] = found[board.uuid]
    return replace(known, gpus=tuple(gpus), values=values)


def fleet(random: Random, cost: dict[str, object]) -> Evaluation:
    known, settings = drawn(random)
    known = with_values(known, {signals.MEMORY_TOTAL: {gpu.uuid: 80.0 * GIB for gpu in known.gpus}})
    known = replace(sliced(random, known), list_prices=shipped_list_prices())
    return decide(known, Settings.model_validate({**settings.model_dump(exclude_unset=True), "cost": cost}))


@pytest.mark.parametrize("cost", COSTS)
def test_money_of_drawn_fleets(cost: str) -> None:
    random, seen = Random(cost), set()
    for _ in range(40):
        found = fleet(random, COSTS[cost])
        check_each(found)
        check_sums(found)
        seen |= {each.savings.money.bound for each in found.recommendations if each.savings}
    assert {"exact", "at_most"} <= seen


def check_each(found: Evaluation) -> None:
    by_gpu, order = found.prices.by_gpu, []
    for each in found.recommendations:
        if each.savings is None:
            continue
        gpus, money = each.savings.gpus, each.savings.money
        assert 0 <= gpus.low <= (gpus.high if gpus.high is not None else len(each.gpus)) + 1e-9
        assert money.currency == found.prices.currency
        named = {uuid for waste in each.waste for uuid in waste.gpus} | set(each.gpus)
        most = fsum(by_gpu[uuid].amount for uuid in named if uuid in by_gpu)
        assert money.per_hour.low <= most + 1e-9
        if named <= by_gpu.keys() and money.per_hour.high is not None:
            assert money.per_hour.low <= money.per_hour.high <= most + 1e-9
        if money.bound == "exact" and money.value_per_hour:
            assert named & by_gpu.keys(), "a price of nothing"
        if money.value_per_hour is not None and money.value_per_month is not None:
            assert money.value_per_month == pytest.approx(730 * money.value_per_hour)
        if each.kind == "lost_gpu" and named <= by_gpu.keys():
            assert money.bound == "exact"
            assert money.value_per_hour == pytest.approx(most)
        order.append((each.severity, money.value_per_hour or 0.0, each.kind == "lost_gpu"))
    rank = {"critical": 0, "warning": 1, "info": 2}
    assert [rank[severity] for severity, _, _ in order] == sorted(rank[severity] for severity, _, _ in order)
    for (before, more, lost), (after, less, lost_too) in pairwise(order):
        assert before != after or lost > lost_too or more >= less - 1e-12


def check_sums(found: Evaluation) -> None:
    total = found.summarize(found.recommendations)
    for part in ("gpus", "money"):
        whole = total.waste.gpus if part == "gpus" else total.waste.money.per_hour
        for groups in total.by.values():
            spans = [each.worth.gpus if part == "gpus" else each.worth.money.per_hour for each in groups]
            if not spans:
                continue
            assert fsum(each.low for each in spans) == pytest.approx(whole.low)
            highs = [each.high for each in spans if each.high is not None]
            assert (len(highs) == len(spans)) == (whole.high is not None)
            assert whole.high is None or fsum(highs) == pytest.approx(whole.high)
    paid = [gpu.uuid for gpu in billable(found.facts.gpus)]
    if set(paid) <= found.prices.by_gpu.keys() and total.waste.money.per_hour.high is not None:
        assert total.waste.money.per_hour.high <= (found.prices.cost(paid).value_per_hour or 0.0) + 1e-9
    assert total.savings.money.per_hour.low <= total.waste.money.per_hour.low + 1e-9
    if total.waste.money.per_hour.high is not None and total.savings.money.per_hour.high is not None:
        assert total.savings.money.per_hour.high <= total.waste.money.per_hour.high + 1e-9


@pytest.mark.parametrize(
    ("found", "known"),
    [
        ((), True),  # nothing is to be saved
        ((advice("scale_up", "up", "replicas"),), True),
        ((advice("failing_gpu", on=(Scope("gpu", "a"), ("a",))),), False),  # not 0.00
        ((advice("straggler"), advice("scale_up", "up", "replicas")), False),
    ],
)
def test_what_has_no_measure_is_no_zero(found: tuple[Recommendation, ...], known: bool) -> None:
    evaluation = fleet(Random(0), {})
    total = summarize(found, evaluation.facts, [], evaluation.prices)
    for each in (total.savings.money, total.waste.money):
        assert each.value_per_hour == (0.0 if known else None)
