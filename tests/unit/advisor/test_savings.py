"""What recommendations save, their order, and their sum: known parts only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest
from gpu_advisor.documents.savings import RankedRecommendation, Savings, rank_by_savings, savings, total_savings
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.recommendation import Projection, Recommendation, Scope
from gpu_advisor.settings import Settings
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.advisor.builders import MODEL, GpuSpec, facts


def advice(**change: object) -> Recommendation:
    first = Recommendation(
        "k", "change", Scope("pool", "p"), "info", "s", 0, 0, "GPUs", "d", "e", "low", Projection(), (), (),
    )  # fmt: skip
    return dataclasses.replace(first, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "group", "price", "saved"),
    [
        ({"direction": "down", "current": 8, "recommended": 5}, 1, None, Savings(3)),
        ({"direction": "down", "current": 8, "recommended": 5}, 4, 2.0, Savings(12, 24.0)),
        ({"direction": "down", "current": 8, "recommended": 5, "projection": Projection(cost_change_per_hour=-7)}, 1, 2,
         Savings(3, 7)),
        ({"direction": "down", "current": 8, "recommended": 5, "projection": Projection(cost_change_per_hour=0.0)}, 1,
         2.0, Savings(3, 6.0)),
        ({"direction": "up", "current": 2, "recommended": 5, "projection": Projection(cost_change_per_hour=9)}, 1, 2.0,
         Savings()),
        ({"gpus": ("a", "b", "c", "d"), "projection": Projection(throughput_ratio=2.0)}, 1, 3.0, Savings(2.0, 6.0)),
        ({"gpus": ("a", "b", "c", "d"), "projection": Projection(throughput_ratio=2.0)}, 1, None, Savings(2.0)),
        ({"gpus": ("a",), "projection": Projection(throughput_ratio=1.0)}, 1, 3.0, Savings()),
        ({"gpus": ("a",), "projection": Projection(throughput_ratio=0.5)}, 1, 3.0, Savings()),
        ({"gpus": ("a",), "direction": "up", "projection": Projection(throughput_ratio=2.0)}, 1, 3.0, Savings()),
        ({"gpus": (), "projection": Projection(throughput_ratio=2.0)}, 1, 3.0, Savings()),
        ({"gpus": ("a",)}, 1, 3.0, Savings()),
    ],
)  # fmt: skip
def test_what_one_saves(change: dict[str, object], group: int, price: float | None, saved: Savings) -> None:
    assert savings(advice(**change), group, price) == saved


amounts = st.one_of(
    st.just(Savings()),
    st.floats(0, 9).map(Savings),
    st.tuples(st.floats(0, 9), st.floats(0, 9)).map(lambda t: Savings(*t)),
)


@given(st.lists(amounts, max_size=6))
def test_the_sum_is_of_what_is_known_and_money_only_if_all_of_it_is(found: list[Savings]) -> None:
    total = total_savings([RankedRecommendation(None, each) for each in found])  # type: ignore[arg-type]
    gpus = [each.gpus for each in found if each.gpus is not None]
    money = [each.money_per_hour for each in found if each.money_per_hour is not None]
    assert total.gpus == (pytest.approx(sum(gpus)) if gpus else None)
    assert total.money_per_hour == (pytest.approx(sum(money)) if gpus and len(money) == len(gpus) else None)


@dataclass(frozen=True)
class _Issued:
    id: str
    recommendation: Recommendation
    since: float = 0.0


@dataclass(frozen=True)
class _View:
    issued: tuple[_Issued, ...]
    evaluation: object


#: Three models in one pool: two with a price.
SETTINGS = Settings.model_validate({"pools": [{"name": "p", "kind": "serving", "gpus_per_replica": 2}]})
CARDS = [GpuSpec("dear", name=MODEL), GpuSpec("dear2", name=MODEL), GpuSpec("cheap", name="T4"), GpuSpec("x", name="Y")]
PRICES = {MODEL: 4.0, "T4": 0.5}


def ranked(*found: _Issued, prices: dict[str, float] = PRICES, evaluated: bool = True) -> list[RankedRecommendation]:
    evaluation = decide(facts(CARDS, SETTINGS), SETTINGS) if evaluated else None
    return rank_by_savings(_View(found, evaluation), prices)  # type: ignore[arg-type]


def recovering(uuids: tuple[str, ...], ratio: float = 2.0, **change: object) -> Recommendation:
    return advice(gpus=uuids, projection=Projection(throughput_ratio=ratio), **change)


def test_the_order_is_severity_then_savings_then_age_then_id() -> None:
    found = ranked(
        _Issued("a", recovering(("cheap",), severity="info")),
        _Issued("b", recovering(("dear",), severity="info")),
        _Issued("c", advice(severity="warning"), since=9.0),
        _Issued("d", advice(severity="warning"), since=3.0),
        _Issued("f", advice(severity="warning"), since=3.0),
        _Issued("e", recovering(("cheap",), severity="warning")),
        _Issued("z", advice(severity="critical")),
    )
    assert [each.issued.id for each in found] == ["z", "e", "d", "f", "c", "b", "a"]


def test_the_order_is_by_gpus_where_one_has_no_price() -> None:
    """A GPU without a price cannot be compared by money."""
    small, large = _Issued("a", recovering(("dear",), 1.2)), _Issued("b", recovering(("cheap",), 4.0))
    assert [each.issued.id for each in ranked(small, large)] == ["a", "b"]  # 0.67 beside 0.38 an hour
    unknown = _Issued("c", recovering(("x",), 1.1))
    assert [each.issued.id for each in ranked(small, large, unknown)] == ["b", "a", "c"]
    without = _Issued("d", advice())  # saves nothing that is known: does not hinder
    assert [each.issued.id for each in ranked(small, large, without)] == ["a", "b", "d"]


@pytest.mark.parametrize(
    ("uuids", "money"), [(("dear",), 2.0), (("dear", "dear2"), 4.0), (("dear", "cheap"), None), (("x",), None)]
)
def test_money_needs_one_price_for_all_gpus(uuids: tuple[str, ...], money: float | None) -> None:
    (found,) = ranked(_Issued("a", recovering(uuids)))
    assert found.savings == Savings(len(uuids) / 2, money)
    (unknown,) = ranked(_Issued("a", recovering(uuids)), evaluated=False)
    assert unknown.savings.money_per_hour is None


@pytest.mark.parametrize(("unit", "gpus"), [("replicas", 6), ("GPUs", 3), ("gangs", 3)])
def test_replicas_count_with_all_their_gpus(unit: str, gpus: float) -> None:
    (found,) = ranked(_Issued("a", advice(direction="down", current=5, recommended=2, unit=unit)))
    assert found.savings.gpus == gpus
    (elsewhere,) = ranked(
        _Issued("a", advice(direction="down", current=5, recommended=2, unit=unit, scope=Scope("pool", "q")))
    )
    assert elsewhere.savings.gpus == 3
