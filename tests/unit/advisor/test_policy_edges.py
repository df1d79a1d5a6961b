"""Policies on whole fleets at their edges: who abstains and why, evidence, confidence, and measured batch sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import pytest
from gpu_advisor.calibration.points import MeasuredPoint, clean_points
from gpu_advisor.calibration.profile_index import ProfileCurve, ProfileIndex
from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.policies import by_diagnosis, calibrated_batch_size, failing_gpu, idle_reclaim
from gpu_advisor.evaluation.policies.calibrated_batch_size import MAX_PEAK_DEVIATION
from gpu_advisor.evaluation.policies.findings import MAX_LISTED_GPUS
from gpu_advisor.evaluation.policies.idle_gpus import ACTIVE_STEP_RATIO
from gpu_advisor.evaluation.policies.idle_reclaim import MAX_LISTED_NODES
from gpu_advisor.evaluation.policies.scale_recommendation import MIN_HISTORY_SECONDS
from gpu_advisor.evaluation.recommendation import Abstention, Reason, Recommendation
from gpu_advisor.evaluation.signals import Signal
from gpu_advisor.settings import Settings

from tests.unit.advisor.builders import AT, MODEL, GpuSpec, facts
from tests.unit.advisor.test_calibrated_batch import GIB, curve, facts_with, memory, recommend, throughput
from tests.unit.advisor.test_policies_diagnosed import TRAINING, WAITING, fleet
from tests.unit.advisor.test_scale import STEP, scale_advice, serving_gpus, settings


def with_values(known: Facts, values: Mapping[Signal, Mapping[str, float]]) -> Facts:
    changed = {signal.name: dict(found) for signal, found in values.items()}
    return dataclasses.replace(known, values={**known.values, **changed})


def undiagnosed(known: Facts, chosen: Settings = TRAINING) -> list[Abstention]:
    return [each for each in decide(known, chosen).abstentions if each.subject == by_diagnosis.SUBJECT]


# Without a cause


FULL_KERNELS = {signals.SM_ACTIVITY: 0.8}


@pytest.mark.parametrize(
    ("utilization", "measured", "asked"),
    [(0.45, {}, True), (0.899, {}, True), (0.90, FULL_KERNELS, False), (0.95, FULL_KERNELS, False), (0.95, {}, True)],
)
def test_a_gpu_at_its_target_needs_no_cause(utilization: float, measured: dict[Signal, float], asked: bool) -> None:
    """It is at its target if its kernels are known to fill it: utilization alone does not show that."""
    assert bool(undiagnosed(fleet(2, measured, utilization=utilization))) is asked


def test_only_gpus_without_a_cause_are_listed() -> None:
    known = fleet(3, {})
    known = with_values(known, {signals.JOB_STEP_TIME: {"GPU-0": 0.98}, signals.JOB_DATA_WAIT: {"GPU-0": 0.49}})
    (word,) = undiagnosed(known)
    assert word.gpus == ("GPU-1", "GPU-2")


def test_an_unobserved_gpu_is_not_listed() -> None:
    known = fleet(2, {})
    (word,) = undiagnosed(
        dataclasses.replace(known, gpus=(dataclasses.replace(known.gpus[0], up=False), *known.gpus[1:]))
    )
    assert word.gpus == ("GPU-1",)


def test_a_clear_cause_after_one_in_its_dead_band_is_no_conflict() -> None:
    """The data wait lies in its dead band, but full kernels are seen."""
    near = {signals.JOB_STEP_TIME: 1.0, signals.JOB_DATA_WAIT: 0.165, signals.SM_ACTIVITY: 0.8}
    assert undiagnosed(fleet(2, near, utilization=0.95)) == []
    assert {each.reason for each in undiagnosed(fleet(2, near, utilization=0.84))} <= {Reason.CONFLICTING}


@pytest.mark.parametrize(
    ("supported", "reason"), [("all", Reason.NO_DATA), ("one", Reason.NO_DATA), ("none", Reason.UNSUPPORTED)]
)
def test_metrics_that_one_exporter_could_give_are_missing_data(supported: str, reason: Reason) -> None:
    known = fleet(2, {})
    kept = {"all": set(known.expressions), "one": {signals.JOB_DATA_WAIT.name}, "none": set()}[supported]
    expressions = {name: each for name, each in known.expressions.items() if name in kept}
    assert {each.reason for each in undiagnosed(dataclasses.replace(known, expressions=expressions))} == {reason}


@pytest.mark.parametrize(("reporting", "suggested"), [(0, True), (1, False), (2, False)])
def test_the_kind_of_a_pool_is_asked_for_where_nothing_shows_it(reporting: int, suggested: bool) -> None:
    """A GPU whose job reports steps trains, and so does its pool."""
    chosen = Settings.model_validate({"pools": [{"name": "p"}]})
    known = with_values(fleet(2, {}), {signals.JOB_STEP_TIME: {f"GPU-{i}": 0.9 for i in range(reporting)}})
    words = undiagnosed(known, chosen)
    assert words
    assert any("kind: training" in each.message for each in words) is suggested


def test_a_recommendation_on_a_cause_counts_its_gpus_down_to_none() -> None:
    advice = [each for each in decide(fleet(9, WAITING), TRAINING).recommendations if each.kind == "data_loading"]
    assert [(each.current, each.recommended, each.nodes) for each in advice] == [(9, 0, ("node-0", "node-1"))]


# Failing GPUs


@pytest.mark.parametrize(
    ("measured", "signal", "threshold"),
    [
        ({signals.ROW_REMAP_FAILED: 1.0, signals.FATAL_ERRORS: 3.0, signals.ROW_REMAP_PENDING: 1.0},
         signals.ROW_REMAP_FAILED, 1.0),
        ({signals.FATAL_ERRORS: 3.0, signals.ROW_REMAP_PENDING: 1.0}, signals.FATAL_ERRORS, 0.5),
        ({signals.FATAL_ERRORS: 0.5}, signals.FATAL_ERRORS, 0.5),
        ({signals.FATAL_ERRORS: 0.49}, None, None),
        ({signals.FATAL_ERRORS: 0.49, signals.ROW_REMAP_PENDING: 1.0}, signals.ROW_REMAP_PENDING, 1.0),
        ({signals.ROW_REMAP_FAILED: 0.0}, None, None),
        ({}, None, None),
    ],
)  # fmt: skip
def test_a_failing_gpu_gets_one_recommendation_for_its_worst_failure(
    measured: Mapping[Signal, float], signal: Signal | None, threshold: float | None
) -> None:
    found = [each for each in decide(fleet(2, measured), TRAINING).recommendations if each.kind == failing_gpu.KIND]
    assert len(found) == (0 if signal is None else 2)  # one for each GPU
    for each in found:
        assert (each.current, each.recommended) == (1, 0)
        (evidence,) = each.evidence
        assert (evidence.signal, evidence.threshold) == (signal.name if signal else None, threshold)


@pytest.mark.parametrize("signal", [signals.ROW_REMAP_FAILED, signals.FATAL_ERRORS, signals.ROW_REMAP_PENDING])
def test_the_explanation_of_a_failure_does_not_repeat_its_title(signal: Signal) -> None:
    (found,) = (
        each for each in decide(fleet(1, {signal: 1.0}), TRAINING).recommendations if each.kind == "failing_gpu"
    )
    what = found.summary.removeprefix(f"{found.scope} ").partition(":")[0]
    assert what not in found.explanation
    assert found.explanation.endswith(".")


@pytest.mark.parametrize(
    ("code", "title", "meaning"),
    [
        (79.0, " (Xid 79)", "the GPU fell off the bus"),
        (48.0, " (Xid 48)", "double-bit ECC error"),
        (143.0, " (Xid 143)", ""),  # fatal, and not in the table of meanings
        (13.0, "", ""),  # of an application: the fatal one came before
        (None, "", ""),
    ],
)
def test_a_fatal_error_has_its_code_where_that_is_known(code: float | None, title: str, meaning: str) -> None:
    measured = {signals.FATAL_ERRORS: 1.0} | ({} if code is None else {signals.LAST_ERROR: code})
    (found,) = (each for each in decide(fleet(1, measured), TRAINING).recommendations if each.kind == "failing_gpu")
    assert f"reported a fatal error{title}: drain" in found.summary
    assert ("--gpu-reset" in " ".join(found.apply), "power-cycle" in found.summary) == (code != 79.0, code == 79.0)
    assert meaning in found.explanation
    assert ("Xid" in found.explanation) == bool(meaning)
    assert [each.signal for each in found.evidence][1:] == ([signals.LAST_ERROR.name] if title else [])


# Idle GPUs


def idle_advice(known: Facts, chosen: Settings | None = None) -> Recommendation:
    (found,) = (each for each in decide(known, chosen or Settings()).recommendations if each.kind == idle_reclaim.KIND)
    return found


@pytest.mark.parametrize(("count", "evidence"), [(1, 3), (2, 5), (8, 11), (12, 11)])
def test_evidence_is_the_mean_of_the_idle_and_the_first_of_them(count: int, evidence: int) -> None:
    """Utilization of all, of single ones if there are several; coverage; memory."""
    advice = idle_advice(facts([GpuSpec(f"{i:02}", 0.0) for i in range(count)], TRAINING), TRAINING)
    assert len(advice.evidence) == evidence
    single = [each.things.values for each in advice.evidence if each.things and len(each.things.values) == 1]
    if count > 1:
        assert len(single) == min(count, MAX_LISTED_GPUS)
    assert advice.evidence[0].threshold == pytest.approx(0.01)
    assert advice.evidence[-2].threshold == pytest.approx(Settings().evaluation.min_coverage_ratio)
    cards = [GpuSpec(f"{i:02}", 0.0) for i in range(count)]
    without = idle_advice(facts(cards, TRAINING, without=["gpu_memory_used"]), TRAINING)
    assert len(without.evidence) == evidence - 1


@pytest.mark.parametrize(
    ("samples", "counted"), [({}, None), ({"a": 118.0}, 118), ({"a": 118.6, "b": 60.0}, 60), ({"a": 0.0}, None)]
)
def test_samples_and_coverage_are_those_of_the_worst(samples: dict[str, float], counted: int | None) -> None:
    known = with_values(facts([GpuSpec("a", 0.0), GpuSpec("b", 0.0, coverage=0.95)]), {signals.IDLE_SAMPLES: samples})
    first = idle_advice(known).evidence[0]
    assert (first.samples, first.coverage) == (counted, 0.95)
    assert counted is None or isinstance(first.samples, int)


@pytest.mark.parametrize(
    ("coverage", "confidence"), [(1.0, "high"), (0.98, "high"), (0.979, "medium"), (0.9, "medium")]
)
def test_confidence_is_that_of_the_gpu_with_least_data(coverage: float, confidence: str) -> None:
    assert idle_advice(facts([GpuSpec("a", 0.0), GpuSpec("b", 0.0, coverage=coverage)])).confidence == confidence


@pytest.mark.parametrize(("share", "noted"), [(ACTIVE_STEP_RATIO, True), (ACTIVE_STEP_RATIO - 0.01, False)])
def test_a_job_that_runs_elsewhere_is_noted_with_or_without_its_name(share: float, noted: bool) -> None:
    known = with_values(facts([GpuSpec("a", 0.0), GpuSpec("b", 0.0)]), {signals.JOB_STEP_TIME: {"a": share}})
    for jobs, name in (({}, "a job "), ({"a": "llm"}, "llm ")):
        lines = idle_advice(dataclasses.replace(known, reported_jobs=jobs)).apply
        assert any(line.startswith(f"# {name}") for line in lines) is noted


def test_processes_are_looked_for_where_memory_is_held_else_everywhere() -> None:
    none = idle_advice(facts([GpuSpec("a", 0.0, memory=0.0), GpuSpec("b", 0.0, memory=0.0)]))
    one = idle_advice(facts([GpuSpec("a", 0.0, memory=0.0), GpuSpec("b", 0.0, memory=0.5)]))
    assert (none.diagnosis, one.diagnosis) == ("idle", "idle_holding_memory")
    assert (listed_gpus(none), listed_gpus(one)) == ([("a", "b")], [("b",)])
    assert ("1 of them" in one.summary, "of them" in none.summary) == (True, False)


def listed_gpus(advice: Recommendation) -> list[tuple[str, ...]]:
    """The GPUs of each command that lists processes."""
    commands = (each.parameters["argv"] for each in advice.actions if each.kind == "run_command")
    return [argv[4:] for argv in commands if isinstance(argv, tuple) and argv[0] == "sh"]


@pytest.mark.parametrize(("nodes", "gpus"), [(1, 1), (1, 16), (3, 8), (MAX_LISTED_NODES, 2), (MAX_LISTED_NODES + 2, 3)])
def test_a_node_is_asked_once_for_the_processes_of_its_idle_gpus(nodes: int, gpus: int) -> None:
    by_node = [[f"g{node}-{gpu}" for gpu in range(gpus)] for node in range(nodes)]
    specs = [GpuSpec(uuid, 0.0, node=f"n{node:02}") for node, uuids in enumerate(by_node) for uuid in uuids]
    advice = idle_advice(facts(specs, TRAINING), TRAINING)
    assert listed_gpus(advice) == [tuple(uuids) for uuids in by_node[:MAX_LISTED_NODES]]
    assert ("# and 6 on 2 more nodes, n08 to n09" in advice.apply) == (nodes > MAX_LISTED_NODES)


@pytest.mark.parametrize(
    ("indices", "where"),
    [
        ("0", "on node-a, GPU 0: "),
        ("00", "on node-a, GPU 0: "),
        ("01", "on node-a, GPUs 0-1: "),
        ("0123679", "on node-a, GPUs 0-3, 6-7, 9: "),
        ("531", "on node-a, GPUs 5, 3, 1: "),
        (["9", "10", "11"], "on node-a, GPUs 9-11: "),
        (["0.1", "0.2"], "on node-a, GPUs 0.1, 0.2: "),
        (["", ""], "on node-a: "),
    ],
)
def test_a_command_names_its_node_and_gpus(indices: Sequence[str], where: str) -> None:
    advice = idle_advice(
        facts([GpuSpec(f"g{k}", 0.0, index=index) for k, index in enumerate(indices)], TRAINING), TRAINING
    )
    assert f"  # {where}which processes?" in advice.apply[0]


@pytest.mark.parametrize(
    ("count", "kept", "idle"), [(1, 0, "1 idle for"), (2, 0, "all idle for"), (3, 1, "all idle for")]
)
def test_idle_gpus_in_words(count: int, kept: int, idle: str) -> None:
    """Groups are named only where a replica has several GPUs."""
    limits = {"pools": [{"name": "p", "kind": "training", "gpu": {"min": kept, "max": 8}}]}
    chosen = Settings.model_validate(limits)
    advice = idle_advice(facts([GpuSpec(f"g{k}", 0.0) for k in range(count)], chosen), chosen)
    assert idle in advice.summary
    assert all("gpus_per_replica" not in each.why_not for each in advice.rejected)
    assert len(advice.rejected) == 1 + (kept > 0)


@pytest.mark.parametrize(("seconds", "text"), [(1800, "30 min"), (5400, "90 min"), (90, "90 s"), (3661, "61 min")])
def test_the_window_in_words(seconds: int, text: str) -> None:
    chosen = Settings.model_validate({"evaluation": {"idle_window_seconds": max(seconds, 300)}})
    known = facts([GpuSpec("a", 0.0), GpuSpec("b", 0.0)], chosen)
    evaluation = chosen.evaluation.model_copy(update={"idle_window_seconds": seconds})
    assert f"for {text}" in idle_advice(dataclasses.replace(known, evaluation=evaluation), chosen).summary


@pytest.mark.parametrize(
    ("busy", "least", "gang", "alternatives"), [(0, 0, 1, 1), (1, 0, 1, 1), (0, 2, 1, 2), (1, 2, 1, 2), (1, 0, 2, 2)]
)
def test_that_some_are_kept_is_an_alternative_only_if_some_idle_ones_are(
    busy: int, least: int, gang: int, alternatives: int
) -> None:
    chosen = Settings.model_validate(
        {"pools": [{"name": "p", "gpus_per_replica": gang, "gpu": {"min": least, "max": 16}}]}
    )
    cards = [GpuSpec(f"b{i}", 0.5) for i in range(busy)] + [GpuSpec(f"i{i}", 0.0) for i in range(5)]
    assert len(idle_advice(facts(cards, chosen), chosen).rejected) == alternatives


# Sizes


@pytest.mark.parametrize(("points", "confidence"), [(60, "medium"), (61, "high"), (90, "high")])
def test_a_size_is_sure_after_an_hour(points: int, confidence: str) -> None:
    assert MIN_HISTORY_SECONDS == 3600
    trail = tuple((AT - STEP * i, 0.95) for i in reversed(range(points)))
    cards = [GpuSpec(f"GPU-{i}", 0.95, trail=trail) for i in range(4)]
    (advice,), _, _ = scale_advice(cards, settings())
    assert (advice.kind, advice.confidence) == ("scale_up", confidence)


def test_a_training_pool_needs_no_history_to_be_sure() -> None:
    (advice,), _, _ = scale_advice(serving_gpus(1, 0.9)[:1], settings(kind="training", gpu={"min": 3, "max": 8}))
    assert (advice.confidence, advice.unit, advice.recommended) == ("high", "gangs", 3)
    assert advice.apply
    assert "3" in advice.explanation


def test_evidence_of_a_size_has_the_worst_coverage_and_the_threshold_of_its_direction() -> None:
    gpu = {"min": 1, "max": 16, "scale_up_threshold": 80, "scale_down_threshold": 40, "target_utilization": 85}
    up = [*serving_gpus(3, 0.95), dataclasses.replace(serving_gpus(4, 0.95)[3], coverage=0.93)]
    (grown,), _, _ = scale_advice(up, settings(gpu=gpu))
    (shrunk,), _, _ = scale_advice(serving_gpus(12, 0.1), settings(gpu=gpu))
    for advice, threshold, coverage, samples in ((grown, 0.8, 0.93, 60), (shrunk, 0.4, 1.0, 60)):
        utilization, work = advice.evidence
        assert utilization.threshold == pytest.approx(threshold)
        assert utilization.coverage == coverage
        assert (work.signal, work.samples, work.window_seconds) == ("pool_work", samples, STEP)
        assert work.at == AT
    assert shrunk.evidence[1].value == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("count", "utilization", "gpu", "alternatives"),
    [
        (12, 0.2, {"min": 1, "max": 16}, 1),  # one fewer would do less
        (12, 0.2, {"min": 3, "max": 16}, 0),  # and is not allowed
        (12, 0.2, {"min": 2, "max": 16}, 1),
        (12, 0.01, {"min": 0, "max": 16}, 0),  # not below one
        (4, 0.95, {"min": 1, "max": 16}, 0),
        (12, 0.95, {"min": 1, "max": 13}, 1),  # more are needed than there may be
    ],
)
def test_alternatives_of_a_size(count: int, utilization: float, gpu: dict[str, int], alternatives: int) -> None:
    (advice,), _, _ = scale_advice(serving_gpus(count, utilization), settings(gpu=gpu))
    assert len(advice.rejected) == alternatives


def test_a_pool_of_no_kind_or_without_gpus_is_not_sized() -> None:
    assert scale_advice(serving_gpus(4, 0.95), settings(kind="undecided"))[0] == []
    nobody = settings(match={"node": "elsewhere"}, kind="training", gpu={"min": 3, "max": 8})
    advice, abstentions, _ = scale_advice(serving_gpus(4, 0.95), nobody)
    assert (advice, abstentions.keys() - {by_diagnosis.SUBJECT}) == ([], set())


# Measured batch sizes


def conflicts(reported: Facts) -> list[Reason]:
    return [each.reason for each in recommend(reported)[1]]


@pytest.mark.parametrize("lost", [signals.JOB_BATCH_SIZE, signals.MEMORY_TOTAL])
def test_each_rank_needs_its_size_and_its_memory(lost: Signal) -> None:
    known = facts_with(24, 2)
    assert recommend(with_values(known, {lost: {"GPU-1": known.values[lost.name]["GPU-1"]}}))[0] == []
    assert conflicts(with_values(known, {lost: {"GPU-1": known.values[lost.name]["GPU-1"]}})) == [Reason.NO_DATA]


@pytest.mark.parametrize("off", [-1, 1])
def test_a_peak_off_the_curve_is_of_another_model_beyond_its_deviation(off: int) -> None:
    """At a size between those measured the prediction has an interval; at a measured one it has none."""
    own = memory(16) - GIB
    inside = {signals.JOB_PEAK_MEMORY: own * (1 + off * (MAX_PEAK_DEVIATION - 0.01))}
    outside = {signals.JOB_PEAK_MEMORY: own * (1 + off * (MAX_PEAK_DEVIATION + 0.01))}
    assert recommend(facts_with(16, 1, inside))[0]
    assert conflicts(facts_with(16, 1, inside)) == []
    assert recommend(facts_with(16, 1, outside))[0] == []
    assert conflicts(facts_with(16, 1, outside)) == [Reason.CONFLICTING]


def test_the_nearest_of_several_curves_counts() -> None:
    both = [curve("bfloat16", 1.0), curve("float32", 1.08)]
    for curves in (both, both[::-1]):
        (advice,), _ = recommend(facts_with(16, 1, {signals.JOB_PEAK_MEMORY: 1.07 * (memory(16) - GIB)}, *curves))
        assert "(float32)" in advice.summary


def test_a_curve_that_agrees_is_better_than_one_that_cannot_be_compared() -> None:
    blind = dataclasses.replace(curve("float32"), allocated=None)
    near = {signals.JOB_PEAK_MEMORY: 1.1 * (memory(16) - GIB)}
    (advice,), _ = recommend(facts_with(16, 1, near, blind, curve("bfloat16")))
    assert "(bfloat16)" in advice.summary
    (unchecked,), _ = recommend(facts_with(16, 1, near, blind))
    assert "(float32)" in unchecked.summary
    (without,), _ = recommend(facts_with(16, 1, {}, curve("bfloat16")))
    assert without.recommended > 16


@pytest.mark.parametrize(("gain", "worthwhile"), [(0.06, True), (0.04, False), (0.03, False)])
def test_a_small_gain_is_not_worth_another_learning_rate(gain: float, worthwhile: bool) -> None:
    rates = {16: 100.0, 32: 100.0 * (1 + gain), 48: 100.0 * (1 + gain) * 0.9}
    measured = clean_points(MeasuredPoint(size, memory(size), rate) for size, rate in rates.items())
    found = ProfileCurve(MODEL, "llm", "bfloat16", measured, None)
    advice, abstentions = recommend(facts_with(16, 1, {}, found))
    assert abstentions == []
    assert bool(advice) is worthwhile


@pytest.mark.parametrize(("noise", "ranks", "most"), [(100.0, 4, 25), (7.0, 8, 1), (31.9, 1, 31)])
def test_noise_is_shared_by_all_ranks_and_leaves_one_sample_at_least(noise: float, ranks: int, most: int) -> None:
    advice, abstentions = recommend(facts_with(1, ranks, {signals.JOB_GRADIENT_NOISE: noise}))
    assert abstentions == []
    assert all(each.recommended <= most for each in advice)
    assert bool(advice) is (most > 1)


def test_a_batch_scaled_by_the_free_memory_is_an_alternative_in_samples() -> None:
    (advice,), _ = recommend(facts_with(16))
    scaled = int(16 * 0.85 * 80 * GIB / memory(16))
    assert [each.action.split(",")[0] for each in advice.rejected][-1] == str(scaled)
    assert len(advice.rejected) == 2
    assert throughput(32) > throughput(16)
    assert [each.threshold for each in advice.evidence] == [None, None]


@pytest.mark.parametrize(
    ("batch", "sizes", "confidence"),
    [(8, (4, 8, 16, 32), "medium"), (8, (4, 8), "low"), (64, (4, 8, 16, 32, 57, 64), "high")],
)
def test_confidence_follows_from_what_was_measured(batch: int, sizes: tuple[int, ...], confidence: str) -> None:
    measured = clean_points(MeasuredPoint(size, memory(size)) for size in sizes)
    (advice,), _ = recommend(facts_with(batch, 1, {}, ProfileCurve(MODEL, "llm", "bfloat16", measured, None)))
    assert advice.confidence == confidence


def test_profiles_are_of_the_job_and_of_the_gpu_type() -> None:
    known = facts_with(24, 2)
    assert calibrated_batch_size.has_profile(known, known.gpus)
    assert not calibrated_batch_size.has_profile(dataclasses.replace(known, reported_jobs={"GPU-0": "llm"}), known.gpus)
    assert not calibrated_batch_size.has_profile(dataclasses.replace(known, profiles=ProfileIndex(())), known.gpus)
    other = dataclasses.replace(known, gpus=tuple(dataclasses.replace(gpu, name="T4") for gpu in known.gpus))
    assert not calibrated_batch_size.has_profile(other, other.gpus)
