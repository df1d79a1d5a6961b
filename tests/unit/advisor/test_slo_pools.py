"""Pools with an SLO, from the source to the recommendation and the API's document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from gpu_advisor.documents import serialize
from gpu_advisor.evaluation.engine import Evaluation, decide
from gpu_advisor.evaluation.history import DemandSignal, PoolSample, step_bounds
from gpu_advisor.evaluation.policies import scale_pool
from gpu_advisor.evaluation.scaling.demand_history import DemandPoint, reported_points
from gpu_advisor.evaluation.scaling.headroom import READ_SECONDS, TunedHeadroom
from gpu_advisor.evaluation.scaling.sizing import tuned_headroom
from gpu_advisor.observation.evaluate import HistoryCaches
from gpu_advisor.observation.evaluate import evaluate as evaluate_source
from gpu_advisor.observation.slo_history import SloHistoryCache
from gpu_advisor.observation.utilization_history import read_pool_histories
from gpu_advisor.promql.expressions import Expression, Labels, Selector, TimeSeries
from gpu_advisor.settings import EvaluationSettings, Settings
from gpu_advisor.sources import algebra
from gpu_advisor.sources.matchers import compile_matchers

from tests.unit.advisor.builders import AT, ExporterTarget, FakeSource, GpuSpec, facts, labels

STEP = 60
DAY = 1440


def settings(**pool: object) -> Settings:
    chosen: dict[str, object] = {"name": "p", "kind": "serving", "gpu": {"min": 1, "max": 64}, **pool}
    return Settings.model_validate({"pools": [chosen]})


def evaluate(chosen: Settings, minutes: int = DAY, gpus: int = 16) -> Evaluation:
    """GPUs whose pool was at a third, with a burst of four minutes every half hour."""
    last = step_bounds(AT, chosen.evaluation)[1]
    shares = [(last - STEP * ago, 0.6 if ago % 30 < 4 else 0.3) for ago in range(minutes - 1, -1, -1)]
    cards = [GpuSpec(f"GPU-{i}", 0.3, trail=tuple(shares[-240:])) for i in range(gpus)]
    samples = tuple(PoolSample(at, gpus, share * gpus) for at, share in shares)
    return decide(replace(facts(cards, chosen), slo_histories={"p": samples}), chosen)


def test_a_recommendation_states_what_the_slo_costs() -> None:
    found = evaluate(settings(slo={"unserved": "0.2%"}, gpus_per_replica=2), gpus=40)
    (advice,) = (each for each in found.recommendations if each.kind == "scale_down")
    assert "tuned to slo.unserved 0.2 %" in advice.explanation
    assert "Other objectives: 0.0" in advice.explanation
    (state,) = found.pools
    assert state.headroom is not None
    document = serialize.pool(state, 8, 1)["slo"]
    assert document is not None
    assert document["unserved_ratio"] == 0.002
    assert document["headroom_deviations"] == state.headroom.deviations
    assert document["history_seconds"] > 20 * 3600
    assert document["missed_windows_ratio"] is None
    fields = {"unserved_ratio", "missed_windows_ratio", "headroom_deviations", "min_replicas", "gpu_hours_per_day"}
    assert fields == set(document["frontier"][0])


def test_without_history_the_headroom_is_the_default_and_says_what_is_missing() -> None:
    (state,) = evaluate(settings(slo={"unserved": "0.2%"}), minutes=30).pools
    assert isinstance(state.headroom, TunedHeadroom)
    assert (state.headroom.deviations, state.headroom.missing_seconds) == (3.5, 1800)
    document = serialize.pool(state, 8, None)["slo"]
    assert document is not None
    assert (document["reached_ratio"], document["gpu_hours_per_day"], document["frontier"]) == (None, None, [])


def test_a_pool_without_an_slo_has_no_such_document_and_may_set_its_own_headroom() -> None:
    default, own = evaluate(settings()), evaluate(settings(headroom_deviations=0))
    assert serialize.pool(default.pools[0], 16, None)["slo"] is None
    assert dict(own.desired_replicas)["p"] < dict(default.desired_replicas)["p"]


def test_an_evaluation_tunes_each_pool_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned: list[int] = []

    def count(history: Sequence[DemandPoint], *given: Any) -> TunedHeadroom:
        tuned.append(len(history))
        return tuned_headroom(history, *given)

    monkeypatch.setattr(scale_pool, "tuned_headroom", count)
    scale_pool._tune.cache_clear()
    for _ in range(2):  # the same steps, as other objects
        evaluate(settings(slo={"unserved": "0.2%"}))
    assert len(tuned) == 1
    assert DAY - 60 < tuned[0] <= DAY


def _change_step(samples: list[PoolSample], signal: list[tuple[float, float]]) -> None:
    samples[DAY // 2] = replace(samples[DAY // 2], busy=11.5)


def _lose_step(samples: list[PoolSample], signal: list[tuple[float, float]]) -> None:
    del samples[DAY // 2]


def _change_signal(samples: list[PoolSample], signal: list[tuple[float, float]]) -> None:
    signal[DAY // 2] = (signal[DAY // 2][0], 900.0)


def _change_nothing(samples: list[PoolSample], signal: list[tuple[float, float]]) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "pool", "is_new"),
    [
        (_change_nothing, {}, False),
        (_change_step, {}, True),
        (_lose_step, {}, True),
        (_change_signal, {}, True),
        (_change_nothing, {"gpus_per_replica": 2}, True),
        (_change_nothing, {"slo": {"unserved": "0.5%"}}, True),
        (_change_nothing, {"start_delay_seconds": 300}, True),
        (_change_nothing, {"gpu": {"min": 1, "max": 17}}, True),
        (_change_nothing, {"demand": {"query": "queue", "per_replica": 11}}, True),
        (_change_nothing, {"demand": {"query": "queue", "per_replica": 10, "counts": "waiting"}}, True),
    ],
)
def test_a_tuning_is_reused_for_the_same_past_and_settings_only(
    change: Callable[[list[PoolSample], list[tuple[float, float]]], None], pool: dict[str, object], is_new: bool
) -> None:
    """Of the same length, with the same first and last step: what differs in between is seen."""

    def tuned(steps: Sequence[PoolSample], signal: TimeSeries, chosen: Settings) -> TunedHeadroom:
        known = facts([GpuSpec(f"GPU-{i}", 0.3) for i in range(16)], chosen)
        demand = {"p": DemandSignal("queue", signal)}
        found = decide(replace(known, slo_histories={"p": tuple(steps)}, demand_signals=demand), chosen)
        headroom = found.pools[0].headroom
        assert headroom is not None
        return headroom

    base = {"slo": {"unserved": "0.2%"}, "demand": {"query": "queue", "per_replica": 10}}
    last = step_bounds(AT, settings(**base).evaluation)[1]
    times = [last - STEP * ago for ago in range(DAY - 1, -1, -1)]
    samples = [PoolSample(at, 16, 3.0 + index % 7) for index, at in enumerate(times)]
    signal = [(at, 40.0 + index % 11 * (5 + index % 3)) for index, at in enumerate(times)]
    scale_pool._tune.cache_clear()
    tuned(samples, tuple(signal), settings(**base))
    before = scale_pool._tune.cache_info().misses
    changed = [replace(each) for each in samples]
    change(changed, signal)
    found = tuned(changed, tuple(signal), settings(**{**base, **pool}))
    assert scale_pool._tune.cache_info().misses == before + is_new
    scale_pool._tune.cache_clear()
    assert tuned(changed, tuple(signal), settings(**{**base, **pool})) == found


@pytest.mark.parametrize("step", [300, 900])
@pytest.mark.parametrize("steps", [3, 14, READ_SECONDS // 900])
@pytest.mark.parametrize("late", [0, 1500, 3540])
def test_the_day_that_is_looked_up_is_what_the_whole_past_shows(step: int, steps: int, late: int) -> None:
    """At any time of the hour, for new pools, and with missing steps."""
    windows = dict.fromkeys(
        ("step_seconds", "scale_up_stabilization_seconds", "scale_down_stabilization_seconds"), step
    )
    chosen = replace_evaluation(settings(slo={"unserved": "0.2%"}), windows)
    known = replace(facts([GpuSpec("GPU-0", 0.3)], chosen), at=AT + late)
    last = step_bounds(known.at, chosen.evaluation)[1]
    samples = [PoolSample(last - step * ago, 16, 2.0 + ago * ago % 9) for ago in reversed(range(steps)) if ago % 7 != 3]
    known = replace(known, slo_histories={"p": tuple(samples)})
    (pool,) = decide(known, chosen).pools
    points = reported_points([(each.at, each.gpus, each.busy) for each in samples], 1)
    limits, phase = scale_pool.scaling_limits(chosen, pool.pool), scale_pool.tuning_phase(pool.pool)
    assert pool.headroom == tuned_headroom(points, limits, chosen.evaluation, last, 0.002, phase)


def test_stricter_objectives_have_more_replicas() -> None:
    found = [evaluate(settings(slo={"unserved": text}), gpus=30).pools[0].headroom for text in ("0.05%", "1%", "10%")]
    means = [each.chosen.replicas for each in found if each and each.chosen]
    assert len(means) == 3
    assert means == sorted(means, reverse=True)
    assert means[0] > means[-1]


# Reading the day once

MEMBERS = {"a": ("GPU-1", "GPU-2"), "b": ("GPU-3",)}
EVERYWHERE = ("GPU-1", "GPU-2", "GPU-3", "GPU-4")
UTILIZATION = Selector("gpu_utilization_ratio")


class RecordedSource(FakeSource):
    """GPUs whose utilization is a function of time; counts the steps that were queried."""

    def __init__(self) -> None:
        super().__init__(())
        self.steps = 0

    def range(self, expression: Expression, start: float, end: float, step: float) -> Mapping[Labels, TimeSeries]:
        found: dict[Labels, list[tuple[float, float]]] = {}
        for index in range(int((end - start) // step) + 1):
            at = start + index * step
            self.steps += 1

            def known(part: Expression, now: float = at) -> dict[Labels, float] | None:
                if not isinstance(part, Selector):
                    return None
                matches = compile_matchers(part.matchers)
                rows = {labels(uuid=uuid): (now // step + number) % 7 / 7 for number, uuid in enumerate(EVERYWHERE)}
                return {key: value for key, value in rows.items() if matches(dict(key))}

            for key, value in algebra.evaluate_expression(expression, known).items():
                found.setdefault(key, []).append((at, value))
        return {key: tuple(series) for key, series in found.items()}


@pytest.mark.parametrize("history_seconds", [4 * 3600, 36 * 3600])
def test_each_completed_step_is_read_once_and_the_result_is_that_of_reading_it_all(history_seconds: int) -> None:
    evaluation = EvaluationSettings(
        history_seconds=history_seconds, step_seconds=300, scale_up_stabilization_seconds=300
    )
    source, cache = RecordedSource(), SloHistoryCache()
    members = dict(MEMBERS)

    def read(cached: SloHistoryCache, at: float) -> tuple[dict[str, tuple[PoolSample, ...]], int]:
        recent = read_pool_histories(source, members, EVERYWHERE, UTILIZATION, at, evaluation)
        before = source.steps
        found = cached.read(source, members, recent, EVERYWHERE, UTILIZATION, at, evaluation)
        return dict(found), source.steps - before

    whole, steps = read(cache, AT)
    assert steps == max(0, (READ_SECONDS - history_seconds) // 300)
    assert all(len(samples) == max(READ_SECONDS, history_seconds) // 300 for samples in whole.values())
    for minutes in (1, 7, 60, 200):
        found, steps = read(cache, AT + 60 * minutes)
        assert steps == 0
        assert found == read(SloHistoryCache(), AT + 60 * minutes)[0]
    members["b"] = ("GPU-3", "GPU-4")
    changed, _ = read(cache, AT + 60 * 201)
    assert changed == read(SloHistoryCache(), AT + 60 * 201)[0]
    late = AT + 48 * 3600  # nothing was read in between
    assert read(cache, late)[0] == read(SloHistoryCache(), late)[0]


def test_an_evaluation_reads_the_day_of_pools_with_an_slo_once() -> None:
    step, steps = 900, 96
    trail = tuple((AT // step * step - step * ago, 0.5) for ago in range(steps - 1, -1, -1))
    source = FakeSource([ExporterTarget("n1:9816", [GpuSpec(f"GPU-{i}", 0.5, trail=trail) for i in range(2)])])
    windows = {
        "step_seconds": step,
        "scale_up_stabilization_seconds": step,
        "scale_down_stabilization_seconds": step,
    }
    plain, tuned = (replace_evaluation(each, windows) for each in (settings(), settings(slo={"unserved": "0.2%"})))
    caches = HistoryCaches(ranges=None)
    first = evaluate_source(source, tuned, AT, caches)
    again = evaluate_source(source, tuned, AT, caches)
    without = evaluate_source(source, plain, AT)
    assert first.queries == again.queries + 1 == without.queries + 1
    assert len(first.facts.slo_histories["p"]) == READ_SECONDS // step
    assert first.facts.slo_histories == again.facts.slo_histories
    assert without.facts.slo_histories == {}
    headroom = first.pools[0].headroom
    assert headroom is not None
    assert headroom.missing_seconds == 0


def replace_evaluation(chosen: Settings, change: Mapping[str, object]) -> Settings:
    return chosen.model_copy(update={"evaluation": chosen.evaluation.model_copy(update=change)})
