"""What recommendations save, worked out by hand; their order; and sums in which no GPU counts twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from math import fsum
from typing import Any, get_args

import pytest
from gpu_advisor.documents.savings import Savings, by_urgency, savings_fields
from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.engine import Evaluation, decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.money import Bound, GpuPrice, Interval, Money
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.evaluation.pools import assign_pools
from gpu_advisor.evaluation.prices import Prices
from gpu_advisor.evaluation.recommendation import Projection, Recommendation, Scope, Waste
from gpu_advisor.evaluation.recommendation import Savings as Worth
from gpu_advisor.evaluation.savings import GroupBy, savings_of, summarize, urgency, with_savings
from gpu_advisor.evaluation.signals import Signal
from gpu_advisor.settings import Settings
from gpu_advisor.state.view import PublishedRecommendation
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.advisor.builders import GpuSpec, facts
from tests.unit.advisor.test_lost import fleet as fleet_with_lost
from tests.unit.advisor.test_policies_diagnosed import WAITING, fleet

POOL = {"name": "p", "kind": "training", "gpu": {"min": 0, "max": 64}}
#: An H100 costs 4 USD an hour in all of these.
SETTINGS = Settings.model_validate({"pools": [POOL], "cost": {"gpu_price_per_hour": {"H100": 4}}})
H100 = "NVIDIA H100 80GB HBM3"


def advice(**change: Any) -> Recommendation:
    first = Recommendation(
        "k", "change", Scope("pool", "p"), "info", "s", 0, 0, "GPUs", "d", "e", "low", (), (),
    )  # fmt: skip
    return dataclasses.replace(first, **change)


@pytest.mark.parametrize(("gpus", "priced"), [((), False), (("g0",), True)])
def test_what_gpus_that_are_unknown_are_worth_is_unknown(gpus: tuple[str, ...], priced: bool) -> None:
    """Of an inference server that is joined to no GPU."""
    known = facts([GpuSpec("g0", 0.5, name=H100)], SETTINGS)
    (pool,) = assign_pools(known.gpus, SETTINGS.pools)
    projection = Projection(intervals={"throughput_ratio": (1.0, 2.0)})
    found = with_savings(advice(gpus=gpus, projection=projection), pool, Prices({"g0": GpuPrice(4.0, "USD")}, "USD"))
    assert (found.savings is not None) is priced


def with_values(known: Facts, values: Mapping[Signal, Mapping[str, float]]) -> Facts:
    merged = {name: dict(found) for name, found in known.values.items()}
    for signal, found in values.items():
        merged[signal.name] = {**merged.get(signal.name, {}), **found}
    return dataclasses.replace(known, values=merged)


def idle(count: int, busy: int = 0, **more: Any) -> Facts:
    """GPUs of one node: idle ones g0, g1, ..., then busy ones."""
    cards = [
        GpuSpec(f"g{n}", 0.0 if n < count else 0.95, memory=0.5, name=H100, index=str(n)) for n in range(count + busy)
    ]
    return facts(cards, SETTINGS, **more)


def pods(**names: str) -> dict[str, tuple[GpuOwner, ...]]:
    """`g0="a"`: pod `team/a`, which began long ago. Several owners: `g0="a b"`."""
    return {
        uuid: tuple(GpuOwner("team", name, started=0.0, kind="kubernetes") for name in text.split())
        for uuid, text in names.items()
    }


def hot() -> Facts:
    """Four GPUs of which one is hot, at 70 % of its clock."""
    clocks = {f"GPU-{n}": 0.7 if n == 3 else 1.0 for n in range(4)}
    known = fleet(4, {signals.SM_ACTIVITY: 0.8, signals.SM_CLOCK_MAX: 1980e6}, utilization=0.9)
    return with_values(known, {
        signals.SM_CLOCK: {uuid: 1980e6 * ratio for uuid, ratio in clocks.items()},
        signals.THROTTLE_HW_THERMAL: {uuid: 0.8 if uuid == "GPU-3" else 0.0 for uuid in clocks},
        signals.THROTTLE_SW_THERMAL: dict.fromkeys(clocks, 0.0),
    })  # fmt: skip


def slow_rank() -> Facts:
    """Three of four ranks wait for 30 % of each step, the slow one for 5 %."""
    known = fleet(4, {signals.JOB_STEP_TIME: 1.0}, dict.fromkeys(range(4), "llm"), utilization=0.95)
    waits = {f"GPU-{n}": 0.05 if n == 0 else 0.30 for n in range(4)}
    return with_values(known, {signals.JOB_COMMUNICATION: waits, signals.JOB_DATA_WAIT: dict.fromkeys(waits, 0.0)})


#: Facts, kind of advice, GPUs and money per hour by hand.
BY_HAND: Mapping[str, tuple[Callable[[], Facts], str, Bound, float, float]] = {
    # 8 GPUs x 0.98 of the time in steps x 0.49 / 0.98 of a step = 8 x 0.49 = 3.92 GPUs; x 4 USD
    "data": (lambda: fleet(8, WAITING), "data_loading", "exact", 3.92, 15.68),
    # a node whose 4 GPUs are all idle can be released: 4 x 4 USD
    "idle node": (lambda: idle(4), "idle_reclaim", "exact", 4, 16),
    # 2 of 4 without owners: the node stays, so at most 2 x 4 USD
    "part of a node": (lambda: idle(2, 2), "idle_reclaim", "at_most", 2, 8),
    # a pod holds just the 2 idle GPUs: its scheduler gives both to others, 2 x 4 USD
    "idle pod": (lambda: idle(2, 2, owners=pods(g0="a", g1="a", g2="b", g3="b")), "idle_reclaim", "exact", 2, 8),
    # 1 lost GPU, paid for whole
    "lost": (lambda: with_name(fleet_with_lost(7, 1), H100), "lost_gpu", "exact", 1, 4),
    # 1 GPU at 0.7 of its peers' clock, busy 0.9 of the time: at most 0.3 x 0.9 = 0.27 GPUs; x 4 USD
    "hot": (hot, "cooling", "at_most", 0.27, 1.08),
    # 2 GPUs wait for 0.3 of each step for others, some of which may overlap: at most 0.6 GPUs; x 4 USD
    "communication": (
        lambda: fleet(2, {signals.JOB_STEP_TIME: 1.0, signals.JOB_COMMUNICATION: 0.3}, utilization=0.95),
        "communication", "at_most", 0.6, 2.4,
    ),
    # 2 GPUs run kernels on 0.04 of their SMs: at most 2 x 0.96 = 1.92 GPUs; x 4 USD
    "spinning": (lambda: fleet(2, {signals.SM_ACTIVITY: 0.04}, utilization=1.0), "profiling", "at_most", 1.92, 7.68),
    # 4 GPUs whose SMs are active for 0.25 of the time, memory half free: at most 4 x 0.75 = 3 GPUs; x 4 USD
    "small kernels": (
        lambda: fleet(4, {signals.SM_ACTIVITY: 0.25, signals.DRAM_ACTIVITY: 0.1}, {0: "a", 1: "a", 2: "a", 3: "a"},
                      utilization=0.7),
        "batch_size", "at_most", 3, 12,
    ),
    # 3 ranks wait for 0.30 - 0.05 of each step longer than the slow one: 0.75 GPUs; x 4 USD
    "straggler": (slow_rank, "straggler", "exact", 0.75, 3),
}  # fmt: skip


def with_name(known: Facts, name: str) -> Facts:
    return dataclasses.replace(known, gpus=tuple(dataclasses.replace(gpu, name=name) for gpu in known.gpus))


@pytest.mark.parametrize("case", BY_HAND)
def test_money_by_hand(case: str) -> None:
    make, kind, bound, gpus, per_hour = BY_HAND[case]
    (found,) = [each for each in decide(make(), SETTINGS).recommendations if each.kind == kind]
    fields = savings_fields(found.savings)
    assert (fields["savings_bound"], fields["currency"], fields["estimated"]) == (bound, "USD", False)
    assert fields["savings_gpus"] == pytest.approx(gpus)
    assert fields["savings_per_hour"] == pytest.approx(per_hour)
    assert fields["savings_per_month"] == pytest.approx(per_hour * 730)


@pytest.mark.parametrize(
    ("direction", "unit", "current", "recommended", "group", "gpus"),
    [
        ("down", "GPUs", 8, 5, 1, 3), ("down", "GPUs", 8, 5, 4, 3), ("down", "replicas", 5, 2, 2, 6),
        ("down", "gangs", 5, 2, 4, 12), ("up", "GPUs", 2, 5, 1, None), ("change", "replicas", 5, 2, 2, None),
    ],
)  # fmt: skip
def test_released_gpus_count_with_their_replicas(
    direction: str, unit: str, current: int, recommended: int, group: int, gpus: int | None
) -> None:
    """12 GPUs of 4 USD: releasing saves their price, adding costs it."""
    settings = Settings.model_validate({"pools": [{**POOL, "gpus_per_replica": group}]})
    known = idle(0, 12)
    (pool,) = assign_pools(known.gpus, settings.pools)
    prices = Prices({gpu.uuid: GpuPrice(4.0, "USD") for gpu in known.gpus}, "USD")
    before = advice(direction=direction, unit=unit, current=current, recommended=recommended, gpus=tuple(pool.uuids))
    found = with_savings(before, pool, prices)
    assert Savings.of(found.savings).gpus == gpus
    assert Savings.of(found.savings).money_per_hour == (None if gpus is None else gpus * 4)
    change = {"up": 3 * 4.0, "down": -4.0 * (gpus or 0), "change": None}[direction]
    assert found.projection.cost_change_per_hour == change


@pytest.mark.parametrize(
    ("kind", "projection", "bound", "gpus"),
    [
        # twice the throughput: half of 4 GPUs does nothing now
        ("batch_size", Projection(throughput_ratio=2.0), "exact", 2.0),
        ("batch_size", Projection(throughput_ratio=1.0), None, None),
        ("batch_size", Projection(), None, None),
        ("mixed_precision", Projection(throughput_ratio=2.0), None, None),  # no figure of this job
        # a server that could do 1.2 to 1.6 times as much: at most 1 - 1 / 1.6 = 0.375 of 4 GPUs
        ("serving_batch", Projection(throughput_ratio=1.4, intervals={"throughput_ratio": (1.2, 1.6)}), "at_most", 1.5),
        ("serving_batch", Projection(throughput_ratio=0.9, intervals={"throughput_ratio": (0.8, 1.0)}), None, None),
    ],
)
def test_a_projected_throughput_is_work_that_is_not_done_now(
    kind: str, projection: Projection, bound: Bound | None, gpus: float | None
) -> None:
    known = idle(4)
    (pool,) = assign_pools(known.gpus, SETTINGS.pools)
    prices = Prices({gpu.uuid: GpuPrice(4.0, "USD") for gpu in known.gpus}, "USD")
    found = with_savings(advice(kind=kind, gpus=tuple(pool.uuids), projection=projection), pool, prices).savings
    assert Savings.of(found).bound == bound
    assert Savings.of(found).gpus == (None if gpus is None else pytest.approx(gpus))


def test_savings_of_the_gpus_of_one_owner() -> None:
    """Of 4 idle GPUs of a node at 4 USD, one owner's 1 costs 4; what is known of all is that of the whole."""
    (whole,) = decide(idle(4), SETTINGS).recommendations
    prices = Prices(dict.fromkeys(whole.gpus, GpuPrice(4.0, "USD")), "USD")
    one = savings_of(whole, ["g0"], prices)
    assert one is not None
    assert (one.gpus, one.money.per_hour) == (Interval.exactly(1), Interval.exactly(4))
    assert savings_of(whole, whole.gpus, prices) == whole.savings
    assert savings_of(advice(gpus=("g0", "g1")), ["g0"], prices) is None


# Order


def issued(
    id_: str, severity: str = "info", money: float | None = None, gpus: float = 1, **change: Any
) -> PublishedRecommendation:
    worth = None if money is None else Worth(Interval.exactly(gpus), Money(Interval.exactly(money), "USD"))
    return PublishedRecommendation(id_, 0.0, advice(severity=severity, savings=worth, **change))


def test_order_is_severity_then_lost_gpus_then_money_then_gpus_then_id() -> None:
    found = [
        issued("a", money=9), issued("b", "warning"), issued("c", "warning", 1), issued("d", "warning", 5),
        issued("e", "critical", 90), issued("f", "critical", 2, kind="lost_gpu"), issued("g", "warning", 5, 2),
        issued("h", "warning"),
    ]  # fmt: skip
    assert [each.id for each in by_urgency(found)] == ["f", "e", "g", "d", "c", "b", "h", "a"]


def test_lost_gpus_of_a_node_are_in_the_order_of_their_indices() -> None:
    found = [
        issued(id_, "critical", kind="lost_gpu", scope=Scope("gpu", id_, f"vm GPU {index}"))
        for id_, index in (("a", 10), ("b", 251), ("c", 9), ("d", 250))
    ]
    assert [each.id for each in by_urgency(found)] == ["c", "a", "d", "b"]


@given(
    st.permutations(
        [
            issued(id_, severity, money)
            for id_, severity, money in (
                ("a", "info", None),
                ("b", "info", 3.0),
                ("c", "critical", None),
                ("d", "warning", 1.0),
                ("e", "warning", 2.0),
            )
        ]
    )
)
def test_order_does_not_depend_on_the_order_before(found: list[PublishedRecommendation]) -> None:
    assert [each.id for each in by_urgency(found)] == ["c", "e", "d", "b", "a"]


# Sums

shares = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: (min(pair), max(pair)))
UUIDS = tuple(f"g{n}" for n in range(6))


@st.composite
def several(draw: st.DrawFn) -> tuple[list[Recommendation], Facts, Prices]:
    """Recommendations over six GPUs in two pools, on two nodes, with owners that may share; some without a price."""
    cards = [GpuSpec(uuid, name=draw(st.sampled_from(["A", "B"])), node=f"n{n % 2}") for n, uuid in enumerate(UUIDS)]
    names = draw(st.lists(st.sampled_from(["", "a", "b", "a b"]), min_size=6, max_size=6))
    owners = pods(**{uuid: name for uuid, name in zip(UUIDS, names, strict=True) if name})
    priced = draw(st.dictionaries(st.sampled_from(UUIDS), st.floats(0.1, 9), max_size=6))
    prices = Prices({uuid: GpuPrice(amount, "USD") for uuid, amount in priced.items()}, "USD")
    some = st.lists(st.sampled_from(UUIDS), min_size=1, unique=True).map(tuple)
    found = draw(st.lists(st.tuples(some, shares), max_size=5))
    listed = [advice(gpus=gpus, waste=(Waste((), *share),)) for gpus, share in found]
    return listed, facts(cards, owners=owners), prices


@given(several())
def test_sums_by_owner_team_pool_and_node_are_the_total(case: tuple[list[Recommendation], Facts, Prices]) -> None:
    found, known, prices = case
    total = summarize(found, known, assign_pools(known.gpus, []), prices)
    for groups in total.by.values():
        for part in ("gpus", "money"):
            sums = [getattr(each.worth, part) for each in groups]
            spans = [each if part == "gpus" else each.per_hour for each in sums]
            whole = total.waste.gpus if part == "gpus" else total.waste.money.per_hour
            assert fsum(each.low for each in spans) == pytest.approx(whole.low)
            assert (None in [each.high for each in spans]) == (whole.high is None)
            if whole.high is not None:
                assert fsum(each.high for each in spans) == pytest.approx(whole.high)


@given(several())
def test_no_gpu_counts_twice_and_no_price_is_no_zero(case: tuple[list[Recommendation], Facts, Prices]) -> None:
    found, known, prices = case
    lost = summarize(found, known, assign_pools(known.gpus, []), prices).waste
    named = {uuid for each in found for uuid in each.gpus}
    assert (lost.gpus.high or 0.0) <= len(named) + 1e-9
    most = fsum(prices.by_gpu[uuid].amount for uuid in named if uuid in prices.by_gpu)
    assert lost.money.per_hour.low <= most + 1e-9
    has_unpriced = any(
        waste.high != 0 for each in found for waste in each.waste for uuid in each.gpus if uuid not in prices.by_gpu
    )
    assert (lost.money.per_hour.high is None) == has_unpriced
    if has_unpriced:
        assert lost.money.bound in ("at_least", None)
        assert lost.money.value_per_hour != 0


def test_two_recommendations_on_one_gpu_lose_at_least_the_larger_part() -> None:
    """0.5 and 0.3 of one GPU: between 0.5 (the same time) and 0.8; three of 0.5: not more than the GPU."""
    known, prices = idle(1), Prices({"g0": GpuPrice(4.0, "USD")}, "USD")
    two = [advice(gpus=("g0",), waste=(Waste((), share, share),)) for share in (0.5, 0.3)]
    both = summarize(two, known, [], prices).waste.money.per_hour
    assert (both.low, both.bound) == (2.0, "at_most")
    assert both.high == pytest.approx(3.2)
    three = [advice(gpus=("g0",), waste=(Waste((), 0.5, 0.5),))] * 3
    assert summarize(three, known, [], prices).waste.money.per_hour == Interval(2.0, 4.0)


def test_a_loss_that_nothing_bounds_is_at_least_alone_and_at_most_the_gpu_in_sums() -> None:
    known, prices = idle(1), Prices({"g0": GpuPrice(4.0, "USD")}, "USD")
    found = with_savings(advice(gpus=("g0",), waste=(Waste((), 0.25, None),)), assign_pools(known.gpus, [])[0], prices)
    assert found.savings is not None
    assert (found.savings.money.bound, found.savings.money.value_per_hour) == ("at_least", 1.0)
    assert summarize([found], known, [], prices).waste.money.per_hour == Interval(1.0, 4.0)


@pytest.mark.parametrize("by", get_args(GroupBy))
def test_groups_are_named_and_the_largest_is_first(by: GroupBy) -> None:
    owners = {
        "g0": (GpuOwner("ml", "small", team="vision", user="ada", kind="kubernetes"),),
        "g1": (GpuOwner("nlp", "large", team="speech", kind="kubernetes"),),
    }
    cards = [GpuSpec("g0", node="n0", name="A"), GpuSpec("g1", node="n1", name="B")]
    known = facts(cards, owners=owners)
    prices = Prices({"g0": GpuPrice(1.0, "USD"), "g1": GpuPrice(4.0, "USD")}, "USD")
    whole = [advice(gpus=("g0", "g1"), waste=(Waste(),))]
    found = summarize(whole, known, assign_pools(known.gpus, []), prices).by[by]
    names = {"owner": ["pod nlp/large", "pod ml/small"], "team": ["speech", "vision"], "pool": ["B", "A"],
             "namespace": ["nlp", "ml"], "user": ["no user", "ada"], "node": ["n1", "n0"]}  # fmt: skip
    assert [each.name for each in found] == names[by]
    assert [each.worth.money.value_per_hour for each in found] == [4.0, 1.0]


def test_fields_of_unknown_savings_are_null() -> None:
    assert set(savings_fields(None).values()) == {None, ""}
    unpriced = savings_fields(Worth(Interval.exactly(2), Money(Interval(), "USD")))
    assert unpriced["savings_gpus"] == 2
    assert (unpriced["savings_per_hour"], unpriced["currency"], unpriced["estimated"]) == (None, None, None)


def test_urgency_of_an_evaluation() -> None:
    """The same key orders an evaluation's own recommendations."""
    found: Evaluation = decide(with_name(fleet_with_lost(7, 1), H100), SETTINGS)
    keys = [urgency(each, each.id(SETTINGS.cluster)) for each in found.recommendations]
    assert keys == sorted(keys)
    assert found.recommendations[0].kind == "lost_gpu"
