"""What each policy on a cause makes of its figures: bounds, alternatives and limits, on findings made by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from gpu_advisor.evaluation.diagnosis.conditions import Condition, above, any_of, below
from gpu_advisor.evaluation.diagnosis.decision_table import DecisionRow
from gpu_advisor.evaluation.diagnosis.diagnose import GpuDiagnosis
from gpu_advisor.evaluation.diagnosis.features import FEATURES
from gpu_advisor.evaluation.diagnosis.peers import Peers
from gpu_advisor.evaluation.facts import Gpu
from gpu_advisor.evaluation.policies import (
    batch_size,
    communication,
    cooling,
    data_loading,
    memory_saving,
    mixed_precision,
    power_limit,
    profiling,
    smaller_gpu,
    straggler,
)
from gpu_advisor.evaluation.policies.findings import MAX_LISTED_GPUS, Finding, PolicyAdvice, listed_gpus, more_gpus
from gpu_advisor.evaluation.pools import assign_pools
from gpu_advisor.evaluation.recommendation import Scope
from gpu_advisor.evaluation.signals import (
    IDLE_UTILIZATION,
    MEMORY_USED,
    NODE_CPU,
    POWER,
    POWER_LIMIT,
    SIGNALS,
    SM_ACTIVITY,
    UTILIZATION,
)
from gpu_advisor.settings import Settings
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.advisor.builders import GpuSpec, facts, with_values

Policy = Callable[[Finding], PolicyAdvice]

H100, A100, V100, T4, P100 = (
    "NVIDIA H100 80GB HBM3",
    "NVIDIA A100-SXM4-80GB",
    "Tesla V100-SXM2-32GB",
    "Tesla T4",
    "Tesla P100-PCIE-16GB",
)


class _Features(dict[str, float | None]):
    def __missing__(self, name: str) -> None:
        return None


def gpus(count: int, name: str = H100, per_node: int = 8) -> list[Gpu]:
    return [Gpu(f"GPU-{i}", str(i % per_node), name, "nvidia", f"node-{i // per_node}", True) for i in range(count)]


def finding(
    features: Mapping[str, float] | None = None,
    found: Sequence[Gpu] | None = None,
    variants: Sequence[str] = ("",),
    conditions: tuple[Condition, ...] = (),
    jobs: Mapping[str, Sequence[Gpu]] | None = None,
) -> Finding:
    """One cause on `found`, all with the same features."""
    settings = Settings()
    chosen = list(found or gpus(1))
    known = facts([GpuSpec(gpu.uuid, 0.4, node=gpu.node, name=gpu.name) for gpu in chosen], settings)
    rows = [DecisionRow("data_bound", variants[i % len(variants)], conditions, "") for i in range(len(chosen))]
    members = {job: tuple(each) for job, each in (jobs or {}).items()}
    peers = Peers(members=members, jobs={gpu.uuid: job for job, each in members.items() for gpu in each})
    return Finding(
        facts=known,
        settings=settings,
        pool=assign_pools(known.gpus, settings.pools)[0],
        peers=peers,
        scope=Scope("job", "llm"),
        diagnosis="data_bound",
        outcomes=tuple(GpuDiagnosis(gpu, "data_bound", row, features=_Features(features or {}))
                       for gpu, row in zip(chosen, rows, strict=True)),
        rows=tuple(rows),
    )  # fmt: skip


def trainer(advice: PolicyAdvice) -> dict[str, Any]:
    return {k: v for each in advice.actions if each.kind == "configure_trainer" for k, v in each.parameters.items()}


def commands(advice: PolicyAdvice) -> list[Any]:
    return [each.parameters["argv"] for each in advice.actions if each.kind == "run_command"]


def code(advice: PolicyAdvice) -> str:
    return "\n".join(str(each.parameters["python"]) for each in advice.actions if each.kind == "edit_code")


def hints(advice: PolicyAdvice) -> str:
    return "\n".join(each.note for each in advice.actions if each.kind == "note")


# Projections and confidence


@pytest.mark.parametrize(
    ("policy", "features", "variant", "confidence", "throughput"),
    [
        (batch_size.advise, {"fill": 0.3}, "", "medium", None),
        (batch_size.advise, {}, "", "low", None),
        (communication.advise, {"communication": 0.2}, "", "high", 1.25),
        (communication.advise, {"communication": 0.98}, "", "high", 50),
        (communication.advise, {"communication": 0.99}, "", "high", None),  # a step of nothing but waiting
        (communication.advise, {}, "", "medium", None),
        (cooling.advise, {"clock_of_peers": 0.8, "clock": 0.5}, "", "high", 1.25),
        (cooling.advise, {"clock": 0.5}, "", "high", 2),
        (cooling.advise, {"clock_of_peers": 0.8}, "", "high", 1.25),
        (cooling.advise, {}, "", "high", None),
        (power_limit.advise, {"clock_of_peers": 0.8, "clock": 0.5}, "limit", "high", 1.25),
        (power_limit.advise, {"clock": 0.5}, "limit", "high", 2),
        (power_limit.advise, {}, "brake", "high", None),
        (data_loading.advise, {"data_wait": 0.2}, "", "high", 1.25),
        (data_loading.advise, {"data_wait": 0.98}, "", "high", 50),
        (data_loading.advise, {"data_wait": 0.99}, "", "high", None),
        (data_loading.advise, {}, "", "medium", None),
        (profiling.advise, {"sm_activity": 0.2}, "collective", "high", None),
        (profiling.advise, {"sm_activity": 0.03}, "", "medium", None),
        (profiling.advise, {"sm_activity": 0.029}, "", "high", None),
        (profiling.advise, {}, "", "high", None),
        (profiling.advise, {"memory_fill": 0.01, "busy_power_at_most": 0.3}, "silent", "medium", None),
        (straggler.advise, {"communication_below_job": 0.2}, "waits", "high", 1.25),
        (straggler.advise, {"communication_below_job": 0.98}, "clock", "high", 50),
        (straggler.advise, {"communication_below_job": 0.99}, "work", "medium", None),
        (straggler.advise, {"communication_below_job": 0.0}, "work", "medium", None),
        (straggler.advise, {"communication_below_job": -0.2}, "idle", "medium", None),
        (straggler.advise, {}, "idle", "medium", None),
    ],
)
def test_what_is_gained_follows_from_what_was_measured(
    policy: Policy, features: Mapping[str, float], variant: str, confidence: str, throughput: float | None
) -> None:
    advice = policy(finding(features, variants=(variant,)))
    assert advice.confidence == confidence
    assert advice.projection.throughput_ratio == (None if throughput is None else pytest.approx(throughput))


@given(st.floats(0, 0.98), st.floats(0.01, 1))
def test_utilization_without_waiting_is_that_of_the_rest_and_at_most_one(wait: float, utilization: float) -> None:
    projected = data_loading.advise(finding({"data_wait": wait, "utilization": utilization})).projection
    assert projected.utilization_ratio == pytest.approx(min(1.0, utilization / (1 - wait)))
    assert data_loading.advise(finding({"data_wait": wait})).projection.utilization_ratio is None


# Alternative reasons lead to other actions


@pytest.mark.parametrize(
    ("features", "settings", "copies", "shown"),
    [
        ({"io_pressure": 0.10, "cpu": 0.95, "input_rate": 2e9}, {}, False, "10%"),
        ({"io_pressure": 0.09, "cpu": 0.80, "input_rate": 2e9}, {}, False, "80%"),
        ({"io_pressure": 0.09, "cpu": 0.79, "input_rate": 1.5e9}, {"dataloader_pin_memory": True}, True, "copies"),
        (
            {"io_pressure": 0.09, "cpu": 0.79, "input_rate": 1.5e9 - 1},
            {"dataloader_persistent_workers": True, "dataloader_prefetch_factor": 4, "dataloader_pin_memory": True},
            True,
            "workers",
        ),
    ],
)
def test_the_remedy_for_slow_loading_is_that_of_the_first_bottleneck(
    features: Mapping[str, float], settings: Mapping[str, Any], copies: bool, shown: str
) -> None:
    advice = data_loading.advise(finding(features))
    assert trainer(advice) == settings
    assert ("non_blocking" in code(advice)) is copies
    assert shown in advice.summary
    storage, processors = (hints(data_loading.advise(finding(each))) for each in ({"io_pressure": 1.0}, {"cpu": 1.0}))
    assert (hints(advice) == storage) is (features["io_pressure"] >= 0.1)
    assert (hints(advice) == processors) is (shown == "80%")


def test_communication_advice_depends_on_nodes_then_on_nvlink() -> None:
    one, two, slow = (
        communication.advise(finding(found=found)) for found in (gpus(8), gpus(9), gpus(8, "NVIDIA H100 PCIe"))
    )
    assert len(two.actions) > len(one.actions) < len(slow.actions)
    assert "NCCL" in hints(two)
    assert "NVLink" in hints(slow)
    assert "NVLink" not in hints(two) + hints(one)
    for advice in (one, two, slow):
        assert "DistributedDataParallel" in code(advice)
        assert "no_sync" in code(advice)


def test_heat_of_many_gpus_is_a_matter_of_the_node() -> None:
    few, four, five = (hints(cooling.advise(finding(found=gpus(count)))) for count in (3, 4, 5))
    apart = hints(cooling.advise(finding(found=gpus(4, per_node=1))))  # one of each node
    assert four == five != few == apart
    assert "node" in four
    assert "node" not in few


def test_memory_advice_saves_traffic_where_bandwidth_is_the_limit_and_room_where_capacity_is() -> None:
    features = {"dram": 0.78, "dram_fill": 0.81, "memory_needed": 0.93, "sm_activity": 0.19}
    traffic = memory_saving.advise(finding(features, variants=("bandwidth",)))
    room = memory_saving.advise(finding(features, variants=("capacity",)))
    assert (trainer(traffic), trainer(room)) == ({"torch_compile": True}, {"gradient_checkpointing": True})
    for advice, shown, other in ((traffic, "81%", "93%"), (room, "93%", "81%")):
        assert shown in advice.summary
        assert other not in advice.summary
    assert "memory bandwidth 78% used (81% while kernels run)" in traffic.summary
    assert "GPU memory 93% used, SM activity 19%" in room.summary
    assert ("bandwidth" in room.cause, "capacity" in traffic.cause) == (False, False)
    assert "bytes" in next(each.why_not for each in traffic.rejected)
    assert "bytes" not in next(each.why_not for each in room.rejected)
    assert len(room.actions) >= 4  # and what holds less: smaller batches, states on the host
    assert "DeepSpeed" in hints(room)
    held = memory_saving.advise(finding({"memory_needed": 0.93}, variants=("capacity",)))  # all that is known
    assert (trainer(held), held.cause) == (trainer(room), room.cause)


@pytest.mark.parametrize(
    ("name", "half", "quarter"),
    [(H100, "bf16 or fp16", "fp8"), (A100, "bf16 or fp16", ""), (V100, "fp16", ""), (P100, "bf16 or fp16, if", "")],
)
@pytest.mark.parametrize("variant", ["bandwidth", "capacity"])
def test_formats_are_listed_by_the_bytes_that_they_take(name: str, half: str, quarter: str, variant: str) -> None:
    """TF32 takes the 32 bits of FP32."""
    found = hints(memory_saving.advise(finding(found=gpus(1, name), variants=(variant,))))
    assert f"half the bytes per value: {half}" in found
    assert f"a quarter of the bytes per value: {quarter}" in found or not quarter
    assert ("fp8" in found.lower()) == bool(quarter)
    assert "tf32" not in found.lower()


@pytest.mark.parametrize(
    ("limit", "draw", "lower"),
    [(700, 410, "369"), (700, 690, "621"), (400, 410, "360"), (700, None, ""), (None, 410, "")],
)
def test_a_lower_power_limit_is_below_what_the_gpu_draws(limit: float | None, draw: float | None, lower: str) -> None:
    known = finding({"thermal": 0.9, "clock": 0.7})
    for signal, value in ((POWER_LIMIT, limit), (POWER, draw)):
        if value is not None:
            known = replace(known, facts=with_values(known.facts, {signal: {"GPU-0": value}}))
    limits = [argv[-1] for argv in commands(cooling.advise(known)) if "-pl" in argv]
    assert limits == ([lower] if lower else [])


def test_gpus_without_commands_of_their_own_are_counted() -> None:
    assert list(more_gpus(gpus(8))) == []
    assert list(more_gpus(gpus(9))) == ["and 1 more: node-1 GPU 0"]
    assert list(more_gpus(gpus(24))) == ["and 16 more: node-1 GPU 0 to node-2 GPU 7"]


@pytest.mark.parametrize(
    ("policy", "variant"),
    [
        (batch_size, ""), (communication, ""), (cooling, ""), (data_loading, ""), (memory_saving, "bandwidth"),
        (memory_saving, "memory activity"), (memory_saving, "capacity"), (mixed_precision, ""), (power_limit, "brake"),
        (power_limit, "limit"), (power_limit, "default"), (profiling, ""), (profiling, "silent"), (smaller_gpu, ""),
        (straggler, "waits"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "missing", ["", "cpu", "io_pressure", "sm_activity", "clock_of_peers", "limit_of_peers", "fill"]
)
def test_each_number_of_a_summary_stands_in_its_evidence(policy: Any, variant: str, missing: str) -> None:
    """Features with distinct values: one whose percentage is shown has its signals among the evidence."""
    shown = {each.name: 0.11 + 0.01 * k for k, each in enumerate(FEATURES) if each.name != missing}
    known = finding(shown, variants=(variant,))
    everything = {each.name: {"GPU-0" if each.scope == "gpu" else "node-0": 0.5} for each in SIGNALS}
    object.__setattr__(known.facts, "values", everything)
    advice = policy.advise(known)
    evidence = {each.signal for each in known.evidence(advice)}
    percentages = set(re.findall(r"\d+%", advice.summary))
    for feature in FEATURES:
        if feature.name in shown and f"{shown[feature.name]:.0%}" in percentages:
            percentages.remove(f"{shown[feature.name]:.0%}")
            assert {signal.name for signal in feature.signals} <= evidence, feature.name
    assert not percentages  # of no feature


def test_power_advice_names_the_supply_or_the_limit() -> None:
    brake = power_limit.advise(finding({"limit_of_peers": 0.61}, variants=("brake",)))
    limit = power_limit.advise(finding({"limit_of_peers": 0.61}, variants=("limit",)))
    cap = power_limit.advise(finding({"clock": 0.9}, variants=("limit",)))
    assert commands(brake) == []
    assert hints(brake)
    assert any("-pl" in " ".join(argv) for argv in commands(limit))
    assert commands(cap) == commands(limit)
    assert ["61%" in each.summary for each in (brake, limit, cap)] == [False, True, False]
    assert "?" not in cap.summary
    assert len({each.summary.rpartition(":")[2] for each in (brake, limit, cap)}) == 3
    default = power_limit.advise(finding({"limit_of_default": 0.61}, variants=("default",)))
    assert [each.rejected[0].action for each in (limit, default)] == ["raise the limit of all GPUs", "ignore it"]
    compared = [POWER_LIMIT in each.peer_signals for each in (brake, limit, cap, default)]
    assert compared == [False, True, False, False]
    default = power_limit.advise(finding({"clock": 0.6, "limit_of_default": 0.5}, variants=("default",)))
    assert "60% of its maximum clock: its power limit is 50% of the model's default" in default.summary
    assert default.rejected != limit.rejected


@pytest.mark.parametrize(
    ("models", "formats"),
    [
        (["NVIDIA H100 80GB HBM3", "Tesla V100-SXM2-32GB"], ("fp16",)),
        (["Tesla V100-SXM2-32GB", "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"], ("fp16",)),
        (["Tesla K80", "NVIDIA H100 80GB HBM3"], ()),
        ([], ()),
    ],
)
def test_formats_that_all_gpus_have(models: list[str], formats: tuple[str, ...]) -> None:
    found = [replace(gpu, name=model) for gpu, model in zip(gpus(len(models)), models, strict=True)]
    assert mixed_precision.common_formats(found) == formats


def test_what_no_metric_shows_is_not_claimed() -> None:
    """Of the host without its CPU, of SMs without their activity, of peers without other GPUs."""
    assert "free CPU" not in data_loading.advise(finding({"data_wait": 0.3})).summary
    assert "unknown" in data_loading.advise(finding({"data_wait": 0.3})).summary
    assert "free CPU (20% busy)" in data_loading.advise(finding({"data_wait": 0.3, "cpu": 0.2})).summary
    assert "SM" not in memory_saving.advise(finding({"memory_needed": 0.95}, variants=("capacity",))).summary
    assert "peers" not in power_limit.advise(finding({"clock": 0.6}, variants=("limit",))).summary
    silent = profiling.advise(finding({"memory_fill": 0.01, "busy_power_at_most": 0.3}, variants=("silent",)))
    assert "SM" not in silent.summary
    assert "collective" not in silent.summary
    for advise in (data_loading.advise, power_limit.advise, memory_saving.advise):
        assert "?" not in advise(finding({"memory_needed": 0.95})).summary


def test_a_collective_that_hangs_is_searched_by_its_stacks_and_kernels_by_a_profiler() -> None:
    hangs, kernels = (profiling.advise(finding(variants=variants)) for variants in (("collective",), ("",)))
    assert "py-spy dump" in " ".join(commands(hangs)[0])
    assert commands(kernels)[0][0] == "nsys"
    assert ["collective" in each.summary for each in (hangs, kernels)] == [True, False]
    silent = profiling.advise(finding(variants=("silent",)))  # without SM activity it may be either
    assert commands(silent) == commands(hangs) + commands(kernels)
    assert hints(hangs) != hints(kernels)


# Models


@pytest.mark.parametrize(
    ("names", "settings", "formats"),
    [
        ((H100,), {"tf32": True, "bf16": True}, "bf16, fp16, fp8, tf32"),
        ((A100,), {"tf32": True, "bf16": True}, "bf16, fp16, tf32"),
        ((A100, H100), {"tf32": True, "bf16": True}, "bf16, fp16, tf32"),
        ((V100, H100), {"fp16": True}, "fp16"),
        ((V100,), {"fp16": True}, "fp16"),
        ((P100,), {"fp16": True}, None),
        ((P100, H100), {"fp16": True}, None),
    ],
)
def test_number_formats_are_those_that_all_gpus_have(
    names: Sequence[str], settings: Mapping[str, bool], formats: str | None
) -> None:
    found = [gpu for name in names for gpu in gpus(1, name)]
    advice = mixed_precision.advise(finding(found=found))
    assert trainer(advice) == settings
    assert mixed_precision.formats_text(found) == (formats or mixed_precision.UNKNOWN_FORMATS)
    assert mixed_precision.formats_text(found)
    assert ("FP8" in hints(advice)) is (names == (H100,) or "fp8" in mixed_precision.formats_of(names[0]))


@pytest.mark.parametrize(
    ("names", "sliced"), [((H100,), True), ((H100, T4), False), ((T4,), False), ((A100, H100), True)]
)
def test_a_slice_is_advised_where_all_gpus_can_be_sliced(names: Sequence[str], sliced: bool) -> None:
    advice = smaller_gpu.advise(finding(found=[gpu for name in names for gpu in gpus(1, name)]))
    assert any(argv[:2] == ("nvidia-smi", "mig") for argv in commands(advice)) is sliced
    assert ("MIG" in advice.summary) is sliced


# Numbers of GPUs


@pytest.mark.parametrize(("count", "text"), [(1, "1 GPU"), (2, "2 GPUs"), (64, "64 GPUs")])
def test_gpus_are_counted_in_words(count: int, text: str) -> None:
    assert finding(found=gpus(count)).count == text


@given(st.integers(0, 30))
def test_the_first_few_gpus_get_lines_of_their_own(count: int) -> None:
    assert listed_gpus(gpus(count)) == tuple(gpus(count)[: min(count, MAX_LISTED_GPUS)])


@pytest.mark.parametrize(("vendor", "tool"), [("nvidia", "nvidia-smi"), ("amd", "amd-smi"), ("intel", "")])
def test_commands_are_those_of_the_vendor(vendor: str, tool: str) -> None:
    cards = [Gpu(f"G{index}", str(index), "x", vendor, "n", True) for index in range(2)]
    for advise, variant in ((cooling.advise, ""), (power_limit.advise, "limit"), (straggler.advise, "clock")):
        advice = advise(finding(variants=(variant,), found=cards))
        text = " ".join(" ".join(argv) for argv in commands(advice)) + hints(advice)
        assert {name for name in ("nvidia-smi", "amd-smi") if name in text} == ({tool} if tool else set())


def test_a_straggler_is_looked_at_by_its_index_where_it_has_one() -> None:
    found = [Gpu("a", "3", H100, "nvidia", "n", True), Gpu("b", "", H100, "nvidia", "n", True)]
    first, second = commands(straggler.advise(finding(found=found)))
    assert first[2:4] == ("-i", "3")
    assert "-i" not in second


@pytest.mark.parametrize(("slow", "listed"), [(1, 1), (8, 8), (12, 8)])
def test_of_many_stragglers_the_first_are_listed_and_the_rest_of_the_job_waits(slow: int, listed: int) -> None:
    members = gpus(16, per_node=1)
    advice = straggler.advise(finding(found=members[:slow], jobs={"llm": members}))
    assert len(commands(advice)) == listed
    assert sum("kubectl cordon" in line for line in hints(advice).splitlines()) == listed
    assert f"{16 - slow} GPUs" in advice.summary


@pytest.mark.parametrize(("node", "cordoned"), [("n1", True), ("n[1-9]", False), ("all", False), ("-l", False)])
def test_a_straggler_is_cordoned_by_a_name_of_one_host(node: str, cordoned: bool) -> None:
    advice = straggler.advise(finding(found=[Gpu("a", "3", H100, "nvidia", node, True)]))
    assert ("kubectl cordon" in hints(advice)) == cordoned


@pytest.mark.parametrize(("known", "asks"), [({"cpu": 0.2}, False), ({}, True)])
def test_what_limits_the_loader_is_asked_of_a_host_without_metrics(known: dict[str, float], asks: bool) -> None:
    advice = data_loading.advise(finding({"data_wait": 0.3, **known}))
    assert ("node_exporter on the host" in hints(advice)) == asks


def test_without_a_known_job_no_one_waits() -> None:
    assert "0 GPUs" in straggler.advise(finding(found=gpus(3))).summary


# Evidence


def test_thresholds_stand_beside_signals_that_are_compared_themselves() -> None:
    conditions = (
        above("utilization", 0.8, 0.7),
        below("utilization", 0.9, 0.95),  # the first one counts
        below("fill", 0.5, 0.6),  # SM activity in relation to utilization
        any_of(above("sm_activity", 0.3, 0.2), above("memory_held", 0.4, 0.3)),
    )
    known = finding(found=gpus(2), conditions=conditions)
    values = {**known.facts.values, SM_ACTIVITY.name: {"GPU-0": 0.1, "GPU-1": 0.3}, MEMORY_USED.name: {}}
    object.__setattr__(known.facts, "values", values)
    reported = {each.signal: each for each in known.evidence(PolicyAdvice("", (), ()))}
    assert {name: each.threshold for name, each in reported.items()} == {
        IDLE_UTILIZATION.name: 0.8,
        SM_ACTIVITY.name: 0.3,
    }
    assert reported[SM_ACTIVITY.name].value == pytest.approx(0.2)
    assert next(iter(reported)) == IDLE_UTILIZATION.name
    assert NODE_CPU.name not in reported
    assert UTILIZATION.name not in reported


def test_the_mean_is_of_gpus_that_have_the_feature() -> None:
    known = finding({"cpu": 0.2}, gpus(3))
    (first, *rest) = known.outcomes
    object.__setattr__(first, "features", _Features(cpu=0.5))
    object.__setattr__(rest[0], "features", _Features())
    assert known.mean("cpu") == pytest.approx(0.35)
    assert known.mean("power") is None
    assert (known.at_least("cpu", 0.35 - 1e-9), known.at_least("cpu", 0.36), known.at_least("power", 0.0)) == (
        True,
        False,
        False,
    )
    assert finding({"cpu": 0.5}).at_least("cpu", 0.5)


@pytest.mark.parametrize(
    ("policy", "features", "variants"),
    [
        (communication, {}, [""]),
        (communication, {"communication": 0.3}, [""]),
        (data_loading, {}, [""]),
        (data_loading, {"data_wait": 0.3}, [""]),
        (mixed_precision, {"fp32_fill": 0.5}, [""]),
        (power_limit, {"clock": 0.6, "limit_of_default": 0.5}, ["default"]),
        (power_limit, {"clock_of_peers": 0.6, "limit_of_peers": 0.5}, ["limit"]),
        (power_limit, {}, ["limit"]),
    ],
)
def test_verbs_agree_with_the_number_of_gpus(
    policy: Any, features: Mapping[str, float], variants: Sequence[str]
) -> None:
    """`1 GPU waits`, `2 GPUs wait`."""
    one, two = (policy.advise(finding(features, gpus(count), variants)).summary for count in (1, 2))
    found = re.findall(r"(?:1 GPU|2 GPUs) (\w+)", f"{one}\n{two}")
    assert tuple(found) in {
        ("waits", "wait"), ("computes", "compute"), ("runs", "run"), ("is", "are"),
    }  # fmt: skip
    assert "their" not in one
    assert " its " not in two
