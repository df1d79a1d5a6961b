"""A state is advised on once two windows in a row show it; an event belongs to one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from gpu_advisor.evaluation.serving.decision_table import CAUSES
from gpu_advisor.evaluation.serving.diagnosis import diagnose_group, diagnose_window
from gpu_advisor.evaluation.serving.facts import ServingReplica
from gpu_advisor.evaluation.serving.groups import ServingGroup, make_group
from gpu_advisor.observation.serving import signal_expressions, with_window_before
from gpu_advisor.sources.embedded.source import EmbeddedSource
from gpu_advisor.sources.exporters.serving.mapping import server_mappings
from gpu_advisor.sources.query_plan import plan_queries

from benchmarks.serving.draw import CLASSES
from benchmarks.serving.situation import WARM_UP_SECONDS, WINDOW_SECONDS
from benchmarks.serving.windows import watch
from tests.serving_pages import START, history_of, simulated_lines
from tests.unit.serving.test_advice import AT, BATCH_LIMIT, CALM, FULL_CACHE, OBJECTIVES

LATE = {**CALM, "samples": 5.0, "ttft_p50": 1.5, "ttft_p90": 2.0, "ttft_p95": 2.2}
NONE: Mapping[str, float] = {}


def group_of(*replicas: tuple[Mapping[str, float], Mapping[str, float]]) -> ServingGroup:
    """Replicas with their values in the last window and in the one before."""
    found = [
        ServingReplica("vllm", "j", f"h{number}:8000", "m", values=now, before=before)
        for number, (now, before) in enumerate(replicas)
    ]
    return make_group(found, (), AT, 300.0)


@pytest.mark.parametrize(
    ("now", "before", "lasting", "pending"),
    [
        (BATCH_LIMIT, BATCH_LIMIT, {"batch_limit_bound"}, set()),
        (BATCH_LIMIT, CALM, set(), {"batch_limit_bound"}),
        (BATCH_LIMIT, NONE, set(), {"batch_limit_bound"}),
        (BATCH_LIMIT, FULL_CACHE, set(), {"batch_limit_bound"}),
        (CALM, BATCH_LIMIT, set(), set()),
        (FULL_CACHE, FULL_CACHE, {"kv_cache_bound"}, set()),
    ],
)
def test_a_state_needs_both_windows(
    now: Mapping[str, float], before: Mapping[str, float], lasting: set[str], pending: set[str]
) -> None:
    found = diagnose_group(group_of((now, before)), OBJECTIVES)
    assert {each.name for each in found.causes} == lasting
    assert {each.name for each in found.pending} == pending


def test_a_new_replica_does_not_hide_what_the_others_show() -> None:
    found = diagnose_group(group_of((FULL_CACHE, FULL_CACHE), (FULL_CACHE, NONE)), OBJECTIVES)
    assert "kv_cache_bound" in {each.name for each in found.causes}


def test_an_event_belongs_to_one_window() -> None:
    """A replica begins to serve once."""
    group = group_of(({**CALM, "ttft_p50": 1.5, "ttft_p90": 2.0, "ttft_p95": 2.2}, CALM), (LATE, NONE))
    assert "cold_start" in {each.name for each in diagnose_group(group, OBJECTIVES).causes}
    assert [name for name, cause in CAUSES.items() if not cause.lasts] == ["cold_start"]


def test_the_window_before_is_of_the_same_replica() -> None:
    first, second = (ServingReplica("vllm", "j", f"h{number}:8000", "m", values=CALM) for number in (1, 2))
    stopped = ServingReplica("vllm", "j", "h0:8000", "m", values=BATCH_LIMIT)
    former = ServingReplica("vllm", "j", "h2:8000", "m", values=FULL_CACHE)
    found = with_window_before([first, second], [stopped, former])
    assert [each.values for each in found] == [CALM, CALM]
    assert [each.before for each in found] == [NONE, FULL_CACHE]


def test_what_two_windows_show_is_a_part_of_what_the_last_one_shows() -> None:
    situations = (CALM, BATCH_LIMIT, FULL_CACHE)
    for now in situations:
        for before in situations:
            group = group_of((now, before))
            last, both = diagnose_window(group, OBJECTIVES), diagnose_group(group, OBJECTIVES)
            assert set(both.causes) | set(both.pending) == set(last.causes)


@pytest.mark.parametrize("late", [0.0, 0.0005, 1 / 3, 7.9995, 14.9996])
def test_two_steps_of_a_range_are_two_instants(tmp_path: Path, late: float) -> None:
    """At any fraction of a second."""
    situation = CLASSES["kv_cache_bound"](11)
    at = START + WARM_UP_SECONDS + 2 * WINDOW_SECONDS - 15 + late
    (vllm,) = (each for each in server_mappings() if each.name == "vllm")
    plan = plan_queries(signal_expressions(vllm, int(WINDOW_SECONDS)), 12)
    with closing(history_of(simulated_lines(situation, watch(situation, 2)), tmp_path)) as history:
        source = EmbeddedSource(history)
        now, before = plan.read_twice(source, at, WINDOW_SECONDS)
        for found, time in ((now, at), (before, at - WINDOW_SECONDS)):
            expected = plan.read(source, time)
            assert len([name for name, each in found.items() if each]) >= 20
            for name, vector in expected.items():
                finite = {labels: value for labels, value in vector.items() if abs(value) < float("inf")}
                assert found[name] == pytest.approx(finite), name
