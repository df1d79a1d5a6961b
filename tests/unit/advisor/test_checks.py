from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
from gpu_advisor.evaluation import check_bands, checks, signals
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.pools import assign_pools
from gpu_advisor.evaluation.prices import fleet_prices
from gpu_advisor.evaluation.recommendation import Check, CheckStatus, Reason
from gpu_advisor.settings import Settings
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.advisor.builders import MODEL, GpuSpec, facts

SERVING = Settings.model_validate({"pools": [{"name": "web", "kind": "serving", "match": {"node": "serve-.*"}}]})


def check_results(
    cards: list[GpuSpec], settings: Settings | None = None, **more: Any
) -> dict[tuple[str, str, str], Check]:
    """(item, kind of scope, name of scope) -> check"""
    chosen = settings or Settings()
    known = facts(cards, chosen, **more)
    pools, prices = assign_pools(known.gpus, chosen.pools), fleet_prices(known, chosen.cost)
    results = checks.run_checklist(known, chosen, pools, prices)
    by_scope: dict[tuple[str, str, str], Check] = {
        (check.item, check.scope.kind, check.scope.name): check for check in results
    }
    assert len(by_scope) == len(results)  # nothing is judged twice
    return by_scope


def gpu(card: GpuSpec, item: str = "gpu_utilization", settings: Settings | None = None, **more: Any) -> Check:
    return check_results([card], settings, **more)[item, "gpu", card.uuid]


@pytest.mark.parametrize(
    ("card", "item", "status", "missed_by"),
    [
        (GpuSpec("a", utilization=0.90), "gpu_utilization", "met", None),  # the edge is within
        (GpuSpec("a", utilization=0.9 - 1e-12), "gpu_utilization", "met", None),  # rounding is no miss
        (GpuSpec("a", utilization=0.899), "gpu_utilization", "missed", -0.001),
        (GpuSpec("a", utilization=1.0), "gpu_utilization", "met", None),
        (GpuSpec("a", memory=0.80), "gpu_memory", "met", None),
        (GpuSpec("a", memory=0.90), "gpu_memory", "met", None),
        (GpuSpec("a", memory=0.79), "gpu_memory", "missed", -0.01),
        (GpuSpec("a", memory=0.94), "gpu_memory", "missed", 0.04),
        (GpuSpec("a", utilization=0.75, node="serve-1"), "gpu_utilization", "met", None),
        (GpuSpec("a", utilization=0.60, node="serve-1"), "gpu_utilization", "met", None),
        (GpuSpec("a", utilization=0.95, node="serve-1"), "gpu_utilization", "missed", 0.10),
        (GpuSpec("a", utilization=0.50, node="serve-1"), "gpu_utilization", "missed", -0.10),
    ],
)
def test_bands_and_their_edges(card: GpuSpec, item: str, status: str, missed_by: float | None) -> None:
    check = gpu(card, item, SERVING)
    assert check.status.value == status
    assert check.missed_by == (None if missed_by is None else pytest.approx(missed_by))
    assert check.severity == ("warning" if status == "missed" else "info")
    assert check.evidence[0].value == check.value


@given(st.integers(1, 40), st.sampled_from([0.9, 0.95, 1.0]))
def test_a_mean_of_gpus_exactly_at_the_target_meets_it(count: int, value: float) -> None:
    results = check_results([GpuSpec(f"{i}", utilization=value, memory=0.8) for i in range(count)])
    for (item, kind, _), check in results.items():
        if item.startswith("gpu_"):
            assert (item, kind, check.status) == (item, kind, CheckStatus.MET)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=8))
def test_a_group_is_met_if_each_of_its_gpus_is(members: list[tuple[bool, float]]) -> None:
    cards = [
        GpuSpec(f"{i}", utilization=0.6 + value / 4 if serves else 0.9 + value / 10, node="serve-1" if serves else "t")
        for i, (serves, value) in enumerate(members)
    ]
    results = check_results(cards, SERVING)
    judged = [check for (item, _, _), check in results.items() if item == "gpu_utilization" and check.value is not None]
    assert len(judged) >= len(cards) + 3  # and their pools, nodes and the fleet
    assert {check.status for check in judged} == {CheckStatus.MET}


@pytest.mark.parametrize(
    ("card", "reason", "words"),
    [
        (GpuSpec("a", None, up=False), Reason.NO_DATA, "is down"),
        (GpuSpec("a", None, up=None), Reason.STALE, "check that its exporter is up"),
        (GpuSpec("a", 0.0, coverage=0.89), Reason.INSUFFICIENT_HISTORY, "89% of the last 300 s"),
        (GpuSpec("a", 0.0, coverage=None), Reason.INSUFFICIENT_HISTORY, "wait"),
        (GpuSpec("a", None), Reason.NO_DATA, "no sample in the window"),
    ],
)
def test_what_is_not_known_is_unknown_and_says_why(card: GpuSpec, reason: Reason, words: str) -> None:
    for (item, kind, _), check in check_results([card]).items():
        if item == "gpu_utilization":
            assert (kind, check.status, check.reason, check.value) == (kind, CheckStatus.UNKNOWN, reason, None)
            assert words in check.message


@pytest.mark.parametrize(
    ("reasons", "count"), [(("lost", "lost", "lost"), "3 GPUs"), (("lost", "released", "lost"), "2 GPUs")]
)
def test_gpus_that_are_down_for_another_reason_are_not_counted(reasons: tuple[str, ...], count: str) -> None:
    down = {f"g{n}": reason for n, reason in enumerate(reasons)}
    cards = [GpuSpec(uuid, None, None, up=False) for uuid in down]
    check = check_results(cards, down_reasons=down)["gpu_utilization", "node", "node-a"]
    assert count in check.message


def test_what_no_exporter_gives_is_unsupported() -> None:
    assert gpu(GpuSpec("a"), "gpu_memory", without=["gpu_memory_used"]).reason is Reason.UNSUPPORTED
    uncounted = gpu(GpuSpec("a", 0.95, coverage=None), without=["gpu_utilization_coverage"])
    assert uncounted.reason is Reason.INSUFFICIENT_HISTORY  # its scrape interval is not known yet
    assert "longer than 300 s, scrape more often" in uncounted.message


def test_a_counter_scraped_once_in_the_window_is_no_missing_support() -> None:
    rarely = gpu(GpuSpec("a", 0.95, coverage=None), without=["gpu_utilization", "gpu_utilization_coverage"])
    assert rarely.reason is Reason.INSUFFICIENT_HISTORY
    assert "fewer than two scrapes in the window of 300 s" in rarely.message


@pytest.mark.parametrize("silent", range(12))
def test_a_mean_needs_nine_of_ten_gpus(silent: int) -> None:
    cards = [GpuSpec(f"g{n}", None, None, up=None) if n < silent else GpuSpec(f"g{n}", 0.95, 1.0) for n in range(11)]
    for kind, name in (("fleet", "fleet"), ("pool", MODEL), ("node", "node-a")):
        check = check_results(cards)["gpu_utilization", kind, name]
        if silent <= 1:
            assert check.status is CheckStatus.MET
            assert check.value == pytest.approx(0.95)
            assert check.evidence[0].coverage == (11 - silent) / 11
            assert check.message == ("10 of 11 GPUs have enough data" if silent else "")
        else:
            assert (check.status, check.reason, check.value) == (CheckStatus.UNKNOWN, Reason.STALE, None)
            have = "has" if silent == 10 else "have"
            assert check.message.startswith(f"{max(0, 11 - silent)} of 11 GPUs {have} enough data: ")
            assert check.message.endswith(f"{silent} GPUs stopped reporting: check that their exporter is up")


NODE = {"node_cpu": 0.8, "node_memory": 0.5, "node_io_pressure": 0.0, "node_network_receive": 0.1}


@pytest.mark.parametrize(
    ("values", "item", "status", "severity"),
    [
        ({"node_cpu": 0.1}, "cpu", "missed", "info"),  # low CPU is information
        ({"node_cpu": 0.95}, "cpu", "missed", "warning"),
        ({"node_cpu": 0.9}, "cpu", "met", "info"),
        ({"node_memory": 0.96}, "memory", "missed", "warning"),
        ({"node_io_pressure": 0.2}, "storage", "missed", "warning"),
        ({"node_io_pressure": 0.0, "node_disk_busy": 1.0}, "storage", "met", "info"),  # busy, but nobody waits
        ({"node_disk_busy": 1.0}, "storage", "missed", "warning"),
        ({"node_network_receive": 0.1, "node_network_transmit": 0.9}, "network", "missed", "warning"),
        ({"node_network_receive": -12.5}, "network", "unknown", "info"),  # of a link whose speed is not known
        ({}, "network", "unknown", "info"),
    ],
)
def test_nodes(values: Mapping[str, float], item: str, status: str, severity: str) -> None:
    check = check_results([], nodes={"node-a": values})[item, "node", "node-a"]
    assert (check.status.value, check.severity) == (status, severity)


def cost(cards: list[GpuSpec], budget: float | None, price: float | None) -> Check:
    prices = {} if price is None else {MODEL: price}
    settings = Settings.model_validate({"cost": {"budget_per_hour": budget, "gpu_price_per_hour": prices}})
    return check_results(cards, settings)["cost", "fleet", "fleet"]


def test_cost() -> None:
    two = [GpuSpec("a"), GpuSpec("b", None, up=None)]  # what is silent costs all the same
    assert cost(two, 8, 4).status is CheckStatus.MET
    over = cost(two, 7, 4)
    assert (over.status, over.missed_by, over.severity) == (CheckStatus.MISSED, 1, "warning")
    assert "set cost.budget_per_hour" in cost(two, None, 4).message
    assert MODEL in cost(two, 8, None).message
    assert cost([], 8, 4).status is CheckStatus.UNKNOWN  # no GPU seen is not a cost of nothing


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({}, Reason.NO_DATA, "is an exporter scraped?"),
        ({"down_targets": ("a:1", "b:1")}, Reason.NO_DATA, "a:1, b:1"),
        ({"nodes": {"n": NODE}, "drivers": {"nvidia": frozenset({"absent"})}}, Reason.UNSUPPORTED,
         "any node; driver absent: nvidia"),
        ({"nodes": {"n": NODE}, "drivers": {"nvidia": frozenset({"absent", "no_permission"}),
                                            **dict.fromkeys(("intel", "amd"), frozenset({"absent"}))}},
         Reason.UNSUPPORTED, "any node; drivers absent: amd, intel; driver absent, no_permission: nvidia"),
    ],
)  # fmt: skip
def test_no_gpu_at_all(change: dict[str, Any], reason: Reason, words: str) -> None:
    results = check_results([], None, **change)
    for item in ("gpu_utilization", "gpu_memory"):
        check = results[item, "fleet", "fleet"]
        assert (check.status, check.reason) == (CheckStatus.UNKNOWN, reason)
        assert words in check.message


def test_a_pool_without_gpus_asks_for_its_selectors() -> None:
    assert "selectors" in check_results([GpuSpec("a")], SERVING)["gpu_utilization", "pool", "web"].message


def test_pools_take_the_first_match_and_never_what_does_not_match() -> None:
    pools = [
        {"name": MODEL, "match": {"node": "b"}},
        {"name": "all-b", "match": {"node": "b|c", "name": ".*H100"}},
    ]
    cards = [
        GpuSpec("1", node="a"),
        GpuSpec("2", node="b"),
        GpuSpec("3", node="c"),
        GpuSpec("4", node="bb"),
        GpuSpec("5", name=""),
    ]
    fleet = [dataclasses.replace(card.gpu, vendor="nvidia") for card in cards]
    found = assign_pools(fleet, Settings.model_validate({"pools": pools}).pools)
    assert {pool.settings.name: pool.uuids for pool in found} == {
        MODEL: ("2",),
        "all-b": ("3",),
        f"{MODEL} (others)": ("1", "4"),
        "nvidia": ("5",),
    }


@pytest.mark.parametrize(
    ("held", "peak", "status", "value"),
    [
        (0.85, None, CheckStatus.MET, 0.85),
        (0.97, None, CheckStatus.UNKNOWN, None),
        (0.97, 0.40, CheckStatus.MISSED, 0.40),
        (0.97, 0.85, CheckStatus.MET, 0.85),
    ],
)
def test_memory_that_may_have_been_taken_in_advance(
    held: float, peak: float | None, status: CheckStatus, value: float | None
) -> None:
    known = facts([GpuSpec("a", memory=held)])
    total = {signals.MEMORY_TOTAL.name: {"a": 8e10}}
    reported = {} if peak is None else {signals.JOB_PEAK_MEMORY.name: {"a": peak * 8e10}}
    known = dataclasses.replace(known, values={**known.values, **total, **reported})
    (check,) = (
        each for each in decide(known, Settings()).checks if (each.item, each.scope.name) == ("gpu_memory", "a")
    )
    assert (check.status, check.value) == (status, value if value is None else pytest.approx(value))
    if status is CheckStatus.UNKNOWN:
        assert "training_peak_memory_bytes" in check.message
    else:
        assert check.evidence[0].promql


@pytest.mark.parametrize("peak", [None, 0.5])
def test_memory_of_a_gpu_that_shares_the_cpus(peak: float | None) -> None:
    """GB10, Jetson, Grace, APUs: gpu_info has unified="true"."""
    known = facts([GpuSpec("a", memory=0.7)])
    gpu = dataclasses.replace(known.gpus[0], unified=True)
    total = {signals.MEMORY_TOTAL.name: {"a": 128 * 2.0**30}}
    reported = {} if peak is None else {signals.JOB_PEAK_MEMORY.name: {"a": peak * 128 * 2.0**30}}
    known = dataclasses.replace(known, gpus=(gpu,), values={**known.values, **total, **reported})
    (check,) = (
        each for each in decide(known, Settings()).checks if (each.item, each.scope.name) == ("gpu_memory", "a")
    )
    assert check.title == "unified memory"
    assert check.value == pytest.approx(peak or 0.7)
    assert check.message == "unified memory of 128 GiB: processes on the CPU use it as well, and count"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["serving", "training"]), st.integers(50, 70), st.integers(75, 88), st.integers(0, 9)
        ),
        min_size=1,
        max_size=5,
    ).filter(lambda pools: any(count for *_, count in pools))
)
def test_the_band_of_several_pools_is_the_mean_of_their_bands_by_gpus(
    found: list[tuple[str, int, int, int]],
) -> None:
    configured = [
        {
            "name": str(i), "kind": kind, "match": {"node": str(i)},
            "gpu": {"scale_down_threshold": low, "scale_up_threshold": high, "target_utilization": 90},
        }
        for i, (kind, low, high, _) in enumerate(found)
    ]  # fmt: skip
    settings = Settings.model_validate({"pools": configured})
    cards = [GpuSpec(f"{i}/{k}", node=str(i)) for i, (*_, count) in enumerate(found) for k in range(count)]
    band = check_bands.mean_band(settings, assign_pools([card.gpu for card in cards], settings.pools))
    lows = [low / 100 if kind == "serving" else 0.9 for kind, low, _, count in found for _ in range(count)]
    highs = [high / 100 if kind == "serving" else 1.0 for kind, _, high, count in found for _ in range(count)]
    assert (band.low, band.high) == pytest.approx((sum(lows) / len(lows), sum(highs) / len(highs)))


@pytest.mark.parametrize(
    ("low", "high", "value", "edge"),
    [(0.7, 0.9, 0.3, 0.7), (0.7, 0.9, 0.95, 0.9), (0.7, 0.9, 0.89, 0.9), (0.9, 1.0, 1.0, 0.9), (0.0, 0.8, 0.1, 0.8)],
)
def test_the_threshold_of_the_evidence_is_the_edge_that_is_missed(
    low: float, high: float, value: float, edge: float
) -> None:
    assert check_bands.TargetBand(low, high).edge(value) == edge
