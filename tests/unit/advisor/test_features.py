"""Features of one GPU and of its peers, idleness, pools and evidence: on signals set by hand."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Mapping
from typing import Any

import pytest
from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.diagnosis.decision_table import UNKNOWN, WAITING_FOR_STRAGGLER
from gpu_advisor.evaluation.diagnosis.diagnose import diagnose
from gpu_advisor.evaluation.diagnosis.features import (
    FULL_SM_ACTIVITY,
    PREALLOCATION_RANGE,
    GpuSignals,
    LazyFeatures,
)
from gpu_advisor.evaluation.diagnosis.idle import Idleness, idleness
from gpu_advisor.evaluation.diagnosis.link_speeds import pcie_bytes_per_second
from gpu_advisor.evaluation.diagnosis.peers import MIN_BUSY_RATIO, build_peers, ratio_of
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.missing import explain_missing
from gpu_advisor.evaluation.pools import ALLOCATED_MEMORY_RATIO, assign_pools, is_allocated, measure_usage
from gpu_advisor.evaluation.recommendation import Evidence, Reason, Scope
from gpu_advisor.evaluation.signals import Signal
from gpu_advisor.observation.gc_pause import RARE_THRESHOLD, rare_gc
from gpu_advisor.settings import PoolKind, Settings
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.advisor.builders import AT, GpuSpec, facts, with_values

H100 = "NVIDIA H100 80GB HBM3"
NVLINK = 450e9
PCIE = pcie_bytes_per_second(4, 16) or 0.0
Values = Mapping[Signal, float]


def fleet(*gpus: Values, jobs: Mapping[int, str] | None = None, name: str = H100, nodes: int = 1) -> Facts:
    """A GPU for each; all busy for half the time unless they say otherwise. Node signals are those of the last."""
    cards = [GpuSpec(f"GPU-{i}", node=f"n{i % nodes}", name=name, memory=None) for i in range(len(gpus))]
    known = facts(cards)
    values: dict[str, dict[str, float]] = {signal: {} for signal in known.values}
    for card, measured in zip(cards, gpus, strict=True):
        defaults = {signals.IDLE_UTILIZATION: 0.5, signals.IDLE_COVERAGE: 1.0}
        for signal, value in {**defaults, **measured}.items():
            values[signal.name][card.uuid if signal.scope == "gpu" else card.node] = value
    return dataclasses.replace(known, values=values, jobs={f"GPU-{i}": job for i, job in (jobs or {}).items()})


def features(known: Facts, kind: PoolKind = "undecided", index: int = 0) -> LazyFeatures:
    return LazyFeatures(GpuSignals(known, known.gpus[index], build_peers(known, known.gpus), kind))


@pytest.mark.parametrize(
    ("name", "measured", "value"),
    [
        ("thermal", {signals.THROTTLE_HW_THERMAL: 0.1, signals.THROTTLE_SW_THERMAL: 0.2}, 0.4),  # of busy time
        ("thermal", {signals.THROTTLE_SW_THERMAL: 0.2}, 0.4),
        ("thermal", {signals.THROTTLE_HW_THERMAL: 0.2, signals.THROTTLE_SW_THERMAL: 0.0}, 0.4),
        ("thermal", {}, None),
        ("unsteadiness", {signals.UTILIZATION: 0.2, signals.HALF_IDLE_UTILIZATION: 0.9}, 0.7),
        ("unsteadiness", {signals.UTILIZATION: 0.2}, None),
        (
            "unsteadiness",
            {signals.UTILIZATION: 0.5, signals.HALF_IDLE_UTILIZATION: 0.5, signals.QUARTER_IDLE_UTILIZATION: 0.9},
            0.4,
        ),
        ("swing", {signals.UTILIZATION: 0.2, signals.HALF_IDLE_UTILIZATION: 0.8}, 0.75),
        ("swing", {signals.UTILIZATION: 0.0, signals.HALF_IDLE_UTILIZATION: 0.0, signals.IDLE_UTILIZATION: 0.0}, None),
        ("idleness", {signals.IDLE_UTILIZATION: 0.005}, 0.5),  # of the 1 % of the settings
        ("fill", {signals.SM_ACTIVITY: 0.2}, 0.4),
        ("clock", {signals.SM_CLOCK: 1.2e9, signals.SM_CLOCK_MAX: 1.6e9}, 0.75),
        ("power", {signals.POWER: 350, signals.POWER_LIMIT: 700}, 0.5),
        ("data_wait", {signals.JOB_DATA_WAIT: 0.2, signals.JOB_STEP_TIME: 0.8}, 0.25),
        ("communication", {signals.JOB_COMMUNICATION: 0.2, signals.JOB_STEP_TIME: 0.8}, 0.25),
        ("communication", {signals.JOB_COMMUNICATION: 0.2}, None),
        ("memory_needed", {signals.JOB_PEAK_MEMORY: 2e10, signals.MEMORY_TOTAL: 8e10}, 0.25),
        ("memory_needed", {signals.IDLE_MEMORY_USED: 0.3, signals.JOB_PEAK_MEMORY: 2e10}, 0.3),
        ("memory_needed", {signals.IDLE_MEMORY_USED: 0.3, signals.MEMORY_TOTAL: 8e10}, 0.3),
        ("memory_needed", {signals.IDLE_MEMORY_USED: PREALLOCATION_RANGE[0] - 0.01}, PREALLOCATION_RANGE[0] - 0.01),
        ("memory_needed", {signals.IDLE_MEMORY_USED: PREALLOCATION_RANGE[0]}, None),
        ("memory_needed", {signals.IDLE_MEMORY_USED: PREALLOCATION_RANGE[1] - 0.001}, None),
        ("memory_needed", {signals.IDLE_MEMORY_USED: PREALLOCATION_RANGE[1]}, PREALLOCATION_RANGE[1]),
        ("memory_needed", {}, None),
    ],
)
def test_features_of_one_gpu(name: str, measured: Values, value: float | None) -> None:
    assert features(fleet(measured))[name] == (value if value is None else pytest.approx(value))


@pytest.mark.parametrize(
    ("kind", "reports", "flags"),
    [
        ("training", False, (1.0, 1.0, 0.0)),
        ("training", True, (1.0, 1.0, 0.0)),
        ("serving", False, (0.0, 0.0, 1.0)),
        ("serving", True, (1.0, 0.0, 1.0)),
        ("undecided", False, (None, 1.0, None)),
        ("undecided", True, (1.0, 1.0, 0.0)),
    ],
)
def test_what_a_gpu_is_for(kind: PoolKind, reports: bool, flags: tuple[float | None, ...]) -> None:
    found = features(fleet({signals.JOB_STEP_TIME: 0.5} if reports else {}), kind)
    assert (found["trains"], found["may_train"], found["serves"]) == flags


# Links

LINKS = {
    signals.NVLINK_RECEIVE: 0.2 * NVLINK,
    signals.PCIE_GENERATION: 4.0,
    signals.PCIE_WIDTH: 16.0,
    signals.PCIE_RECEIVE: 0.3 * PCIE,
    signals.PCIE_TRANSMIT: 0.4 * PCIE,
    signals.NODE_NETWORK_RECEIVE: 0.5,
    signals.NODE_NETWORK_TRANSMIT: 0.1,
}


def without(*lost: Signal) -> dict[Signal, float]:
    return {signal: value for signal, value in LINKS.items() if signal not in lost}


@pytest.mark.parametrize(
    ("measured", "name", "busiest"),
    [
        (LINKS, H100, 0.3),  # the lower of two directions
        ({**LINKS, signals.NODE_NETWORK_TRANSMIT: 0.4}, H100, 0.4),
        (without(signals.PCIE_TRANSMIT), H100, 0.2),
        (without(signals.PCIE_WIDTH), H100, 0.2),
        (without(signals.PCIE_GENERATION), H100, 0.2),
        (without(signals.PCIE_RECEIVE, signals.NVLINK_RECEIVE), H100, 0.1),
        (without(signals.PCIE_RECEIVE, signals.NVLINK_RECEIVE, signals.NODE_NETWORK_RECEIVE), H100, None),
        (without(signals.PCIE_RECEIVE), "NVIDIA L40S", 0.1),  # no NVLink
    ],
)
def test_exchange_is_that_of_the_busiest_link(measured: Values, name: str, busiest: float | None) -> None:
    found = features(fleet(measured, name=name))["exchange"]
    assert found == (busiest if busiest is None else pytest.approx(busiest))


@pytest.mark.parametrize(
    ("gpus", "nodes", "name", "measured", "bound"),
    [
        (1, 1, H100, {}, 0.0),  # a job of one GPU exchanges nothing
        (2, 1, H100, without(signals.PCIE_RECEIVE, signals.NODE_NETWORK_RECEIVE), 0.2),  # within a node: NVLink alone
        (2, 1, H100, without(signals.NVLINK_RECEIVE), None),
        (2, 1, "NVIDIA L40S", without(signals.NODE_NETWORK_RECEIVE), 0.3),
        (2, 2, H100, {**LINKS, signals.NODE_NETWORK_TRANSMIT: 0.4}, 0.4),
        (2, 2, H100, LINKS, 0.2),
        (2, 2, H100, without(signals.NODE_NETWORK_RECEIVE), None),
        (0, 1, H100, LINKS, 0.2),  # no job is known: it may reach beyond the node
        (0, 1, H100, without(signals.NODE_NETWORK_RECEIVE), None),
    ],
)
def test_exchange_is_bounded_where_all_links_are_known(
    gpus: int, nodes: int, name: str, measured: Values, bound: float | None
) -> None:
    jobs = dict.fromkeys(range(gpus), "llm")
    found = features(fleet(*[measured] * max(gpus, 1), jobs=jobs, name=name, nodes=nodes))["exchange_at_most"]
    assert found == (bound if bound is None else pytest.approx(bound))


@pytest.mark.parametrize(
    ("activity", "value"),
    [
        (0.5 * FULL_SM_ACTIVITY * 0.5, 0.3 / 0.5),
        (0.5 * FULL_SM_ACTIVITY * 0.97, 0.3 / 0.03),
        (0.5 * FULL_SM_ACTIVITY * 0.99, None),  # next to nothing is unfilled
        (0.5, None),
        (None, None),
    ],
)
def test_exchange_in_relation_to_idle_sms(activity: float | None, value: float | None) -> None:
    measured = dict(LINKS) if activity is None else {**LINKS, signals.SM_ACTIVITY: activity}
    found = features(fleet(measured, measured, jobs={0: "llm", 1: "llm"}))
    assert found["exchange_of_unfilled"] == (value if value is None else pytest.approx(value, rel=1e-6))
    bound = found["exchange_at_most_of_unfilled"]  # NVLink alone
    assert bound == (value if value is None else pytest.approx(value * 2 / 3, rel=1e-6))


# Peers


def job(own: Values, others: Values, count: int = 4, **more: Any) -> LazyFeatures:
    return features(fleet(own, *[others] * (count - 1), jobs=dict.fromkeys(range(count), "llm")), **more)


@pytest.mark.parametrize(
    ("name", "own", "others", "value"),
    [
        ("clock_of_job", {signals.SM_CLOCK: 1.2e9}, {signals.SM_CLOCK: 1.6e9}, 0.75),
        ("clock_of_job", {}, {signals.SM_CLOCK: 1.6e9}, None),
        ("sm_activity_of_job", {signals.SM_ACTIVITY: 0.6}, {signals.SM_ACTIVITY: 0.5}, 1.2),
        ("utilization_below_job", {signals.IDLE_UTILIZATION: 0.4}, {signals.IDLE_UTILIZATION: 0.9}, 0.5),
        ("utilization_below_job", {signals.IDLE_UTILIZATION: 0.2}, {signals.IDLE_UTILIZATION: 0.9}, None),  # idle
        (
            "communication_below_job",
            {signals.JOB_COMMUNICATION: 0.1, signals.JOB_STEP_TIME: 1.0},
            {signals.JOB_COMMUNICATION: 0.4, signals.JOB_STEP_TIME: 1.0},
            0.3,
        ),
        ("communication_below_job", {}, {signals.JOB_COMMUNICATION: 0.4, signals.JOB_STEP_TIME: 1.0}, None),
    ],
)
def test_a_gpu_beside_the_others_of_its_job(name: str, own: Values, others: Values, value: float | None) -> None:
    assert job(own, others)[name] == (value if value is None else pytest.approx(value))
    assert job(own, others, count=3)[name] is None  # two others are too few
    apart = fleet(own, *[others] * 3, jobs={0: "llm", 1: "llm", 2: "other", 3: "other"})
    assert features(apart)[name] is None


@pytest.mark.parametrize(
    ("own", "others", "count", "value"),
    [
        ({signals.SM_CLOCK: 1.2e9}, {signals.SM_CLOCK: 1.6e9}, 3, 0.75),
        ({signals.SM_CLOCK: 1.2e9}, {signals.SM_CLOCK: 1.6e9}, 2, None),  # one other is too few
        (
            {signals.SM_CLOCK: 0.4e9, signals.IDLE_UTILIZATION: MIN_BUSY_RATIO},
            {signals.SM_CLOCK: 1.6e9},
            3,
            0.25,
        ),
        (  # too little work for its clock to count
            {signals.SM_CLOCK: 0.4e9, signals.IDLE_UTILIZATION: MIN_BUSY_RATIO - 0.01},
            {signals.SM_CLOCK: 1.6e9},
            4,
            None,
        ),
        ({signals.SM_CLOCK: 1.2e9}, {signals.SM_CLOCK: 1.6e9, signals.IDLE_UTILIZATION: 0.1}, 4, None),
        ({}, {signals.SM_CLOCK: 1.6e9}, 4, None),
    ],
)
def test_clocks_of_busy_gpus_of_one_model_are_compared(
    own: Values, others: Values, count: int, value: float | None
) -> None:
    found = features(fleet(own, *[others] * (count - 1)))["clock_of_peers"]
    assert found == (value if value is None else pytest.approx(value))


def test_power_limits_are_compared_whatever_the_work() -> None:
    idle = {signals.IDLE_UTILIZATION: 0.0}
    known = fleet({signals.POWER_LIMIT: 350, **idle}, *[{signals.POWER_LIMIT: 700, **idle}] * 2)
    assert features(known)["limit_of_peers"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("part", "whole", "ratio"),
    [(1.0, 2.0, 0.5), (None, 2.0, None), (1.0, None, None), (0.001, 0.01, 0.1), (0.001, 0.0099, None), (0.0, 1.0, 0.0)],
)
def test_a_ratio_needs_a_whole(part: float | None, whole: float | None, ratio: float | None) -> None:
    assert ratio_of(part, whole) == (ratio if ratio is None else pytest.approx(ratio))


def test_the_gpus_of_a_job() -> None:
    known = fleet({}, {}, {}, jobs={0: "a", 1: "a"})
    peers = build_peers(known, known.gpus)
    assert [gpu.uuid for gpu in peers.gpus_of_job("a")] == ["GPU-0", "GPU-1"]
    assert peers.gpus_of_job(None) == peers.gpus_of_job("none") == ()
    assert [peers.jobs.get(gpu.uuid) for gpu in known.gpus] == ["a", "a", None]


@pytest.mark.parametrize(
    ("generation", "width"), [(None, 16.0), (4.0, None), (None, None), (0.0, 16.0), (4.0, 0.0), (9.0, 16.0)]
)
def test_a_link_without_generation_or_width_has_no_speed(generation: float | None, width: float | None) -> None:
    assert not pcie_bytes_per_second(generation, width)


# Those that wait


def test_gpus_of_a_job_wait_for_its_slow_one_and_others_do_not() -> None:
    """A GPU of unclear cause in the job of a throttled one waits for it; outside of a job nothing says so."""
    hot = {signals.THROTTLE_HW_THERMAL: 0.4, signals.SM_CLOCK: 1.2e9, signals.SM_CLOCK_MAX: 1.6e9}
    names = {}
    for jobs in ({}, dict.fromkeys(range(4), "llm")):
        known = fleet(hot, {}, {}, {signals.IDLE_COVERAGE: 0.1}, jobs=jobs)
        pools = assign_pools(known.gpus, ())
        names[bool(jobs)] = [each.name for each in diagnose(known, build_peers(known, known.gpus), pools)]
    assert names[True] == ["throttled_thermal", WAITING_FOR_STRAGGLER, WAITING_FOR_STRAGGLER, UNKNOWN]
    assert names[False] == ["throttled_thermal", UNKNOWN, UNKNOWN, UNKNOWN]


# Idle


@pytest.mark.parametrize(
    ("utilization", "coverage", "memory", "state"),
    [
        (0.0, 1.0, None, Idleness.IDLE),
        (0.0099, 1.0, ALLOCATED_MEMORY_RATIO, Idleness.IDLE),
        (0.0099, 1.0, ALLOCATED_MEMORY_RATIO + 1e-6, Idleness.HOLDING_MEMORY),
        (0.01, 1.0, 0.5, Idleness.BORDERLINE),
        (0.0199, 1.0, 0.5, Idleness.BORDERLINE),
        (0.02, 1.0, 0.5, Idleness.BUSY),
        (0.025, 1.0, 0.5, Idleness.BUSY),
        (0.0, 0.9, 0.5, Idleness.HOLDING_MEMORY),
        (0.0, 0.89, 0.5, None),
        (0.0, None, 0.5, None),
        (None, 1.0, 0.5, None),
    ],
)
def test_idle_is_below_the_limit_with_a_dead_band_above(
    utilization: float | None, coverage: float | None, memory: float | None, state: Idleness | None
) -> None:
    known = facts([GpuSpec("a", utilization, coverage, memory=memory)])
    assert idleness(known, known.gpus[0]) is state
    down = facts([GpuSpec("a", utilization, coverage, memory=memory, up=False)])
    assert idleness(down, down.gpus[0]) is None


# Pools


@pytest.mark.parametrize(
    ("memory", "processes", "allocated"),
    [
        (None, None, None),
        (ALLOCATED_MEMORY_RATIO, None, False),
        (ALLOCATED_MEMORY_RATIO + 1e-6, None, True),
        (None, 0, False),
        (None, 1, True),
        (0.0, 1, True),
        (0.5, 0, True),
        (0.0, 0, False),
    ],
)
def test_a_gpu_is_allocated_by_memory_or_by_a_process(
    memory: float | None, processes: float | None, allocated: bool | None
) -> None:
    known = facts([GpuSpec("a", memory=memory)])
    values = {**known.values, signals.PROCESSES.name: {} if processes is None else {"a": processes}}
    known = dataclasses.replace(known, values=values)
    assert is_allocated(known, known.gpus[0]) is allocated


@given(st.lists(st.tuples(st.sampled_from([None, 0.0, 0.5]), st.sampled_from([None, 0.25, 1.0])), max_size=6))
def test_a_pools_numbers_are_known_if_those_of_all_its_gpus_are(cards: list[tuple[float | None, float | None]]) -> None:
    known = facts([GpuSpec(f"{i}", busy, memory=memory) for i, (memory, busy) in enumerate(cards)])
    usage = measure_usage(known, known.gpus)
    memory, busy = [each[0] for each in cards], [each[1] for each in cards]
    assert usage.capacity == len(cards)
    assert usage.allocated == (None if None in memory else memory.count(0.5))
    assert usage.busy == (None if None in busy else pytest.approx(sum(busy)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "vendor", "pool"), [("H100", "nvidia", "H100"), ("", "amd", "amd"), ("", "", "GPUs")])
def test_gpus_of_no_pool_are_one_by_model_else_by_vendor(name: str, vendor: str, pool: str) -> None:
    (found,) = assign_pools([Gpu("a", "0", name, vendor, "n", True)], ())
    assert found.settings.name == pool


# Evidence and absences


@pytest.mark.parametrize(
    ("names", "value", "everything"),
    [
        (("a",), 0.2, False),
        (("a", "b"), 0.3, True),
        (("a", "b", "c"), 0.3, True),  # c has none
        (("a", "c"), 0.2, False),  # as many names as values, but others
        (("c",), None, False),
        ((), None, False),
    ],
)
def test_evidence_is_the_mean_of_those_that_have_a_value(
    names: tuple[str, ...], value: float | None, everything: bool
) -> None:
    known = facts([GpuSpec("a", 0.2), GpuSpec("b", 0.4), GpuSpec("c", None)])
    found = known.evidence(signals.UTILIZATION, names)
    assert found.value == (value if value is None else pytest.approx(value))
    assert found.things is not None
    assert (found.things.values, found.things.everything) == (names, everything)
    assert (found.promql is not None) is bool(names)


def test_evidence_from_storage_has_the_query_that_was_written() -> None:
    found = Evidence("s", "about", "ratio", "mean", 60, 0.5, AT, None, written="up @ 1")
    assert found.promql == "up @ 1"


@pytest.mark.parametrize(
    ("label", "text"), [("node-a GPU 1", "node-a GPU 1"), ("", "GPU-1")], ids=["with a label", "without"]
)
def test_a_scope_is_called_by_its_label(label: str, text: str) -> None:
    assert str(Scope("gpu", "GPU-1", label)) == text


@pytest.mark.parametrize(
    ("change", "up", "reason"),
    [
        ({"expressions": {}}, True, Reason.UNSUPPORTED),
        ({"exporters_by_signal": {"gpu_utilization": frozenset({"x"})}}, True, Reason.UNSUPPORTED),  # not this one's
        ({"implausible_values": {"gpu_utilization": {"a": 7.0}}}, True, Reason.CONFLICTING),
        ({"implausible_values": {"gpu_utilization": {"b": 7.0}}}, True, Reason.NO_DATA),
        ({}, False, Reason.NO_DATA),
        ({}, None, Reason.STALE),
        ({}, True, Reason.NO_DATA),
    ],
)
def test_why_a_value_is_missing(change: dict[str, Any], up: bool | None, reason: Reason) -> None:
    known = dataclasses.replace(facts([GpuSpec("a", None, up=up)]), **change)
    gpu = dataclasses.replace(known.gpus[0], exporter="y")
    found = explain_missing(known, signals.UTILIZATION, gpu.scope, gpu)
    assert (found.reason, found.subject, found.scope) == (reason, "gpu_utilization", gpu.scope)
    assert found.message
    if "implausible_values" in change or up is None:
        fleet_wide = explain_missing(known, signals.UTILIZATION, Scope("fleet", "fleet"))
        assert fleet_wide.reason is Reason.NO_DATA


def alternating(at: float, window: float, work: float, pause: float) -> float:
    """Mean of a GPU that works and pauses in turns (minutes), over a window up to `at`."""

    def worked(until: float) -> float:
        turns, rest = divmod(until, work + pause)
        return turns * work + min(rest, work)

    return (worked(at) - worked(at - window)) / window


@pytest.mark.parametrize(
    ("work", "pause"),
    [(5, 5), (6, 6), (8, 4), (8, 8), (10, 5), (5, 10), (10, 10), (12, 6), (15, 15), (20, 10), (35, 35)],
)
def test_work_in_turns_is_not_taken_for_steady_work(work: float, pause: float) -> None:
    """Training and evaluation on the CPU, say, is not slow loading; at hardly any time do all windows agree."""
    phases, steady = 120, 0
    for phase in range(phases):
        at = 10_000 * (work + pause) + phase / phases * (work + pause)
        shares = {
            signal: alternating(at, minutes, work, pause)
            for signal, minutes in (
                (signals.UTILIZATION, 5), (signals.QUARTER_IDLE_UTILIZATION, 7.5),
                (signals.HALF_IDLE_UTILIZATION, 15), (signals.IDLE_UTILIZATION, 30),
            )
        }  # fmt: skip
        known = with_values(facts([GpuSpec("a")]), {signal: {"a": share} for signal, share in shares.items()})
        found = features(known)
        is_partly_used = 0.10 <= shares[signals.IDLE_UTILIZATION] < 0.70
        steady += is_partly_used and (found["unsteadiness"] or 0.0) < 0.15 and (found["swing"] or 0.0) < 0.30
    assert steady <= 0.08 * phases


@pytest.mark.parametrize(
    ("window", "idle", "seconds"),
    [
        ("now", 1800, None),
        ("short", 1800, 300),
        ("quarter", 1800, 450),
        ("quarter", 3, 1),
        ("half", 1800, 900),
        ("half", 1801, 900),
        ("half", 1, 1),
        ("idle", 7, 7),
    ],
)
def test_windows_of_signals(window: Any, idle: int, seconds: int | None) -> None:
    evaluation = Settings().evaluation.model_copy(update={"idle_window_seconds": idle, "window_seconds": 300})
    signal = dataclasses.replace(signals.UTILIZATION, window=window)
    found = signal.window_seconds(evaluation)
    assert (found, type(found)) == (seconds, type(seconds))


def test_a_signal_is_of_the_quantity_of_its_name_unless_another_is_given() -> None:
    assert Signal("x", "about", "gpu", "ratio", "mean").quantity == "x"
    assert Signal("x", "about", "gpu", "ratio", "mean", quantity="y").quantity == "y"


@pytest.mark.parametrize(("unit", "text"), [("ratio", "150 %"), ("count", "1.5")])
def test_an_impossible_value_has_its_unit(unit: Any, text: str) -> None:
    known = dataclasses.replace(facts([GpuSpec("a", None)]), implausible_values={"gpu_utilization": {"a": 1.5}})
    signal = dataclasses.replace(signals.UTILIZATION, unit=unit)
    assert f" {text} " in explain_missing(known, signal, known.gpus[0].scope, known.gpus[0]).message


# The collector


@pytest.mark.parametrize("usual", [(700, 10, 10), (2 * RARE_THRESHOLD, 5, 5), (0, 10, 10)])
def test_the_collector_is_rare_inside_and_as_it_was_after(usual: tuple[int, int, int]) -> None:
    before = gc.get_threshold()
    try:
        gc.set_threshold(*usual)
        with rare_gc():
            inside = gc.get_threshold()
            with rare_gc():
                assert gc.get_threshold() == inside
            assert gc.get_threshold() == inside  # another thread's block has ended
        assert inside == (max(RARE_THRESHOLD, usual[0]) if usual[0] else 0, *usual[1:])
        assert gc.get_threshold() == usual
        with pytest.raises(ZeroDivisionError), rare_gc():
            raise ZeroDivisionError
        assert gc.get_threshold() == usual
    finally:
        gc.set_threshold(*before)
