"""The share of a GPU's time that each cause loses, from the features that show it; nothing without them."""

from __future__ import annotations

from collections import defaultdict

import pytest
from gpu_advisor.evaluation.diagnosis.decision_table import DIAGNOSES
from gpu_advisor.evaluation.diagnosis.features import FEATURES_BY_NAME
from gpu_advisor.evaluation.money import Interval
from gpu_advisor.evaluation.policies.waste import SHARES
from hypothesis import given
from hypothesis import strategies as st

Known = dict[str, float]


def share(diagnosis: str, known: Known) -> Interval | None:
    assert known.keys() <= FEATURES_BY_NAME.keys()
    features: dict[str, float | None] = defaultdict(lambda: None, known)
    return SHARES[diagnosis](features)


@pytest.mark.parametrize(
    ("diagnosis", "known", "low", "high"),
    [
        # at 0.6 of its peers' clock for 0.5 of the time: 0.4 x 0.5; the peers win over the model's maximum
        ("throttled_thermal", {"clock_of_peers": 0.6, "clock": 0.9, "utilization": 0.5}, 0.0, 0.2),
        ("throttled_power", {"clock": 0.9, "utilization": 0.5}, 0.0, 0.05),
        ("throttled_thermal", {"clock_of_peers": 1.1, "utilization": 0.5}, 0.0, 0.0),
        ("throttled_thermal", {"clock_of_peers": 1.0, "clock": 0.6, "utilization": 0.5}, 0.0, 0.2),  # they are hot, too
        # half of each step waits, and 0.8 of the time is in steps; all of the time if that is unknown
        ("data_bound", {"data_wait": 0.5, "stepping": 0.8, "utilization": 0.3}, 0.4, 0.4),
        ("data_bound", {"data_wait": 0.5, "stepping": 1.3, "utilization": 0.3}, 0.5, 0.5),
        ("data_bound", {"data_wait": 0.5, "utilization": 0.3}, 0.5, 0.5),
        # without a report: of the 0.7 without a kernel, at most all
        ("data_bound", {"utilization": 0.3}, 0.0, 0.7),
        ("communication_bound", {"communication": 0.5, "stepping": 0.8, "sm_activity": 0.1}, 0.0, 0.4),
        ("communication_bound", {"sm_activity": 0.6, "utilization": 0.9}, 0.0, 0.4),
        ("busy_but_empty", {"sm_activity": 0.1, "utilization": 0.9}, 0.0, 0.9),
        ("busy_but_empty", {"utilization": 0.98}, 0.0, 1.0),  # seen by power and memory activity
        ("small_batch", {"sm_activity": 0.25, "utilization": 0.75}, 0.0, 0.75),
        ("small_batch", {"utilization": 0.75}, 0.25, None),  # and more: small kernels do not fill the GPU
        # the busiest hour needs 0.3, the memory 0.1, and the other way round
        ("wrong_instance_size", {"day_peak": 0.3, "memory_held": 0.1}, 0.0, 0.7),
        ("wrong_instance_size", {"day_peak": 0.1, "memory_held": 0.3}, 0.0, 0.7),
    ],
)
def test_shares_by_hand(diagnosis: str, known: Known, low: float, high: float | None) -> None:
    found = share(diagnosis, known)
    assert found is not None
    assert found.low == pytest.approx(low)
    assert found.high == (None if high is None else pytest.approx(high))


@pytest.mark.parametrize(
    ("diagnosis", "known"),
    [
        ("throttled_thermal", {"utilization": 0.5}), ("throttled_power", {"clock": 0.5}), ("data_bound", {}),
        ("communication_bound", {"stepping": 1.0}), ("communication_bound", {"utilization": 0.5}),
        ("busy_but_empty", {}), ("small_batch", {}),
        ("wrong_instance_size", {"day_peak": 0.3}), ("wrong_instance_size", {"memory_held": 0.3}),
    ],
)  # fmt: skip
def test_nothing_is_claimed_without_its_signal(diagnosis: str, known: Known) -> None:
    assert share(diagnosis, known) is None


@given(st.sampled_from(sorted(SHARES)), st.dictionaries(st.sampled_from(sorted(FEATURES_BY_NAME)), st.floats(-2, 3)))
def test_a_share_is_a_share(diagnosis: str, known: Known) -> None:
    found = share(diagnosis, known)
    assert found is None or 0.0 <= found.low <= (1.0 if found.high is None else found.high) <= 1.0


def test_each_is_a_diagnosis_with_advice() -> None:
    assert {name for name in SHARES if DIAGNOSES[name].kinds} == set(SHARES)
