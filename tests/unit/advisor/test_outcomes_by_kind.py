"""Outcomes of each kind of recommendation: applied, ignored, overtaken, dismissed, after a restart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import pytest
from gpu_advisor.documents import serialize
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.owners import GpuOwner, Lease
from gpu_advisor.evaluation.policies import KINDS
from gpu_advisor.evaluation.recommendation import Projection, Recommendation, Scope
from gpu_advisor.evaluation.savings import SIZE_UNITS
from gpu_advisor.evaluation.signals import JOB_BATCH_SIZE, Signal
from gpu_advisor.state.comparison import WORK_KINDS, explain_incomparable, work_on
from gpu_advisor.state.feedback import Feedback
from gpu_advisor.state.measures import MEASURES
from gpu_advisor.state.outcomes import (
    ClosedRecommendation,
    Outcome,
    OutcomeResult,
    TrackedRecommendation,
    UtilizationSnapshot,
    close_ended,
    judge_settled,
    track,
)
from gpu_advisor.state.serialization import deserialize
from gpu_advisor.state.serialization import serialize as as_json
from gpu_advisor.state.sizes import PoolSize

from tests.unit.advisor.builders import AT, GpuSpec, facts, with_values

SETTLE = 900.0
T = TypeVar("T")
GPUS = ("a", "b")
POOL, JOB, NODE, LEASE = (
    Scope("pool", "p"),
    Scope("job", "llm"),
    Scope("node", "node-a"),
    Scope("job", "lease L1", lease="L1"),
)

#: Scope, unit, and the numbers of a recommendation of each kind; of kinds that are not here, as of a finding on a job.
SHAPES: Mapping[str, tuple[Scope, str, int, int]] = {
    "lost_gpu": (Scope("gpu", "a"), "lost GPUs", 2, 0),
    "failing_gpu": (NODE, "affected GPUs", 2, 0),
    "cooling": (NODE, "affected GPUs", 2, 0),
    "power_limit": (NODE, "affected GPUs", 2, 0),
    "idle_reclaim": (POOL, "GPUs", 4, 2),
    "idle_lease": (LEASE, "GPUs of the lease", 2, 0),
    "hung_job": (JOB, "GPUs of the job", 2, 0),
    "scale_up": (POOL, "gangs", 2, 3),
    "scale_down": (POOL, "replicas", 4, 3),
    "batch_size": (JOB, "samples", 16, 64),
    "smaller_gpu": (POOL, "affected GPUs", 2, 0),
    **{kind: (POOL, "requests at a time", 8, 16) for kind in KINDS if kind.startswith("serving")},
    "serving_replicas": (POOL, "replicas", 4, 3),
    "serving_decode": (POOL, "replicas", 2, 3),
}

EVENTS = ("applied", "ignored", "other work", "gone", "lost", "silent")


@dataclass(frozen=True)
class Then:
    """What an evaluation sees: the level of all measured signals, the size, whose work and which GPUs are there."""

    level: float
    size: float
    lost: int = 0
    owner: str = "llm-0"
    there: bool = True
    measured: bool = True


def shape(kind: str) -> tuple[Scope, str, int, int]:
    return SHAPES.get(kind, (JOB, "affected GPUs", 2, 0))


def advice(kind: str) -> Recommendation:
    scope, unit, current, recommended = shape(kind)
    direction: Literal["up", "down", "change"] = "up" if recommended > current else "down"
    if unit not in {*SIZE_UNITS, "samples"}:
        direction = "change"
    return Recommendation(
        kind, direction, scope, "warning", kind, current, recommended, unit, kind, "", "high", (), (),
        Projection(utilization_ratio=0.7), gpus=GPUS,
    )  # fmt: skip


def snapshot(kind: str, at: float, then: Then) -> UtilizationSnapshot:
    scope, unit, _, _ = shape(kind)
    found: Facts = facts([GpuSpec(uuid, None, memory=None) for uuid in (GPUS if then.there else ("z",))])
    measures: dict[Signal, Mapping[str, float]] = {
        each.signal: dict.fromkeys(GPUS, then.level if each.better == "higher" else 1 - then.level)
        for each in MEASURES.get(kind, ())
        if then.measured
    }
    if unit == "samples":
        measures[JOB_BATCH_SIZE] = dict.fromkeys(GPUS, then.size)
    if then.there:
        found = with_values(found, measures)
    owner = GpuOwner(namespace="ml", pod=then.owner)
    found = replace(found, owners=dict.fromkeys(GPUS, (owner,)) if then.owner and then.there else {})
    if unit == "GPUs of the lease":
        found = replace(found, leases={uuid: Lease("L1", 0, 0) for uuid in GPUS[: int(then.size)]})
    key: tuple[str, str] = (scope.kind, scope.name)
    sizes = {key: {each: PoolSize(then.size, then.size - then.lost) for each in SIZE_UNITS}}
    return UtilizationSnapshot(at, {key: then.level}, sizes, replace(found, at=at))


def after(kind: str, event: str) -> Then:
    _, _, current, recommended = shape(kind)
    better = 0.3 if shape(kind)[1] in SIZE_UNITS and recommended > current else 0.8
    return {
        "applied": Then(better, recommended),
        "ignored": Then(0.5, current),
        "other work": Then(better, current, owner="resnet-0"),
        "gone": Then(better, current, there=False),
        "lost": Then(0.5, current, lost=1),
        "silent": Then(0.5, current, measured=False),
    }[event]


def outcome(kind: str, event: str, restarted: bool = False) -> Outcome:
    _, _, current, _ = shape(kind)
    made = track("1", AT, advice(kind), snapshot(kind, AT, Then(0.5, current)))
    if restarted:
        made = _reloaded(TrackedRecommendation, made)
    left, closed = close_ended({"1": made}, (), frozenset(), snapshot(kind, AT + 60, after(kind, event)))
    assert not left
    if restarted:
        closed = tuple(_reloaded(ClosedRecommendation, each) for each in closed)
    later = snapshot(kind, AT + 60 + 4 * SETTLE, after(kind, event))
    waiting, (found,) = judge_settled(closed, later, SETTLE)
    assert not waiting
    return found


def _reloaded(kind: type[T], value: T) -> T:
    found = deserialize(kind, as_json(value))
    assert found is not None
    return found


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("kind", sorted(set(KINDS)))
def test_every_kind_has_an_outcome_and_none_claims_what_no_signal_shows(kind: str, event: str) -> None:
    found, unit = outcome(kind, event), shape(kind)[1]
    has_size = unit in {*SIZE_UNITS, "samples", "GPUs of the lease"}
    applied = event == "applied" and has_size
    assert found.result is (OutcomeResult.APPLIED if applied else OutcomeResult.CAUSE_GONE)
    if found.improved is None:
        assert found.not_measured, "why it is unknown"
    if found.improved:
        measured = kind in MEASURES and event in ("applied", "other work")
        assert (measured and not (event == "other work" and kind in WORK_KINDS)) or (applied and unit in SIZE_UNITS)
    if event == "applied" and kind != "idle_lease":
        assert found.improved is (True if kind in MEASURES or unit in SIZE_UNITS else None)
    if event in ("gone", "silent") and not (unit in SIZE_UNITS and event == "applied"):
        assert found.improved is None
    assert found == outcome(kind, event, restarted=True), "the same after a restart"


@pytest.mark.parametrize("kind", sorted(set(KINDS)))
def test_while_its_data_is_missing_nothing_is_concluded(kind: str) -> None:
    now = snapshot(kind, AT, Then(0.5, shape(kind)[2]))
    made = track("1", AT, advice(kind), now)
    assert close_ended({"1": made}, (), frozenset({"1"}), snapshot(kind, AT + 60, after(kind, "gone"))) == (
        {"1": made},
        (),
    )


@pytest.mark.parametrize(
    ("before", "now", "change"),
    [
        ((8, 8), (6, 6), -2),
        ((8, 8), (8, 7), 0),  # one is lost
        ((8, 7), (8, 8), 0),  # it is repaired
        ((8, 7), (7, 7), 0),  # it is returned to the vendor
        ((8, 8), (6, 5), -2),  # two are released, and one is lost
        ((8, 7), (9, 8), 1),
        ((8, 8), (7, 9), 0),  # cannot be told apart
    ],
)
def test_a_lost_gpu_is_no_resize(before: tuple[float, float], now: tuple[float, float], change: float) -> None:
    assert PoolSize(*now).change_since(PoolSize(*before)) == change


def test_a_batch_size_that_changed_half_way_is_partly_applied() -> None:
    first = track("1", AT, advice("batch_size"), snapshot("batch_size", AT, Then(0.5, 16)))
    more = replace(advice("batch_size"), current=32)
    now = snapshot("batch_size", AT + 60, Then(0.6, 32))
    left, (closed,) = close_ended({"1": first}, [track("1", AT, more, now)], frozenset(), now)
    assert (closed.size, left["1"].current) == (32, 32)
    _, (found,) = judge_settled([closed], snapshot("batch_size", AT + 2 * SETTLE, Then(0.6, 32)), SETTLE)
    assert (found.result, found.improved) == (OutcomeResult.PARTLY_APPLIED, True)


@pytest.mark.parametrize(
    ("pod", "name"),
    [
        ("web-7d4b9c6f5-x2x4z", "web"),  # a Deployment's
        ("train-x7k2p", "train"),  # a Job's
        ("db-0", "db"),  # a StatefulSet's
        ("train-worker-11", "train-worker"),
        ("notebook-alice", "notebook-alice"),
        ("a-0-b", "a-0-b"),
    ],
)
def test_work_keeps_its_name_when_its_pod_is_replaced(pod: str, name: str) -> None:
    found = replace(facts([GpuSpec("a")]), owners={"a": (GpuOwner(namespace="ml", pod=pod),)})
    assert work_on(["a"], found) == {f"pod ml/{name}"}
    assert work_on(["a"], replace(found, reported_jobs={"a": "llm"})) == {"job llm"}


@pytest.mark.parametrize(
    ("id_", "made", "shown"),
    [("1", AT + 30, True), ("2", AT + 30, False), ("1", AT - 30, False), ("1", AT + 9e5, False)],
)
def test_the_verdict_of_its_time_stands_beside_an_outcome(id_: str, made: float, shown: bool) -> None:
    """A recommendation of the same id may have been dismissed a month before, or be dismissed again later."""
    verdict = Feedback(id_, "idle_reclaim", "dismissed", "a demo on Friday", "ada", made)
    document = serialize.outcome(outcome("idle_reclaim", "ignored"), [verdict])
    assert document["result"] == "cause_gone"
    given = document["feedback"]
    assert (given and given["reason"]) == ("a demo on Friday" if shown else None)


@pytest.mark.parametrize(
    ("scope", "leases", "has_ended"),
    [(LEASE, ["L1"], False), (LEASE, ["L2"], True), (LEASE, [], True), (Scope("job", "lease L1"), [], False)],
)
def test_a_lease_has_ended_when_no_gpu_has_it(scope: Scope, leases: list[str], has_ended: bool) -> None:
    """A job may be called `lease L1`."""
    known = replace(facts([GpuSpec("a")]), leases={f"GPU of {id_}": Lease(id_, 0, 0) for id_ in leases})
    assert (explain_incomparable("idle_lease", scope, ("a",), (), known) is not None) == has_ended
    assert deserialize(Scope, as_json(scope)) == scope
