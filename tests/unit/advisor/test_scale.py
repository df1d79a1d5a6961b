"""From facts to recommended sizes and abstentions."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.history import DemandSignal
from gpu_advisor.evaluation.recommendation import Reason, Recommendation, Scope
from gpu_advisor.settings import EvaluationSettings, Settings
from gpu_advisor.settings.pools import PoolSettings
from pydantic import ValidationError

from tests.unit.advisor.builders import AT, GpuSpec, concluded, facts, lost

STEP = 60


def settings(**pool: Any) -> Settings:
    chosen: dict[str, Any] = {"name": "p", "kind": "serving", "gpu": {"min": 1, "max": 16}, **pool}
    return Settings.model_validate({"pools": [chosen]})


def scale_advice(
    cards: list[GpuSpec], chosen: Settings
) -> tuple[list[Recommendation], dict[str, Reason], dict[str, int]]:
    found = concluded(cards, chosen)
    advice = [each for each in found.recommendations if each.kind.startswith("scale")]
    return advice, {w.subject: w.reason for w in found.abstentions}, dict(found.desired_replicas)


def serving_gpus(count: int, value: float, **change: Any) -> list[GpuSpec]:
    """GPUs that were that busy for an hour."""
    points = tuple((AT - STEP * i, value) for i in reversed(range(60)))
    return [GpuSpec(f"GPU-{i}", value, trail=points, **change) for i in range(count)]


def test_growth_and_shrinking_with_the_numbers_that_they_rest_on() -> None:
    (up,), words, desired = scale_advice(serving_gpus(4, 0.95), settings())
    assert (up.kind, up.current, up.recommended, up.diagnosis) == ("scale_up", 4, 5, "overloaded")
    assert (words, desired) == ({}, {"p": 5})
    assert up.projection.utilization_ratio == pytest.approx(4 * 0.95 / 5)
    work = {each.signal: each for each in up.evidence}["pool_work"]
    assert work.value == pytest.approx(3.8)
    assert "3.8" in up.explanation
    (down,), _, desired = scale_advice(serving_gpus(12, 0.2), settings())
    assert (down.kind, down.recommended, down.diagnosis, desired) == ("scale_down", 3, "oversized", {"p": 3})
    assert [each.action for each in down.rejected] == ["2 replicas"]


def test_gangs_scale_by_whole_replicas() -> None:
    (advice,), words, desired = scale_advice(serving_gpus(8, 0.95), settings(gpus_per_replica=4))
    assert (advice.kind, advice.current, advice.recommended) == ("scale_up", 2, 3)
    assert (words, desired) == ({}, {"p": 3})
    (down,), _, desired = scale_advice(serving_gpus(8, 0.1), settings(gpus_per_replica=4))
    assert (down.kind, down.recommended, desired) == ("scale_down", 1, {"p": 1})
    assert scale_advice(serving_gpus(2, 0.95), settings(gpus_per_replica=4)) == ([], {"scale": Reason.CONFLICTING}, {})


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (GpuSpec("GPU-x", None, up=None), Reason.STALE),
        (GpuSpec("GPU-x", None, up=False), Reason.NO_DATA),
        (GpuSpec("GPU-x", None), Reason.NO_DATA),
        (GpuSpec("GPU-x", 0.0), Reason.INSUFFICIENT_HISTORY),  # it has a value, but no trail: it may have been busy
        (GpuSpec("GPU-x", 0.0, memory=0.0), Reason.CONFLICTING),  # zeros all over: an exporter without its driver
    ],
)
def test_a_pool_with_one_gpu_not_reporting_does_not_shrink(odd: GpuSpec, reason: Reason) -> None:
    assert scale_advice([*serving_gpus(11, 0.1), odd], settings()) == ([], {"scale": reason}, {})


def test_a_pool_outside_its_limits_gets_advice() -> None:
    (up,), _, _ = scale_advice(serving_gpus(2, 0.3), settings(gpu={"min": 4, "max": 8}))
    assert (up.recommended, up.diagnosis) == (4, "outside_limits")
    (down,), _, _ = scale_advice(serving_gpus(12, 0.4), settings(gpu={"min": 4, "max": 8}))
    assert (down.recommended, down.diagnosis) == (6, "outside_limits")
    (gang,), _, _ = scale_advice(
        serving_gpus(2, 0.9), settings(kind="training", tensor_parallel=2, gpu={"min": 4, "max": 8})
    )
    assert (gang.recommended, gang.unit) == (2, "gangs")


def test_a_limit_below_the_demand_is_a_conflict_and_shrinks_nothing() -> None:
    assert scale_advice(serving_gpus(12, 0.9), settings(gpu={"max": 8})) == ([], {"scale": Reason.CONFLICTING}, {})


@pytest.mark.parametrize("utilization", [0.3, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("size", [7, 9, 16, 40])
@pytest.mark.parametrize("limits", [{}, {"max": 8}, {"max": 12}])
def test_no_advice_makes_a_pool_too_small(size: int, utilization: float, limits: dict[str, int]) -> None:
    for kind in ("serving", "training"):
        chosen = settings(kind=kind, gpu=limits)
        advice, _, _ = scale_advice(serving_gpus(size, utilization), chosen)
        for each in advice:
            if kind == "serving":
                assert size * utilization <= 0.85 * each.recommended
            assert kind == "serving" or limits


def test_saturation_is_reported_and_asks_for_a_signal() -> None:
    (advice,), words, _ = scale_advice(serving_gpus(4, 1.0), settings())
    assert (advice.recommended, advice.confidence, advice.projection.utilization_ratio) == (5, "medium", None)
    assert words == {"demand": Reason.SATURATED}


@pytest.mark.parametrize("value", [1.0, 0.99])
@pytest.mark.parametrize("most", [5, 6, 7, 16])
def test_a_step_to_the_limit_names_it(value: float, most: int) -> None:
    (advice,), _, _ = scale_advice(serving_gpus(4, value), settings(gpu={"min": 1, "max": most}))
    assert (f"the limit is {most}" in advice.summary) == (advice.recommended == most)


SIGNAL = {"query": "sum(waiting)", "per_replica": 10}


def with_signal(cards: list[GpuSpec], reading: DemandSignal, **pool: Any) -> tuple[dict[str, float], dict[str, Reason]]:
    chosen = settings(demand={**SIGNAL, **dict(pool.pop("demand", {}))}, **pool)
    found = decide(dataclasses.replace(facts(cards, chosen), demand_signals={"p": reading}), chosen)
    advice = {each.kind: each.recommended for each in found.recommendations if each.kind.startswith("scale")}
    return advice, {each.subject: each.reason for each in found.abstentions}


def signal(value: float) -> DemandSignal:
    return DemandSignal("sum(waiting)", tuple((AT - STEP * i, value) for i in reversed(range(60))))


def test_a_demand_signal_decides_where_utilization_cannot() -> None:
    assert with_signal(serving_gpus(4, 1.0), signal(102.0)) == ({"scale_up": 12.0}, {})  # three times, in one step
    assert with_signal(serving_gpus(4, 1.0), signal(30.0)) == ({}, {})  # always 100 %, and yet enough
    waits = {"counts": "waiting"}
    assert with_signal(serving_gpus(4, 0.9), signal(50.0), demand=waits)[0] == {"scale_up": 11.0}  # 3.6 busy + 5


def test_the_evidence_of_a_demand_signal_is_its_newest_value() -> None:
    chosen = settings(demand=SIGNAL)
    rising = DemandSignal("sum(waiting)", tuple((AT - STEP * k, 102.0 - k) for k in reversed(range(60))))
    known = dataclasses.replace(facts(serving_gpus(4, 1.0), chosen), demand_signals={"p": rising})
    (advice,) = decide(known, chosen).recommendations
    (found,) = (each for each in advice.evidence if each.signal == "pool_demand")
    assert (found.value, found.at, found.samples) == (102.0, AT, 60)
    assert found.promql == f"last_over_time((sum(waiting))[1s:1s] @ {AT:.3f})"


def test_a_broken_signal_is_reported_and_utilization_goes_on() -> None:
    broken = DemandSignal("sum(", reason=Reason.CONFLICTING, message="the demand signal of pool p, 'sum(', is refused")
    assert with_signal(serving_gpus(4, 0.95), broken) == ({"scale_up": 5.0}, {"demand": Reason.CONFLICTING})


@pytest.mark.parametrize(
    ("value", "pool", "advice"),
    [
        (None, {}, {}),  # busy, and no sign of more demand: success
        (0.0, {}, {}),
        (20.0, {"demand": {"counts": "waiting"}}, {"scale_up": 4.0}),
        (5.0, {"demand": {"counts": "waiting"}}, {"scale_up": 3.0}),  # half a gang's work needs a whole one
        (900.0, {"demand": {"counts": "waiting"}}, {"scale_up": 4.0}),  # 16 GPUs at most
        (20.0, {"demand": {"counts": "total"}}, {}),
        (30.0, {"demand": {"counts": "total"}}, {"scale_up": 3.0}),
    ],
)
def test_training_grows_by_whole_gangs_and_only_for_what_waits(
    value: float | None, pool: dict[str, Any], advice: dict[str, float]
) -> None:
    reading = signal(value) if value is not None else DemandSignal("sum(waiting)")
    shape = {"kind": "training", "tensor_parallel": 2, "pipeline_parallel": 2}
    assert with_signal(serving_gpus(8, 1.0), reading, **shape, **pool)[0] == advice


def test_a_demand_signal_that_ended_scales_no_training_pool() -> None:
    shape = {"kind": "training", "demand": {"counts": "waiting"}}
    for age in (0, 1, 2, 20, 200):
        ended = DemandSignal("sum(waiting)", tuple((AT - STEP * (age + i), 20.0) for i in reversed(range(5))))
        advice, abstained = with_signal(serving_gpus(4, 1.0), ended, **shape)
        expected = ({"scale_up": 6.0}, None) if age <= 1 else ({}, Reason.STALE)
        assert (advice, abstained.get("demand")) == expected


def test_gangs_are_jobs_of_a_scheduler_and_not_a_deployment() -> None:
    shape = {"kind": "training", "demand": {**SIGNAL, "counts": "waiting"}}
    known = dataclasses.replace(facts(serving_gpus(4, 1.0), settings(**shape)), demand_signals={"p": signal(20.0)})
    [advice] = [each for each in decide(known, settings(**shape)).recommendations if each.kind == "scale_up"]
    assert advice.apply == ("# add 2 GPUs: nodes of a Slurm partition, or the nominalQuota of a Kueue ClusterQueue",)


@pytest.mark.parametrize(("count", "utilization"), [(0, 0.75), (1, 0.75), (3, 0.75), (1, 0.93), (3, 0.93)])
def test_a_lost_gpu_shrinks_no_workload(count: int, utilization: float) -> None:
    dead = [GpuSpec(f"dead-{n}", None, None, memory=None, up=False) for n in range(count)]
    uuids = [card.uuid for card in dead]
    known = facts([*serving_gpus(8 - count, utilization), *dead], settings(), down_reasons=dict.fromkeys(uuids, "lost"))
    known = lost(known, uuids)
    found = decide(known, settings())
    assert {each.kind for each in found.recommendations} & {"scale_down"} == set()
    assert found.replicas == {"p": 8}
    assert dict(found.desired_replicas)["p"] >= 8


def test_an_id_is_of_who_and_what_never_of_values() -> None:
    (one,), _, _ = scale_advice(serving_gpus(4, 0.95), settings())
    (two,), _, _ = scale_advice(serving_gpus(6, 0.92), settings())
    assert one.summary != two.summary
    assert one.id("c") == two.id("c")
    others = [
        dataclasses.replace(one, kind="other"),
        dataclasses.replace(one, direction="down"),
        dataclasses.replace(one, scope=Scope("pool", "q")),
        dataclasses.replace(one, scope=Scope("node", "p")),
        dataclasses.replace(one, kind="scale_upp", scope=Scope("pool", "")),  # parts do not run into each other
    ]
    assert len({one.id("c"), one.id("d"), *(other.id("c") for other in others)}) == 7
    assert one.id("c") == dataclasses.replace(one, scope=Scope("pool", "p", "a label")).id("c")
    assert len(one.id("c")) == 16


@pytest.mark.parametrize(
    ("pool", "reported"),
    [
        ({"demand": {"per_replica": 1}}, "either a preset"),
        ({"demand": {"per_replica": 1, "preset": "vllm", "query": "sum(x)"}}, "either a preset"),
        ({"demand": {"per_replica": 1, "query": " "}}, "empty"),
        ({"demand": {"per_replica": 0, "preset": "vllm"}}, "greater than 0"),
        ({"demand": {"query": "sum(x)"}}, "per_replica"),
        # Counts of all pending jobs, also of those without GPUs or held.
        ({"demand": {"per_replica": 1, "query": "sum(slurm_jobs_pending)"}}, "use preset: slurm"),
        ({"demand": {"per_replica": 1, "query": 'sum by (partition) (slurm_partition_jobs_pending{partition="a"})'}},
         "use preset: slurm"),
        ({"demand": {"per_replica": 1, "query": "max_over_time(slurm_queue_pending[5m]) / 2"}}, "use preset: slurm"),
        ({"tensor_parallel": 4, "gpus_per_replica": 6}, "is not a multiple of"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused_with_the_fix(pool: dict[str, Any], reported: str) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(**pool)
    assert reported in str(refused.value)


@pytest.mark.parametrize(
    "query",
    [
        'sum(gpu_queue_eligible_gpus{partition="a100"})',
        "sum(slurm_jobs_pending) and on () sum(gpu_queue_eligible_jobs) > 0",
        "sum(slurm_queue_pending) + sum(vllm:num_requests_waiting)",
        "slurm_nodes_idle",
    ],
)
def test_other_queries_of_a_queue_are_accepted(query: str) -> None:
    assert PoolSettings.model_validate({"name": "x", "demand": {"query": query, "per_replica": 1}}).demand


@pytest.mark.parametrize(
    ("pool", "gpus"),
    [
        ({}, 1),
        ({"gpus_per_replica": 6}, 6),
        ({"tensor_parallel": 4}, 4),
        ({"tensor_parallel": 4, "pipeline_parallel": 2}, 8),
        ({"tensor_parallel": 4, "gpus_per_replica": 8}, 8),
    ],
)
def test_a_replica_is_a_copy_of_the_model_unless_configured(pool: dict[str, Any], gpus: int) -> None:
    assert settings(**pool).pools[0].gpus_per_replica == gpus


def test_history_reaches_as_far_as_the_windows() -> None:
    with pytest.raises(ValidationError, match="make it at least 900"):
        EvaluationSettings(history_seconds=600, cooldown_seconds=900)
