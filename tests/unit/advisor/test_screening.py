"""Screening by columns changes no diagnosis: rows that it leaves out fail, one by one."""

from __future__ import annotations

import dataclasses
import math

from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.diagnosis.conditions import Truth, all_of
from gpu_advisor.evaluation.diagnosis.decision_table import DECISION_TABLE, HEALTHY, SECONDARY_ROWS
from gpu_advisor.evaluation.diagnosis.diagnose import match_row
from gpu_advisor.evaluation.diagnosis.features import FEATURES, GpuSignals, LazyFeatures
from gpu_advisor.evaluation.diagnosis.peers import build_peers
from gpu_advisor.evaluation.diagnosis.screening import Columns, possible_rows
from gpu_advisor.evaluation.facts import Facts
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.unit.advisor.builders import GpuSpec, facts

USED = tuple(dict.fromkeys(signal for feature in FEATURES for signal in feature.signals))
TABLE = (*DECISION_TABLE, *SECONDARY_ROWS)
#: The edges of all conditions, and values around them; ratios of these meet the edges as well.
EDGES = sorted({edge for row in TABLE for condition in row.conditions for part in condition.parts()
                for edge in (part.holds_from, part.fails_from)})  # fmt: skip
NUMBERS = st.one_of(st.sampled_from([*EDGES, 0.0, 1.0, -0.0]), st.floats(0, 2), st.floats(-1e14, 1e14))
GPUS = st.lists(st.dictionaries(st.sampled_from(USED), NUMBERS), min_size=1, max_size=4)
#: A power limit that all have, as GPUs of one model do; None: each its own.
LIMITS = st.none() | NUMBERS


def fleet(gpus: list[dict[signals.Signal, float]]) -> Facts:
    cards = [GpuSpec(f"GPU-{i}", node=f"n{i % 2}", memory=None) for i in range(len(gpus))]
    known = facts(cards)
    values: dict[str, dict[str, float]] = {}
    for card, measured in zip(cards, gpus, strict=True):
        for signal, value in measured.items():
            values.setdefault(signal.name, {})[card.uuid if signal.scope == "gpu" else card.node] = value
    return dataclasses.replace(known, values=values, jobs=dict.fromkeys(("GPU-0", "GPU-1"), "job"))


def with_limit(gpus: list[dict[signals.Signal, float]], limit: float | None) -> list[dict[signals.Signal, float]]:
    return gpus if limit is None else [{**measured, signals.POWER_LIMIT: limit} for measured in gpus]


@hypothesis_settings(deadline=None, max_examples=100)
@given(GPUS, LIMITS)
def test_the_diagnosis_is_that_of_the_whole_table(gpus: list[dict[signals.Signal, float]], limit: float | None) -> None:
    known = fleet(with_limit(gpus, limit))
    peers = build_peers(known, known.gpus)
    columns = Columns(known, known.gpus, peers)
    for gpu, screened in zip(known.gpus, possible_rows(columns, DECISION_TABLE), strict=True):
        features = LazyFeatures(GpuSignals(known, gpu, peers, "training"))
        expected = match_row(features)
        assert match_row(features, screened.rows) == expected
        assert not screened.is_decided or (screened.rows[0], ()) == expected
    for row in TABLE:
        for gpu, screened in zip(known.gpus, possible_rows(columns, (row,)), strict=True):
            features = LazyFeatures(GpuSignals(known, gpu, peers, "training"))
            assert (row in screened.rows) or all_of(row.conditions, features) in (Truth.NO, Truth.MISSING)


@hypothesis_settings(deadline=None, max_examples=100)
@given(GPUS, LIMITS)
def test_a_column_has_the_values_of_its_feature(gpus: list[dict[signals.Signal, float]], limit: float | None) -> None:
    known = fleet(with_limit(gpus, limit))
    peers = build_peers(known, known.gpus)
    columns = Columns(known, known.gpus, peers)
    for feature in FEATURES:
        values, missing = columns.feature(feature.name)
        for gpu, value, is_missing in zip(known.gpus, values.tolist(), missing.tolist(), strict=True):
            expected = feature.compute(GpuSignals(known, gpu, peers, "training"))
            assert expected is None if is_missing else math.isnan(value) or value == expected


def test_most_rows_are_left_out_for_a_busy_gpu() -> None:
    busy = {signals.IDLE_UTILIZATION: 0.95, signals.IDLE_MEMORY_USED: 0.5, signals.SM_ACTIVITY: 0.8,
            signals.TENSOR_ACTIVITY: 0.4, signals.DRAM_ACTIVITY: 0.4, signals.THROTTLE_HW_THERMAL: 0.0}  # fmt: skip
    known = dataclasses.replace(fleet([busy]), jobs={})
    [(rows, _)] = possible_rows(Columns(known, known.gpus, build_peers(known, known.gpus)), DECISION_TABLE)
    assert rows[-1].diagnosis == HEALTHY
    assert len(rows) <= 3


def test_a_healthy_gpu_is_decided_by_its_columns() -> None:
    busy = {signals.IDLE_UTILIZATION: 0.95, signals.IDLE_MEMORY_USED: 0.5, signals.SM_ACTIVITY: 0.8,
            signals.TENSOR_ACTIVITY: 0.4, signals.DRAM_ACTIVITY: 0.4, signals.THROTTLE_HW_THERMAL: 0.0,
            signals.POWER: 600.0, signals.POWER_LIMIT: 700.0}  # fmt: skip
    known = dataclasses.replace(fleet([busy] * 4), jobs={})
    for rows, is_decided in possible_rows(Columns(known, known.gpus, build_peers(known, known.gpus)), DECISION_TABLE):
        assert is_decided == (len(rows) == 1)
        assert rows[-1].diagnosis == HEALTHY
