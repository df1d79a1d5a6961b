"""Advice on causes: one recommendation for each job or pool and cause, and what it says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.policies import by_diagnosis, failing_gpu, idle_reclaim
from gpu_advisor.evaluation.policies.mixed_precision import formats_of
from gpu_advisor.evaluation.recommendation import Abstention, Reason, Recommendation, Scope
from gpu_advisor.evaluation.signals import Signal
from gpu_advisor.settings import Settings
from gpu_advisor.state.active import ActiveRecommendation, stale_ids

from benchmarks.situations.classes import CLASSES, draw
from benchmarks.situations.facts_adapter import ObservedSituation
from benchmarks.situations.observation import observe
from tests.unit.advisor.builders import GpuSpec, concluded, facts

#: A GPU that waits for its batches, as its job reports it.
WAITING: Mapping[Signal, float] = {
    signals.JOB_STEP_TIME: 0.98,
    signals.JOB_DATA_WAIT: 0.49,
    signals.SM_ACTIVITY: 0.40,
}
TRAINING = Settings.model_validate({"pools": [{"name": "p", "kind": "training", "gpu": {"min": 0, "max": 64}}]})


def fleet(
    count: int,
    measured: Mapping[Signal, float],
    jobs: Mapping[int, str] | None = None,
    utilization: float = 0.45,
    node: str = "node-{}",
    name: str = "NVIDIA H100 80GB HBM3",
) -> Facts:
    """`count` GPUs, eight a node, all with these values."""
    cards = [
        GpuSpec(f"GPU-{k}", utilization, index=str(k % 8), node=node.format(k // 8), name=name) for k in range(count)
    ]
    nodes: dict[str, dict[str, float]] = {card.node: {} for card in cards}
    known = facts(cards, TRAINING, nodes=nodes)
    values = {signal: dict(found) for signal, found in known.values.items()}
    for card in cards:
        for signal, value in {
            signals.HALF_IDLE_UTILIZATION: utilization,
            signals.IDLE_MEMORY_USED: 0.5,
            **measured,
        }.items():
            values[signal.name][card.uuid if signal.scope == "gpu" else card.node] = value
    return dataclasses.replace(known, values=values, jobs={f"GPU-{k}": job for k, job in (jobs or {}).items()})


def concluded_on(known: Facts) -> tuple[list[Recommendation], list[Abstention]]:
    concluded = decide(known, TRAINING)
    return list(concluded.recommendations), [w for w in concluded.abstentions if w.subject == by_diagnosis.SUBJECT]


@pytest.mark.parametrize(
    ("jobs", "scopes"),
    [
        ({}, {("pool", "p")}),
        (dict.fromkeys(range(64), "llm"), {("job", "llm")}),
        ({k: f"job-{k % 2}" for k in range(64)}, {("job", "job-0"), ("job", "job-1")}),
        (dict.fromkeys(range(32), "llm"), {("job", "llm"), ("pool", "p")}),
    ],
)
def test_a_cause_is_reported_once_for_a_job_or_a_pool(jobs: dict[int, str], scopes: set[tuple[str, str]]) -> None:
    advice, _ = concluded_on(fleet(64, WAITING, jobs))
    assert {each.kind for each in advice} == {"data_loading"}
    assert {(each.scope.kind, each.scope.name) for each in advice} == scopes
    assert len(advice) == len(scopes)
    assert sum(len(each.gpus) for each in advice) == 64
    for each in advice:
        assert each.projection.throughput_ratio == pytest.approx(2.0)
        assert each.projection.utilization_ratio == pytest.approx(0.9)
        reported = {evidence.signal: evidence for evidence in each.evidence}
        assert {"training_data_wait", "training_stepping", "gpu_idle_utilization"} <= reported.keys()
        assert all(evidence.promql and evidence.value is not None for evidence in each.evidence)


@pytest.mark.parametrize(
    ("measured", "means"),
    [
        ({signals.NODE_IO_PRESSURE: 0.4, signals.NODE_CPU: 0.9}, "NVMe"),
        ({signals.NODE_CPU: 0.95}, "more CPU cores"),
        ({signals.PCIE_RECEIVE: 3e9}, "pin_memory"),
        ({signals.NODE_CPU: 0.1}, "num_workers"),
        ({}, "num_workers"),
    ],
)
def test_how_data_are_loaded_better_follows_from_what_the_host_is_short_of(
    measured: Mapping[Signal, float], means: str
) -> None:
    ((advice,), _) = concluded_on(fleet(8, {**WAITING, **measured}))
    assert means in "\n".join(advice.apply)


@pytest.mark.parametrize("label", CLASSES)
def test_each_cause_has_advice_that_can_be_followed(label: str) -> None:
    """Whatever labels hold: what is to be pasted into a shell has no line of its own."""
    kinds = set()
    for situation, rng in draw(label, 31, 12):
        seen = ObservedSituation(
            situation, observe(rng, situation.scene, situation.exporters, 120), Settings(), "n\nreboot"
        )
        known, pool = seen.facts(120), seen.pool
        for result in by_diagnosis.recommend(known, Settings(), pool):
            if isinstance(result, Abstention):
                continue
            kinds.add(result.kind)
            assert result.apply
            assert result.rejected
            assert result.evidence
            assert result.current == len(result.gpus) > 0
            assert all("\n" not in line for line in result.apply)
    if label in ("healthy", "idle_holding_memory"):
        assert kinds <= {"mixed_precision"}
    else:
        assert kinds - {"mixed_precision"}


def test_a_gpu_in_single_precision_gets_mixed_precision_advice() -> None:
    single = {
        signals.JOB_STEP_TIME: 1.0, signals.SM_ACTIVITY: 0.85, signals.TENSOR_ACTIVITY: 0.0, signals.FP32_ACTIVITY: 0.5,
        signals.FP64_ACTIVITY: 0.0, signals.DRAM_ACTIVITY: 0.4,
    }  # fmt: skip
    ((advice,), _) = concluded_on(fleet(4, single, utilization=0.97))
    assert advice.kind == "mixed_precision"
    assert "bfloat16" in "\n".join(advice.apply)
    ((older,), _) = concluded_on(fleet(4, single, utilization=0.97, name="Tesla V100-SXM2-32GB"))
    assert "GradScaler" in "\n".join(older.apply)
    science = {**single, signals.FP64_ACTIVITY: 0.4}
    assert not concluded_on(fleet(4, science, utilization=0.97))[0]


@pytest.mark.parametrize(
    ("name", "formats"),
    [
        ("NVIDIA H100 80GB HBM3", {"bf16", "fp16", "fp8", "tf32"}),
        ("NVIDIA B200", {"bf16", "fp16", "fp8", "tf32"}),
        ("NVIDIA L40S", {"bf16", "fp16", "fp8", "tf32"}),
        ("NVIDIA GeForce RTX 4090", {"bf16", "fp16", "fp8", "tf32"}),
        ("NVIDIA A100-SXM4-40GB", {"bf16", "fp16", "tf32"}),
        ("NVIDIA A10G", {"bf16", "fp16", "tf32"}),
        ("NVIDIA GeForce RTX 3090", {"bf16", "fp16", "tf32"}),
        ("Tesla T4", {"fp16"}),
        ("Tesla V100-SXM2-32GB", {"fp16"}),
        ("Tesla P100-PCIE-16GB", set()),
    ],
)
def test_formats_by_generation(name: str, formats: set[str]) -> None:
    assert set(formats_of(name)) == formats


def test_a_value_relative_to_peers_stands_beside_that_of_a_peer() -> None:
    known = fleet(8, {signals.SM_CLOCK: 1980e6, signals.SM_CLOCK_MAX: 1980e6, signals.THROTTLE_HW_THERMAL: 0.0},
                  utilization=0.9)  # fmt: skip
    values = {name: dict(found) for name, found in known.values.items()}
    values[signals.SM_CLOCK.name]["GPU-3"], values[signals.THROTTLE_HW_THERMAL.name]["GPU-3"] = 1188e6, 0.85
    (found,) = (each for each in concluded_on(dataclasses.replace(known, values=values))[0] if each.kind == "cooling")
    assert "clocks at 60% of its peers'" in found.summary
    clocks = [(each.about, each.value) for each in found.evidence if each.signal == signals.SM_CLOCK.name]
    assert clocks == [("SM clock", 1188e6), ("SM clock of a typical peer", 1980e6)]
    assert found.evidence[-1].promql != found.evidence[1].promql


@pytest.mark.parametrize(
    ("reason", "kind"), [(signals.THROTTLE_HW_THERMAL, "cooling"), (signals.THROTTLE_POWER_BRAKE, "power_limit")]
)
def test_clocks_that_are_low_on_all_gpus_are_compared_with_their_maximum(reason: Signal, kind: str) -> None:
    known = fleet(8, {signals.SM_CLOCK: 1188e6, signals.SM_CLOCK_MAX: 1980e6, reason: 0.85}, utilization=0.9)
    (found,) = (each for each in concluded_on(known)[0] if each.kind == kind)
    assert "60% of their maximum" in found.summary
    assert found.projection.throughput_ratio == pytest.approx(1 / 0.6)
    assert found.savings is not None
    assert found.savings.gpus.high == pytest.approx(8 * 0.4 * 0.9)
    assert not any("peer" in each.about for each in found.evidence)


@pytest.mark.parametrize(
    ("signal", "value", "severity"),
    [
        (signals.FATAL_ERRORS, 0.98, "critical"),
        (signals.ROW_REMAP_FAILED, 1.0, "critical"),
        (signals.ROW_REMAP_PENDING, 1.0, "warning"),
        (signals.FATAL_ERRORS, 0.0, None),
    ],
)
def test_a_failing_gpu_is_taken_out(signal: Signal, value: float, severity: str | None) -> None:
    advice = [each for each in concluded_on(fleet(1, {signal: value}))[0] if each.kind == failing_gpu.KIND]
    assert [each.severity for each in advice] == ([severity] if severity else [])
    assert all(each.scope.kind == "gpu" for each in advice)


def test_within_the_dead_band_advice_is_neither_begun_nor_ended() -> None:
    clear = concluded_on(fleet(8, {signals.JOB_STEP_TIME: 1.0, signals.JOB_DATA_WAIT: 0.3}))[0]
    near = fleet(8, {signals.JOB_STEP_TIME: 1.0, signals.JOB_DATA_WAIT: 0.165}, utilization=0.84)
    advice, abstentions = concluded_on(near)
    assert not advice
    (abstention,) = (each for each in abstentions if each.reason is Reason.CONFLICTING)
    assert abstention.kinds == by_diagnosis.KINDS
    (before,) = clear
    active = {
        "a": ActiveRecommendation(0.0, before.kind, before.scope, frozenset(before.gpus)),
        "b": ActiveRecommendation(0.0, before.kind, Scope("job", "llm"), frozenset(before.gpus)),
        "c": ActiveRecommendation(0.0, "scale_up", before.scope, frozenset(before.gpus)),
        "d": ActiveRecommendation(0.0, before.kind, Scope("job", "other"), frozenset({"GPU-elsewhere"})),
    }
    assert stale_ids(active, frozenset(), decide(near, TRAINING)) == {"a", "b"}
    well = fleet(
        8, {signals.JOB_STEP_TIME: 1.0, signals.JOB_DATA_WAIT: 0.02, signals.SM_ACTIVITY: 0.8}, utilization=0.95
    )
    assert not stale_ids(active, frozenset(), decide(well, TRAINING))


def test_insufficient_data_names_one_input_and_how_to_get_it() -> None:
    advice, (abstention,) = concluded_on(fleet(8, {}))
    assert not advice
    assert (abstention.reason, abstention.input) == (Reason.NO_DATA, "job_report")
    assert "data bound or small batch or memory bound?" in abstention.message
    assert "gpu_advisor.training.TrainingMonitor" in abstention.message
    (quiet,) = (w for w in concluded_on(dataclasses.replace(fleet(8, {}), expressions={}))[1])
    assert quiet.reason is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    ("utilization", "recommended", "abstained"), [(0.005, True, False), (0.015, False, True), (0.03, False, False)]
)
def test_idle_reclaim_has_a_dead_band(utilization: float, recommended: bool, abstained: bool) -> None:
    concluded = decide(facts([GpuSpec("a", utilization), GpuSpec("b", 0.9)]), Settings())
    assert any(each.kind == idle_reclaim.KIND for each in concluded.recommendations) == recommended
    assert any(each.kinds == (idle_reclaim.KIND,) for each in concluded.abstentions) == abstained


def test_advice_suggests_setting_the_pool_kind_where_it_helps() -> None:
    for kind, suggested in (("undecided", True), ("training", False)):
        settings = Settings.model_validate({"pools": [{"name": "p", "kind": kind}]})
        found = concluded([GpuSpec("GPU-0", 0.5)], settings).abstentions
        [abstention] = [each for each in found if each.subject == "diagnosis"]
        assert (abstention.input == "pool_kind") == suggested
        assert ("set `kind: training` or `kind: serving`" in abstention.message) == suggested
