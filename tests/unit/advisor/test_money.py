"""Amounts within bounds, and what a GPU costs: the settings' price, an estimate at list prices, or unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date

import pytest
from gpu_advisor.cost.catalogue import builtin_catalogue
from gpu_advisor.cost.list_prices import CURRENCY, ListPrice, list_prices, shipped_list_prices
from gpu_advisor.cost.offers import ON_PREMISE, GpuVariant, InstanceOffer
from gpu_advisor.evaluation.engine import Evaluation, decide
from gpu_advisor.evaluation.money import (
    HOURS_PER_MONTH,
    NOTHING,
    UNKNOWN,
    Bound,
    GpuPrice,
    Interval,
    Money,
    total,
    unpriced,
)
from gpu_advisor.evaluation.prices import PriceList, Prices, billable, fleet_prices
from gpu_advisor.evaluation.recommendation import Check, CheckStatus
from gpu_advisor.hardware.gpu_types import GIB, known_gpu_types
from gpu_advisor.settings import CostSettings, Settings
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.unit.advisor.builders import GpuSpec, facts

SXM, PCIE, NVL = "NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA H100 NVL"
A40GB, A80GB = "NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB"

# Amounts


@pytest.mark.parametrize(
    ("amount", "bound", "value"),
    [
        (Interval.exactly(2.0), "exact", 2.0), (Interval.at_most(3.0), "at_most", 3.0),
        (Interval(1.0), "at_least", 1.0), (Interval(1.0, 3.0), "at_most", 3.0), (UNKNOWN, None, None),
        (NOTHING, "exact", 0.0),
    ],
)  # fmt: skip
def test_how_an_amount_is_read(amount: Interval, bound: Bound | None, value: float | None) -> None:
    assert (amount.bound, amount.value) == (bound, value)


intervals = st.one_of(
    st.floats(0, 1e6).map(Interval),
    st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)).map(lambda pair: Interval(min(pair), max(pair))),
)


@given(st.lists(intervals, max_size=6))
def test_a_sum_has_no_bound_that_a_part_has_not(parts: list[Interval]) -> None:
    found = total((Money(each, "USD") for each in parts), "USD").per_hour
    assert found.low == pytest.approx(sum(each.low for each in parts))
    assert (found.high is None) == any(each.high is None for each in parts)


def test_money_in_words() -> None:
    """A month has 365 x 24 / 12 = 730 hours: 2.5 x 730 = 1,825."""
    assert HOURS_PER_MONTH == 365 * 24 / 12
    words = {
        Interval.exactly(2.5): "2.50 EUR per hour (1,825 EUR per month)",
        Interval.at_most(2.5): "at most 2.50 EUR per hour (1,825 EUR per month)",
        Interval(2.5): "at least 2.50 EUR per hour (1,825 EUR per month)",
        UNKNOWN: "unknown",
    }
    assert {amount: str(Money(amount, "EUR")) for amount in words} == words
    listed = Money(Interval.exactly(2.5), "USD", True, "2026-01-01", "2026-09-20")
    assert str(listed).endswith("; estimate, list prices of 2026-01-01 to 2026-09-20)")


def test_a_sum_is_an_estimate_if_a_part_is() -> None:
    own = Money(Interval.exactly(1.0), "USD")
    old, new = (Money(Interval.exactly(1.0), "USD", True, at, at) for at in ("2026-01-01", "2026-09-20"))
    assert total([own, own], "USD").basis == ""
    assert total([own, old, new], "USD").basis == "estimate, list prices of 2026-01-01 to 2026-09-20"
    nothing = Money(NOTHING, "USD", True, "2020-01-01", "2020-01-01")
    assert total([new, nothing], "USD").basis == "estimate, list prices of 2026-09-20"
    assert unpriced(Interval.exactly(2), "USD").bound is None
    assert unpriced(NOTHING, "USD").bound == "exact"


# Prices of GPUs


def cost(prices: Mapping[str, float], **more: object) -> CostSettings:
    return CostSettings.model_validate({"gpu_price_per_hour": prices, **more})


LISTED = {
    GpuVariant("H100", 80.0): ListPrice(6.0, "USD", "2026-01-01", "2026-09-20", 3, ("aws",)),
    GpuVariant("A100", 40.0): ListPrice(3.0, "USD", "2026-01-01", "2026-01-01", 1, ("gcp",)),
}


@pytest.mark.parametrize(
    ("prices", "by_gpu"),
    [
        ({"H100": 2}, {SXM: 2, PCIE: 2, NVL: 2, A80GB: None}),
        ({"h100": 2}, {SXM: 2}),
        ({"NVIDIA H100": 2}, {SXM: 2}),
        ({SXM: 2}, {SXM: 2, PCIE: None, NVL: None}),
        ({"H100": 2, "H100 PCIe": 1}, {SXM: 2, PCIE: 1, NVL: 2}),
        ({"H100 SXM": 3, "H100 PCIe": 1, "H100-NVL": 2}, {SXM: 3, PCIE: 1, NVL: 2}),
        ({"H100 SXM": 3, "H100 PCIe": 1}, {"NVIDIA H100": None}),  # which of them, its name does not say
        ({"H100": 2, "NVIDIA H100 80GB HBM3": 5}, {SXM: 5, PCIE: 2}),
        ({"A100": 2}, {A40GB: 2, A80GB: 2}),
        ({"A100 80GB": 2}, {A40GB: None, A80GB: 2}),
        ({"A100-40GB": 1, "A100": 2}, {A40GB: 1, A80GB: 2}),
        ({"RTX 4090": 0.4, "T4": 0.3}, {"NVIDIA GeForce RTX 4090": 0.4, "Tesla T4": 0.3}),
        ({"NVIDIA GeForce GTX 1080 Ti": 0.1}, {"NVIDIA GeForce GTX 1080 Ti": 0.1}),
    ],
)
def test_the_most_specific_name_wins(prices: dict[str, float], by_gpu: dict[str, float | None]) -> None:
    known = PriceList(cost(prices), {})
    found = {gpu: known.price(gpu) for gpu in by_gpu}
    assert {gpu: price.amount if price else None for gpu, price in found.items()} == by_gpu


def test_a_card_with_two_sizes_needs_its_memory() -> None:
    """An A100 PCIe reports no size in its name on some drivers."""
    known = PriceList(cost({"A100-80GB": 2, "A100-40GB": 1}), LISTED)
    assert known.price("NVIDIA A100", 80 * GIB) == GpuPrice(2, "USD")
    assert known.price("NVIDIA A100", 40 * GIB) == GpuPrice(1, "USD")
    assert known.price("NVIDIA A100") is None
    assert PriceList(cost({}), LISTED).price("NVIDIA A100", 40 * GIB) == GpuPrice(
        3.0, "USD", True, "2026-01-01", "2026-01-01"
    )


@pytest.mark.parametrize(
    ("settings", "price"),
    [
        ({}, GpuPrice(6.0, "USD", True, "2026-01-01", "2026-09-20")),
        ({"list_prices": False}, None),
        ({"currency": "EUR"}, None),  # no exchange rate is made up
        ({"gpu_price_per_hour": {"H100": 2}}, GpuPrice(2.0, "USD")),
        ({"gpu_price_per_hour": {"H100": 2}, "currency": "EUR"}, GpuPrice(2.0, "EUR")),
        ({"gpu_price_per_hour": {"A100": 2}}, GpuPrice(6.0, "USD", True, "2026-01-01", "2026-09-20")),
    ],
)
def test_set_prices_win_and_list_prices_are_in_one_currency(
    settings: dict[str, object], price: GpuPrice | None
) -> None:
    assert PriceList(CostSettings.model_validate(settings), LISTED).price(SXM) == price


def test_unknown_names_and_currencies_are_refused_with_a_guess() -> None:
    for name in known_gpu_types():
        cost({name: 1})
    guesses = {
        "H10": "Did you mean H100?", "H1OO": "Did you mean H100?", "RTX409": "Did you mean RTX4090?",
        "": "is not a GPU type", "toaster": "Give a type such as H100",
    }  # fmt: skip
    for name, guess in guesses.items():
        with pytest.raises(ValidationError) as error:
            cost({name: 1})
        assert guess in str(error.value)
    with pytest.raises(ValidationError, match="Did you mean EUR"):
        cost({}, currency="eur")


@pytest.mark.parametrize("price", [0, -1, float("nan"), float("inf"), 1e13])
def test_a_price_is_positive_and_its_sums_are_numbers(price: float) -> None:
    with pytest.raises(ValidationError, match="H100"):
        cost({"H100": price})


# List prices


def offer(price: float, count: int = 1, day: int = 1, provider: str = "aws", memory: float = 80.0) -> InstanceOffer:
    return InstanceOffer(
        provider, "r", f"t{price}-{count}", "H100", count, memory, 1.0, 1.0, price, None, date(2026, 1, day), "s"
    )


def test_a_list_price_is_the_median_per_gpu_of_whole_cards() -> None:
    """8 GPUs for 24 are 3 each; 2, 3 and 10 have the median 3. Half a card and a machine of one's own are no offer."""
    offers = [offer(24, 8, 3), offer(2, day=1), offer(10, day=9, provider="gcp"),
              offer(0.5, memory=40.0), offer(0.1, provider=ON_PREMISE)]  # fmt: skip
    assert list_prices(offers) == {
        GpuVariant("H100", 80.0): ListPrice(3.0, CURRENCY, "2026-01-01", "2026-01-09", 3, ("aws", "gcp"))
    }


def test_shipped_prices_are_dated_and_plausible() -> None:
    """Every price is of a known type, has a date, and a newer generation costs more than the older."""
    shipped = shipped_list_prices()
    assert {each.name for each in shipped} <= known_gpu_types()
    for price in shipped.values():
        assert price.amount > 0
        assert date.fromisoformat(price.oldest) <= date.fromisoformat(price.newest)
    order = [GpuVariant("T4", 16.0), GpuVariant("A100", 40.0), GpuVariant("H100", 80.0)]
    amounts = [shipped[each].amount for each in order]
    assert amounts == sorted(amounts)
    catalogue = builtin_catalogue()
    gone = [each for each in catalogue.offers if catalogue.retirement(each.provider, each.instance_type, date.max)]
    assert {each.gpu.name for each in gone} >= {"M60", "V100"}
    for variant in {each.gpu for each in gone} & shipped.keys():  # others offer it still
        offers = [each for each in catalogue.offers if each.gpu == variant and each.card_ratio == 1]
        assert shipped[variant].offers == len(offers) - sum(each.gpu == variant for each in gone)


# A whole fleet


def evaluated(cards: list[GpuSpec], **cost: object) -> Evaluation:
    settings = Settings.model_validate({"cost": cost})
    return decide(facts(cards, settings, list_prices=LISTED), settings)


def cost_check(found: Evaluation) -> Check:
    return next(each for each in found.checks if each.item == "cost")


H, A, ODD = GpuSpec("h", name=SXM), GpuSpec("a", name=A40GB), GpuSpec("x", name="Odd GPU")


@pytest.mark.parametrize(
    ("cards", "settings", "status", "words"),
    [
        # 6 + 3 at list prices
        ([H, A], {}, CheckStatus.UNKNOWN, ["9.00 USD", "estimate, list prices of", "set cost.budget_per_hour"]),
        ([H, A], {"budget_per_hour": 10}, CheckStatus.MET, ["estimate, list prices of", "your own prices"]),
        ([H, A], {"budget_per_hour": 8}, CheckStatus.MISSED, ["estimate, list prices of"]),
        ([H], {"budget_per_hour": 8, "gpu_price_per_hour": {"H100": 5}}, CheckStatus.MET, []),
        # one of unknown price: missed is certain, met is not
        ([H, ODD], {"budget_per_hour": 5}, CheckStatus.MISSED, ["at least 6.00 USD", "no price for Odd GPU"]),
        ([H, ODD], {"budget_per_hour": 7}, CheckStatus.UNKNOWN, ["at least 6.00 USD", "no price for Odd GPU"]),
        ([H], {"budget_per_hour": 7, "currency": "EUR"}, CheckStatus.UNKNOWN, ["are not converted to EUR"]),
        ([H], {"budget_per_hour": 7, "list_prices": False}, CheckStatus.UNKNOWN, ["no price for NVIDIA H100"]),
    ],
)
def test_cost_check_says_what_it_rests_on(
    cards: list[GpuSpec], settings: dict[str, object], status: CheckStatus, words: list[str]
) -> None:
    found = cost_check(evaluated(cards, **settings))
    assert found.status is status
    assert [word for word in words if word not in found.message] == []
    if not words:
        assert found.message == ""


def test_a_slice_is_paid_with_its_board() -> None:
    """Slices have no price of their own; with their board they cost nothing more."""
    board = GpuSpec("b", name=SXM).gpu
    part = replace(board, uuid="m", mig_profile="1g.10gb", parent="b")
    assert billable([board, part]) == (board,)
    assert billable([part]) == (part,)
    known = replace(facts([], list_prices=LISTED), gpus=(board, part))
    assert fleet_prices(known, CostSettings()).by_gpu.keys() == {"b"}


def test_any_of_some_gpus_costs_between_the_cheapest_and_the_dearest() -> None:
    """2 of {1, 3, unknown}: at least the 1 that is not the unknown one; 2 of {1, 3, 3}: 2 to 6."""
    prices = Prices({"a": GpuPrice(1, "USD"), "b": GpuPrice(3, "USD"), "c": GpuPrice(3, "USD")}, "USD")
    assert prices.worth_of_any(2, ["a", "b", "c"]).per_hour == Interval(2, 6)
    assert prices.worth_of_any(2, ["a", "b", "x"]).per_hour == Interval(1, None)
    assert prices.worth_of_any(2, ["b", "c"]).bound == "exact"
    assert prices.worth_of_any(2, ["x", "y"]).bound is None
