"""Batch size by measurement: a profile and a job's own report, as facts; then the decision."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from gpu_advisor.calibration.loading import curves_from_metrics, load_profile_index
from gpu_advisor.calibration.points import MeasuredPoint, clean_points
from gpu_advisor.calibration.profile import (
    PROFILE_MEMORY,
    PROFILE_THROUGHPUT,
    Measurement,
    Profile,
    profile_file_name,
    profile_rows,
    write_profile,
)
from gpu_advisor.calibration.profile_index import ProfileCurve, ProfileIndex
from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.policies import batch_size, calibrated_batch_size
from gpu_advisor.evaluation.recommendation import Abstention, Reason, Recommendation
from gpu_advisor.evaluation.signals import Signal
from gpu_advisor.settings import Settings
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.advisor.builders import MODEL, GpuSpec, facts, labels
from tests.unit.advisor.test_policies_diagnosed import fleet

GIB = 1 << 30
FIXED, A_SAMPLE = 10 * GIB, GIB
SIZES = (4, 8, 16, 32)


def memory(size: int) -> int:
    return FIXED + size * A_SAMPLE


def throughput(size: int) -> float:
    return size / (0.05 + 0.01 * size)


def profile(**changes: Any) -> Profile:
    measured = tuple(
        Measurement(
            batch_size=size,
            peak_memory_bytes=memory(size),
            peak_allocated_bytes=memory(size) - GIB,
            samples_per_second=throughput(size),
        )
        for size in SIZES
    )
    reported: dict[str, Any] = {
        "gpu_type": MODEL,
        "workload": "llm",
        "precision": "bfloat16",
        "memory_kind": "reserved",
        "created_timestamp_seconds": 1.8e9,
        "measurements": measured,
    }
    return Profile.model_validate({**reported, **changes})


def curve(precision: str = "bfloat16", factor: float = 1.0) -> ProfileCurve:
    points = [MeasuredPoint(size, round(factor * memory(size)), throughput(size)) for size in SIZES]
    own = [MeasuredPoint(size, round(factor * (memory(size) - GIB))) for size in SIZES]
    return ProfileCurve(MODEL, "llm", precision, clean_points(points), clean_points(own))


def facts_with(
    batch: float | None = 24, ranks: int = 1, more: Mapping[Signal, float] | None = None, *curves: ProfileCurve
) -> Facts:
    cards = [GpuSpec(f"GPU-{k}") for k in range(ranks)]
    reported = {signals.JOB_BATCH_SIZE: batch, signals.MEMORY_TOTAL: 80.0 * GIB, **(more or {})}
    found = facts(cards)
    values = {name: dict(each) for name, each in found.values.items()}
    for signal, value in reported.items():
        values[signal.name] = {} if value is None else {card.uuid: value for card in cards}
    jobs = {card.uuid: "llm" for card in cards}
    return dataclasses.replace(found, values=values, reported_jobs=jobs, profiles=ProfileIndex(curves or (curve(),)))


def recommend(reported: Facts) -> tuple[list[Recommendation], list[Abstention]]:
    concluded = decide(reported, Settings())
    advice = [each for each in concluded.recommendations if each.kind == batch_size.KIND]
    return advice, [each for each in concluded.abstentions if each.subject == calibrated_batch_size.SUBJECT]


def test_a_larger_batch_with_its_ceilings_gain_and_margin() -> None:
    [advice], abstentions = recommend(facts_with())
    assert abstentions == []
    assert (advice.direction, advice.current, advice.unit) == ("up", 24, "samples")
    assert 48 <= advice.recommended <= 56  # 58 GiB of 68 are for samples of 1 GiB
    assert advice.scope.name == "llm"
    gain = throughput(int(advice.recommended)) / throughput(24)
    assert advice.projection.throughput_ratio == pytest.approx(gain, rel=0.03)
    assert advice.projection.memory_ratio == pytest.approx(memory(int(advice.recommended)) / 80 / GIB, rel=0.05)
    assert (advice.projection.memory_ratio or 1) <= 0.85
    for words in ("memory ", "throughput (95 % of the best) ", "gradient noise not reported", "interval"):
        assert words in advice.explanation
    assert f"calibrated on {MODEL} (bfloat16)" in advice.summary
    assert any("1706.02677" in line and "this tool does not change it" in line for line in advice.apply)
    assert any("proportion" in each.why_not for each in advice.rejected)
    assert {"training_batch_size", "gpu_memory_total"} == {each.signal for each in advice.evidence}
    assert all(each.promql for each in advice.evidence)


def test_gradient_noise_of_all_ranks_is_a_ceiling() -> None:
    [advice], _ = recommend(facts_with(8, 4, {signals.JOB_GRADIENT_NOISE: 100.0}))
    assert advice.recommended == 24  # multiples of 8 up to 100 / 4
    assert "gradient noise 25" in advice.explanation


@pytest.mark.parametrize("batch", [48, 52])
def test_at_its_ceiling_nothing_is_reported(batch: int) -> None:
    assert recommend(facts_with(batch)) == ([], [])


def test_a_batch_above_the_target_is_to_be_smaller() -> None:
    [advice], _ = recommend(facts_with(64))
    assert (advice.direction, advice.severity) == ("down", "warning")
    assert advice.recommended < 64


@pytest.mark.parametrize(
    ("batch", "more", "reason", "words"),
    [
        (None, {}, Reason.NO_DATA, "sample"),
        (24, {signals.JOB_PEAK_MEMORY: 70.0 * GIB}, Reason.CONFLICTING, "probe the model that runs now"),
        (24, {signals.MEMORY_TOTAL: 8.0 * GIB}, Reason.SATURATED, "no size is safe"),
    ],
)
def test_what_keeps_it_from_an_answer_is_reported(
    batch: float | None, more: Mapping[Signal, float], reason: Reason, words: str
) -> None:
    advice, [abstention] = recommend(facts_with(batch, 1, more))
    assert advice == []
    assert abstention.reason is reason
    assert words in abstention.message
    assert abstention.kinds == (batch_size.KIND,)


def test_the_precision_that_agrees_with_the_job_is_taken() -> None:
    both = (curve("bfloat16"), curve("float32", 1.6))
    for factor, precision in ((1.0, "bfloat16"), (1.6, "float32")):
        peak = {signals.JOB_PEAK_MEMORY: factor * (memory(16) - GIB)}
        [advice], _ = recommend(facts_with(16, 1, peak, *both))
        assert f"({precision})" in advice.summary


def test_ranks_that_differ_are_not_one_size() -> None:
    reported = facts_with(24, 2)
    values = {**reported.values, signals.JOB_BATCH_SIZE.name: {"GPU-0": 24.0, "GPU-1": 32.0}}
    advice, [abstention] = recommend(dataclasses.replace(reported, values=values))
    assert advice == []
    assert abstention.reason is Reason.CONFLICTING


def test_a_job_without_a_profile_is_left_to_its_diagnosis() -> None:
    small = {
        signals.SM_ACTIVITY: 0.15,
        signals.DRAM_ACTIVITY: 0.1,
        signals.MEMORY_TOTAL: 80.0 * GIB,
        signals.JOB_PEAK_MEMORY: 33.0 * GIB,
        signals.JOB_BATCH_SIZE: 24.0,
    }
    reported = fleet(1, small, {0: "llm"}, utilization=0.6, name=MODEL)
    without = dataclasses.replace(reported, reported_jobs={"GPU-0": "llm"})
    [general], _ = recommend(without)
    assert general.unit == "affected GPUs"
    [exact], _ = recommend(dataclasses.replace(without, profiles=ProfileIndex((curve(),))))
    assert exact.unit == "samples", "one recommendation on a job's batch size, the measured one"


@given(batch=st.integers(1, 300), total=st.integers(1, 200), peak=st.one_of(st.none(), st.floats(1, 200)))
@example(batch=24, total=80, peak=None)
def test_what_is_recommended_stays_within_the_target(batch: int, total: int, peak: float | None) -> None:
    more = {signals.MEMORY_TOTAL: float(total * GIB)}
    if peak is not None:
        more[signals.JOB_PEAK_MEMORY] = peak * GIB
    advice, abstentions = recommend(facts_with(batch, 1, more))
    assert len(advice) + len(abstentions) <= 1
    for each in advice:
        assert memory(int(each.recommended)) <= 0.86 * total * GIB
        assert (each.recommended > batch) == (each.direction == "up")


def test_profiles_come_from_a_folder_and_from_metrics(tmp_path: Path) -> None:
    one, other = profile(), profile(precision="float32")
    write_profile(one, tmp_path / profile_file_name(one))
    (tmp_path / "bad.profile.json").write_text("{")
    series = {name: {} for name in (PROFILE_MEMORY, PROFILE_THROUGHPUT)}  # type: dict[str, dict[object, float]]
    for row in profile_rows((one, other)):
        if row.name in series:
            keys = ("gpu_type", "workload", "precision", "batch_size")
            series[row.name][labels(job="node", **dict(zip(keys, row.labels, strict=True)))] = row.value
    published = curves_from_metrics(series[PROFILE_MEMORY], series[PROFILE_THROUGHPUT])  # type: ignore[arg-type]
    found = load_profile_index(str(tmp_path), published)
    assert [each.precision for each in found.find(MODEL, "llm")] == ["bfloat16", "float32"], "the folder's come first"
    assert {each.points for each in found.curves} == {one.points()}
    assert found.curves[0].allocated is not None
    [error] = found.errors
    assert "bad.profile.json" in error
    reported = dataclasses.replace(facts_with(), profiles=found)
    assert [each.scope.kind for each in recommend(reported)[1]] == ["fleet"]
    [missing] = load_profile_index(str(tmp_path / "none")).errors
    assert "create it" in missing
