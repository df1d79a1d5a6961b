"""The decision table and its logic, on hand-made figures and on situations drawn from the physics."""

from __future__ import annotations

import dataclasses
from statistics import median
from typing import Any

import numpy as np
import pytest
from gpu_advisor.evaluation.diagnosis.conditions import (
    Condition,
    ThresholdCondition,
    Truth,
    above,
    all_of,
    any_of,
    below,
    unless,
)
from gpu_advisor.evaluation.diagnosis.decision_table import (
    DECISION_TABLE,
    DIAGNOSES,
    HEALTHY,
    SECONDARY_ROWS,
    UNKNOWN,
    UNUSED,
    WAITING_FOR_STRAGGLER,
)
from gpu_advisor.evaluation.diagnosis.diagnose import diagnose, match_row
from gpu_advisor.evaluation.diagnosis.features import FEATURES_BY_NAME
from gpu_advisor.evaluation.diagnosis.link_speeds import nvlink_bytes_per_second, pcie_bytes_per_second
from gpu_advisor.evaluation.diagnosis.peers import Peers, build_peers
from gpu_advisor.evaluation.policies import idle_reclaim
from gpu_advisor.evaluation.policies.by_diagnosis import POLICIES_BY_KIND
from gpu_advisor.settings import Settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from benchmarks.diagnosis import Scores, answer, false_alarms, score_class
from benchmarks.situations.classes import CLASSES, draw
from benchmarks.situations.facts_adapter import ObservedSituation, window_means
from benchmarks.situations.observation import observe
from benchmarks.situations.situation import Situation

#: How long an example takes is the machine's business.
calm = hypothesis_settings(deadline=None)


# Logic

values = st.one_of(st.none(), st.floats(0, 1))
conditions = st.one_of(
    st.tuples(st.sampled_from("abc"), st.floats(0.5, 1), st.floats(0, 0.4)).map(lambda t: above(*t)),
    st.tuples(st.sampled_from("abc"), st.floats(0, 0.4), st.floats(0.5, 1)).map(lambda t: below(*t)),
)
features = st.fixed_dictionaries({"a": values, "b": values, "c": values})
STRENGTH = [Truth.NO, Truth.MISSING, Truth.BORDERLINE, Truth.YES]


@calm
@given(conditions, features)
def test_a_condition_is_true_or_false_only_outside_its_dead_band_and_where_there_is_a_value(
    condition: ThresholdCondition, known: dict[str, float | None]
) -> None:
    value, truth = known[condition.feature], condition.truth(known)
    assert (value is None) == (truth is Truth.MISSING)
    if value is not None:
        inside = (
            min(condition.holds_from, condition.fails_from) < value < max(condition.holds_from, condition.fails_from)
        )
        assert inside == (truth is Truth.BORDERLINE)


@calm
@given(st.lists(conditions, min_size=1, max_size=4), features, st.sampled_from("abc"))
def test_what_is_taken_away_decides_nothing(
    found: list[ThresholdCondition], known: dict[str, float | None], lost: str
) -> None:
    """Without a value, no conclusion turns round: what held may become unknown, and so may what failed."""
    for whole in (tuple(found), (any_of(*found),)):
        before, after = all_of(whole, known), all_of(whole, {**known, lost: None})
        assert not (before is Truth.NO and after is Truth.YES)
        assert not (before is Truth.YES and after is Truth.NO)


@calm
@given(st.lists(conditions, max_size=5), features)
def test_together_conditions_are_as_strong_as_the_weakest_and_alternatives_as_the_strongest(
    found: list[ThresholdCondition], known: dict[str, float | None]
) -> None:
    truths = [condition.truth(known) for condition in found]
    assert all_of(tuple(found), known) is min(truths, key=STRENGTH.index, default=Truth.YES)
    order = [Truth.NO, Truth.MISSING, Truth.BORDERLINE, Truth.YES]
    assert any_of(*found).truth(known) is max(truths, key=order.index, default=Truth.NO)


@calm
@given(st.dictionaries(st.sampled_from(sorted(FEATURES_BY_NAME)), st.floats(0, 1.2)))
def test_the_table_is_read_row_by_row(known: dict[str, float]) -> None:
    """The first row that holds; before it, or of all rows, those within a dead band."""
    given_ = _NoFeatures(known)
    row, borderline = match_row(given_)
    truths = [(each, all_of(each.conditions, given_)) for each in DECISION_TABLE]
    holding = [number for number, (_, truth) in enumerate(truths) if truth is Truth.YES]
    read = truths[: holding[0]] if holding else truths
    assert row == (truths[holding[0]][0] if holding else None)
    assert borderline == tuple(dict.fromkeys(each.diagnosis for each, truth in read if truth is Truth.BORDERLINE))


def test_a_dead_band_on_the_wrong_side_is_refused() -> None:
    with pytest.raises(ValueError, match="wrong side"):
        above("x", 0.1, 0.2)
    with pytest.raises(ValueError, match="wrong side"):
        below("x", 0.2, 0.1)
    assert above("x", 0.2, 0.2).truth({"x": 0.2}) is Truth.YES  # a band may be empty


# Table


def test_each_row_names_figures_and_diagnoses_that_there_are() -> None:
    for row in (*DECISION_TABLE, *SECONDARY_ROWS):
        assert row.diagnosis in DIAGNOSES
        for condition in row.conditions:
            assert all(part.feature in FEATURES_BY_NAME for part in condition.parts())
    wanted = {kind for diagnosis in DIAGNOSES.values() for kind in diagnosis.kinds}
    assert wanted == {*POLICIES_BY_KIND, idle_reclaim.KIND}


class _NoFeatures(dict[str, float | None]):
    def __missing__(self, name: str) -> None:
        return None


def test_of_nothing_nothing_is_concluded() -> None:
    assert match_row(_NoFeatures(may_train=1.0)) == (None, ())


@pytest.mark.parametrize(("value", "truth"), [(0.05, "no"), (0.12, "borderline"), (0.2, "yes"), (None, "yes")])
def test_missing_data_excludes_nothing(value: float | None, truth: str) -> None:
    assert unless(below("communication", 0.10, 0.15)).truth({"communication": value}) is Truth(truth)


@calm
@given(
    st.dictionaries(st.sampled_from(sorted(FEATURES_BY_NAME)), st.floats(0, 1.2)),
    st.sampled_from(sorted(FEATURES_BY_NAME)),
)
def test_a_row_that_holds_looks_at_nothing_that_is_missing(known: dict[str, float], lost: str) -> None:
    given_ = _NoFeatures(known)
    row, _ = match_row(given_)
    if row is not None:
        for condition in row.conditions:
            parts: tuple[Condition, ...] = condition.parts()
            assert any(part.truth(given_) is Truth.YES for part in parts)
    without = _NoFeatures({name: value for name, value in known.items() if name != lost})
    later, _ = match_row(without)
    if row is None and later is not None:  # what a value forbade, its absence must not allow
        pytest.fail(f"without {lost}: {later}")


# Situations


def diagnose_situation(situation: Situation, rng: Any) -> list[str]:
    seen = ObservedSituation(situation, observe(rng, situation.scene, situation.exporters, 120), Settings())
    facts = seen.facts(120)
    return [outcome.name for outcome in diagnose(facts, build_peers(facts, seen.gpus), [seen.pool])]


def test_causes_are_recognized() -> None:
    """A small run of `python -m benchmarks.diagnosis`, with slack for so few."""
    total = Scores(*(sum(parts, start=type(parts[0])()) for parts in zip(
        *((scores.identifiable, scores.unidentifiable) for scores in (score_class(label, 11, 20) for label in CLASSES)),
        strict=True,
    )))  # fmt: skip
    assert total.macro_f1 >= 0.93
    assert all(total.recall(label) >= 0.7 for label in CLASSES), {label: total.recall(label) for label in CLASSES}
    assert total.false_cause_ratio <= 0.25


@pytest.mark.parametrize("variant", ["power cap", "hot", "full memory", "science", "serving at night", "unused"])
def test_what_looks_like_trouble_and_is_none(variant: str) -> None:
    found = [(s, rng) for s, rng in draw(HEALTHY, 21, 200) if s.variant == variant][:8]
    assert found
    ill = [
        name
        for each in found
        for name in diagnose_situation(*each)
        if name not in (HEALTHY, UNUSED, UNKNOWN, WAITING_FOR_STRAGGLER)
    ]
    assert not ill


def test_a_healthy_fleet_raises_no_alarm() -> None:
    assert not false_alarms(3, 30, hours=0.5).kinds


def test_who_waits_for_a_throttled_gpu_is_not_ill() -> None:
    situations = ((s, rng) for s, rng in draw("throttled_thermal", 5, 200) if s.variant == "one")
    situation, rng = next(
        (s, rng)
        for s, rng in situations
        if s.scene.synchronous and s.exporters.throttle and s.exporters.owners and len(s.scene.ranks) == 8
    )
    names = diagnose_situation(situation, rng)
    assert names.count("throttled_thermal") == 1
    assert set(names) <= {"throttled_thermal", WAITING_FOR_STRAGGLER, HEALTHY, UNKNOWN}


def test_an_answer_is_right_only_if_no_gpu_is_given_another_cause() -> None:
    situation, rng = next(draw("data_bound", 1, 1))
    seen = ObservedSituation(situation, observe(rng, situation.scene, situation.exporters, 120), Settings())
    facts = seen.facts(120)
    (first, *_) = diagnose(facts, build_peers(facts, seen.gpus), [seen.pool])
    right, wrong = (dataclasses.replace(first, name=name) for name in ("data_bound", "small_batch"))
    assert answer(situation, [right, right]) == "data_bound"
    assert answer(situation, [right, wrong]) == "small_batch"


def test_window_means_are_of_what_is_there() -> None:
    rows = np.array([[1.0], [np.nan], [3.0], [5.0]])
    assert window_means(rows, 2)[:, 0].tolist() == [1.0, 1.0, 3.0, 4.0]
    assert np.isnan(window_means(np.array([[np.nan], [1.0]]), 1)[0, 0])


# Peers, hardware, documentation


@calm
@given(st.lists(st.floats(0, 1), min_size=2, max_size=9), st.data())
def test_the_median_of_others_is_that_without_ones_own(found: list[float], data: st.DataObject) -> None:
    own = data.draw(st.sampled_from(found))
    others = list(found)
    others.remove(own)
    known = Peers({("g", "x"): tuple(sorted(found))})
    assert known.median_of_others("g", "x", own) == pytest.approx(median(others))
    assert known.median_of_others("g", "x", None) == pytest.approx(median(found))
    assert known.median_of_others("g", "x", own, min_others=len(found)) is None


@pytest.mark.parametrize(
    ("name", "speed"),
    [
        ("NVIDIA H100 80GB HBM3", 450e9),
        ("NVIDIA H200", 450e9),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA A100-SXM4-80GB", 300e9),
        ("NVIDIA A100-PCIE-40GB", None),
        ("Tesla V100-SXM2-32GB", 150e9),
        ("NVIDIA B200", 900e9),
        ("NVIDIA L40S", None),
    ],
)
def test_nvlink_by_model(name: str, speed: float | None) -> None:
    assert nvlink_bytes_per_second(name) == speed


def test_pcie_speed_is_known_where_the_link_is() -> None:
    assert pcie_bytes_per_second(4, 16) == pytest.approx(31.5e9, rel=0.01)
    assert pcie_bytes_per_second(None, 16) is None
    assert pcie_bytes_per_second(9, 16) is None
