"""All recommendations of one answer can be followed together, whatever the fleet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any, Literal

import pytest
from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.agreement import agree, contradicts, merge
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.history import DemandSignal
from gpu_advisor.evaluation.owners import Controller, GpuOwner, Lease
from gpu_advisor.evaluation.recommendation import Alternative, Projection, Recommendation, Scope, Waste
from gpu_advisor.evaluation.scaling.training import GangCounts, decide_gangs
from gpu_advisor.evaluation.signals import Signal
from gpu_advisor.settings import Settings

from tests.contradictions import contradictions
from tests.unit.advisor.builders import AT, GpuSpec, facts, lost, with_values

#: What a GPU measures that has one fault, or none: enough for the decision table.
STATES: Mapping[str, Mapping[Signal, float]] = {
    "busy": {signals.UTILIZATION: 0.97, signals.SM_ACTIVITY: 0.8, signals.MEMORY_USED: 0.8, signals.DRAM_ACTIVITY: 0.4,
             signals.TENSOR_ACTIVITY: 0.4, signals.FP32_ACTIVITY: 0.1},
    "idle": {signals.UTILIZATION: 0.0, signals.MEMORY_USED: 0.0, signals.SM_ACTIVITY: 0.0},
    "hoarder": {signals.UTILIZATION: 0.0, signals.MEMORY_USED: 0.7, signals.SM_ACTIVITY: 0.0},
    "hung": {signals.UTILIZATION: 0.0, signals.MEMORY_USED: 0.7, signals.JOB_STEP_TIME: 0.0},
    "small batch": {signals.UTILIZATION: 0.6, signals.SM_ACTIVITY: 0.1, signals.MEMORY_USED: 0.2,
                    signals.DRAM_ACTIVITY: 0.2, signals.JOB_STEP_TIME: 0.98, signals.JOB_DATA_WAIT: 0.01,
                    signals.JOB_COMMUNICATION: 0.01},
    "memory full": {signals.UTILIZATION: 0.6, signals.SM_ACTIVITY: 0.1, signals.MEMORY_USED: 0.97,
                    signals.DRAM_ACTIVITY: 0.2, signals.JOB_STEP_TIME: 0.98, signals.JOB_DATA_WAIT: 0.01,
                    signals.JOB_COMMUNICATION: 0.01},
    "memory bound": {signals.UTILIZATION: 0.98, signals.SM_ACTIVITY: 0.9, signals.MEMORY_USED: 0.6,
                     signals.DRAM_ACTIVITY: 0.9, signals.TENSOR_ACTIVITY: 0.05},
    "data bound": {signals.UTILIZATION: 0.45, signals.SM_ACTIVITY: 0.4, signals.MEMORY_USED: 0.6,
                   signals.JOB_STEP_TIME: 0.98, signals.JOB_DATA_WAIT: 0.5},
    "communication": {signals.UTILIZATION: 0.98, signals.SM_ACTIVITY: 0.5, signals.MEMORY_USED: 0.6,
                      signals.DRAM_ACTIVITY: 0.3, signals.JOB_STEP_TIME: 0.98, signals.JOB_DATA_WAIT: 0.01,
                      signals.JOB_COMMUNICATION: 0.5},
    "empty": {signals.UTILIZATION: 0.99, signals.SM_ACTIVITY: 0.01, signals.MEMORY_USED: 0.5},
    "hot": {signals.UTILIZATION: 0.98, signals.SM_ACTIVITY: 0.8, signals.THROTTLE_HW_THERMAL: 0.9,
            signals.SM_CLOCK: 1.0e9, signals.SM_CLOCK_MAX: 2.0e9, signals.MEMORY_USED: 0.8, signals.POWER: 300.0},
    "limited": {signals.UTILIZATION: 0.98, signals.SM_ACTIVITY: 0.8, signals.POWER_LIMIT: 300.0, signals.POWER: 295.0,
                signals.POWER_LIMIT_DEFAULT: 700.0, signals.SM_CLOCK: 1.0e9, signals.SM_CLOCK_MAX: 2.0e9},
    "fp32": {signals.UTILIZATION: 0.98, signals.SM_ACTIVITY: 0.9, signals.TENSOR_ACTIVITY: 0.0,
             signals.FP32_ACTIVITY: 0.5, signals.FP64_ACTIVITY: 0.0, signals.MEMORY_USED: 0.8,
             signals.DRAM_ACTIVITY: 0.3, signals.JOB_STEP_TIME: 0.99},
    "service": {signals.UTILIZATION: 0.1, signals.SM_ACTIVITY: 0.05, signals.MEMORY_USED: 0.2,
                signals.DAILY_PEAK_UTILIZATION: 0.15},
    "failing": {signals.UTILIZATION: 0.9, signals.SM_ACTIVITY: 0.8, signals.FATAL_ERRORS: 1.0},
    "failed idle": {signals.UTILIZATION: 0.0, signals.MEMORY_USED: 0.0, signals.ROW_REMAP_FAILED: 1.0},
}  # fmt: skip

MODELS = ("NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB")
OWNERS = (
    (), (), (GpuOwner("ml", "train-0", started=0.0),), (GpuOwner(job="17", user="ada", kind="slurm", started=0.0),),
    (GpuOwner("ml", "new-0", started=AT - 60),),
    (GpuOwner("ml", "a-0", started=0.0), GpuOwner("ml", "b-0", started=0.0)),
)  # fmt: skip


def drawn(random: Random) -> tuple[Facts, Settings]:
    """Any fleet: its states, jobs, owners, leases and pools have nothing to do with each other."""
    count, nodes = random.randint(2, 12), random.randint(1, 3)
    few = random.sample(sorted(STATES), random.randint(1, 4))
    states = [random.choice(few) for _ in range(count)]
    cards = [
        GpuSpec(f"g{k}", None, idle=None, memory=None, node=f"n{k % nodes}", index=str(k), name=random.choice(MODELS))
        for k in range(count)
    ]
    pools: list[dict[str, Any]] = [
        {"name": name, "kind": random.choice(("serving", "training")), "match": {"node": match},
         "gpus_per_replica": random.choice((1, 1, 2)),
         "gpu": {"min": random.choice((0, 0, 2)), "max": random.choice((4, 64))}}
        for name, match in (("p", "n0"), ("q", ".*"))[random.randint(0, 2):]
    ]  # fmt: skip
    for pool in pools:
        if random.random() < 0.5:
            pool["demand"] = {"query": "waiting", "per_replica": 1, "counts": "waiting"}
    settings = Settings.model_validate({"pools": pools, "cost": {"gpu_price_per_hour": {"H100": 3.0}}})
    trails = {card.uuid: STATES[state].get(signals.UTILIZATION, 0.0) for card, state in zip(cards, states, strict=True)}
    times = [AT - 60 * k for k in range(60, -1, -1)]
    cards = [replace(card, trail=tuple((at, trails[card.uuid]) for at in times)) for card in cards]
    known = facts(cards, settings, nodes={f"n{k}": {} for k in range(nodes)})
    values: dict[Signal, dict[str, float]] = {}
    for card, state in zip(cards, states, strict=True):
        for signal, value in STATES[state].items():
            for same in _SAME.get(signal, (signal,)):
                values.setdefault(same, {})[card.uuid] = value
        for same in (signals.UTILIZATION_COVERAGE, signals.IDLE_COVERAGE):
            values.setdefault(same, {})[card.uuid] = 1.0
    known = with_values(known, values)
    jobs = {card.uuid: random.choice(("llm", "resnet")) for card in cards if random.random() < 0.6}
    uuids = [card.uuid for card in cards]
    gone = [uuid for uuid in uuids if random.random() < 0.1]
    known = replace(
        known,
        gpus=tuple(replace(gpu, up=gpu.uuid not in gone) for gpu in known.gpus),
        owners={uuid: owner for uuid in uuids if (owner := random.choice(OWNERS))},
        leases={uuid: Lease("L1", 0.0, AT + 900) for uuid in uuids if random.random() < 0.1},
        jobs=jobs,
        reported_jobs=jobs if random.random() < 0.7 else {},
        down_reasons=dict.fromkeys(gone, "lost"),
        demand_signals={
            pool.name: DemandSignal("waiting", ((AT - 30, float(random.randint(0, 4))),))
            for pool in settings.pools
            if pool.demand
        },
    )
    return lost(known, gone), settings


_SAME: Mapping[Signal, tuple[Signal, ...]] = {
    signals.UTILIZATION: (signals.UTILIZATION, signals.IDLE_UTILIZATION, signals.HALF_IDLE_UTILIZATION),
    signals.MEMORY_USED: (signals.MEMORY_USED, signals.IDLE_MEMORY_USED),
}


@pytest.mark.parametrize("seed", range(8))
def test_no_two_recommendations_contradict(seed: int) -> None:
    random, kinds = Random(seed), set()
    for _ in range(60):
        known, settings = drawn(random)
        found = decide(known, settings).recommendations
        kinds |= {each.kind for each in found}
        assert contradictions(found, known) == []
    assert len(kinds) >= 10, "the fleets show hardly anything"


def advice(
    kind: str,
    direction: Literal["up", "down", "change"] = "change",
    unit: str = "affected GPUs",
    rejected: str = "",
    on: tuple[Scope, tuple[str, ...]] = (Scope("pool", "p"), ("a", "b")),
) -> Recommendation:
    scope, gpus = on
    return Recommendation(
        kind=kind, direction=direction, scope=scope, severity="info", summary=kind, current=2, recommended=0, unit=unit,
        diagnosis=kind, explanation="", confidence="high", projection=Projection(), evidence=(), gpus=gpus,
        rejected=(Alternative(rejected, "why"),) if rejected else (),
    )  # fmt: skip


FEWER = advice("scale_down", "down", "replicas")
SMALLER = advice("smaller_gpu", "down", rejected="fewer replicas")
GUESSED, MEASURED = advice("batch_size", "up"), advice("batch_size", "up", "samples")
SAVING = advice("memory_saving", rejected="a larger batch")
ELSEWHERE, RANKS = (Scope("pool", "q"), ("c",)), (Scope("job", "llm"), ("c",))


@pytest.mark.parametrize(
    ("found", "kinds", "note", "rejected"),
    [
        ((FEWER, SMALLER), ("scale_down", "smaller_gpu"), "first fewer replicas", ()),
        ((SMALLER,), ("smaller_gpu",), "", ("fewer replicas",)),
        ((FEWER, replace(SMALLER, gpus=("c",))), ("scale_down", "smaller_gpu"), "", ("fewer replicas",)),
        ((advice("scale_up", "up", "replicas"), SMALLER), ("scale_up",), "", ()),
        ((advice("serving_kv_cache"), SMALLER), ("serving_kv_cache",), "", ()),
        ((advice("serving_kv_cache"), advice("serving_batch_limit")), ("serving_kv_cache",), "", ()),
        ((SAVING, GUESSED), ("memory_saving",), "", ("a larger batch",)),
        ((SAVING, replace(GUESSED, gpus=("c",))), ("memory_saving", "batch_size"), "", ("a larger batch",)),
        ((replace(SAVING, scope=Scope("job", "llm")), advice("batch_size", "up", on=RANKS)), ("memory_saving",), "",
         ("a larger batch",)),
        ((SAVING, MEASURED), ("memory_saving", "batch_size"), "first save memory", ()),
        ((SAVING, advice("batch_size", "down", "samples")), ("memory_saving", "batch_size"), "", ("a larger batch",)),
        ((advice("cooling", rejected="more GPUs"), advice("scale_up", "up", "replicas")),
         ("cooling", "scale_up"), "", ()),
        ((advice("cooling", rejected="more GPUs"),
          advice("scale_up", "up", "replicas", on=ELSEWHERE)), ("cooling", "scale_up"), "", ("more GPUs",)),
    ],
)  # fmt: skip
def test_what_can_be_followed_together(
    found: tuple[Recommendation, ...], kinds: tuple[str, ...], note: str, rejected: tuple[str, ...]
) -> None:
    agreed = list(agree(found))
    assert tuple(each.kind for each in agreed) == kinds
    lines = [line for each in agreed for line in each.apply]
    assert len(lines) == bool(note)
    assert note in " ".join(lines)
    assert tuple(other.action for each in agreed for other in each.rejected) == rejected


@pytest.mark.parametrize(
    ("lingering", "present", "ends"),
    [
        (SMALLER, advice("scale_up", "up", "replicas"), True),
        (SMALLER, FEWER, False),  # it waits
        (GUESSED, SAVING, True),
        (SAVING, GUESSED, True),  # the present wins
        (SAVING, advice("batch_size", "up", on=ELSEWHERE), False),
        (advice("data_loading"), SAVING, False),
    ],
)
def test_what_lingers_ends_where_the_present_contradicts_it(
    lingering: Recommendation, present: Recommendation, ends: bool
) -> None:
    assert contradicts(lingering, [advice("cooling"), present]) is ends
    assert not contradicts(lingering, [])


def test_the_same_cause_on_a_node_of_two_pools_is_one_recommendation() -> None:
    """They have one id: of two, one would be lost."""
    node = Scope("node", "n0")
    one, other = (replace(advice("cooling", on=(node, (uuid,))), waste=(Waste((), 0.0, 0.5),)) for uuid in "ab")
    (found,) = merge([one, other])
    assert (found.gpus, found.current) == (("a", "b"), 4)
    assert [(each.gpus, each.high) for each in found.waste] == [(("a",), 0.5), (("b",), 0.5)]
    assert len(merge([one, replace(other, scope=Scope("node", "n1"))])) == 2


def test_of_a_lost_gpu_only_its_loss_is_advised() -> None:
    """Its fatal error is still in the window, and no reset reaches it."""
    known = with_values(facts([GpuSpec("a"), GpuSpec("b")]), {signals.FATAL_ERRORS: {"a": 1.0}})
    down = replace(known, gpus=(replace(known.gpus[0], up=False), known.gpus[1]), down_reasons={"a": "lost"})
    assert [each.kind for each in decide(lost(down, ["a"]), Settings()).recommendations] == ["lost_gpu"]
    (early,) = decide(down, Settings()).recommendations
    assert early.kind == "failing_gpu"
    assert "--gpu-reset" not in " ".join(early.apply)


@pytest.mark.parametrize(
    ("steps", "kinds"),
    [
        ({"a": 0.0}, {"hung_job"}),  # rank 0 alone reports
        ({"a": 0.0, "b": 0.5}, {"hung_job", "idle_reclaim"}),  # b computes elsewhere
        ({}, {"idle_reclaim"}),
    ],
)
def test_of_a_job_that_hangs_nothing_is_released(steps: dict[str, float], kinds: set[str]) -> None:
    owner = GpuOwner("ml", "train-0", started=0.0)
    known = facts([GpuSpec("a", 0.0), GpuSpec("b", 0.0), GpuSpec("c", 0.9)])
    known = replace(
        with_values(known, {signals.JOB_STEP_TIME: steps}), owners={"a": (owner,), "b": (owner,)},
        reported_jobs=dict.fromkeys(steps, "llm"),
    )  # fmt: skip
    found = decide(known, Settings()).recommendations
    assert {each.kind for each in found} == kinds
    assert [each.scope.name for each in found if each.kind == "hung_job"] == ["llm"] * ("hung_job" in kinds)


@pytest.mark.parametrize(
    ("waiting", "idle", "wanted", "why"),
    [
        (3, 0, 7, "waits"),
        (3, 2, 5, "2 fit on idle GPUs"),
        (3, 3, 4, "release those to it"),
        (3, 4, 4, "release those to it"),
        (None, 4, 4, "no work is waiting"),
    ],
)
def test_no_gpus_are_added_for_work_that_fits_on_idle_ones(
    waiting: float | None, idle: int, wanted: int, why: str
) -> None:
    found, explained = decide_gangs(GangCounts(4, 0, 64, waiting, idle))
    assert (found, why in explained) == (wanted, True)


def stopped_by(argv: tuple[str, ...], owner: GpuOwner) -> bool:
    """Whether a command ends the work of an owner, by what its words mean to the tool."""
    words = [word for word in argv if not word.startswith("--")]
    cluster = next((word.partition("=")[2] for word in argv if word.startswith(("--context=", "--clusters="))), "")
    if cluster and owner.cluster != cluster:
        return False
    if words[0] == "scancel":
        return owner.kind == "slurm" and words[1] in (owner.job, f"16_{owner.job}")
    if words[0] != "kubectl" or words[3] not in ("delete", "scale", "patch") or owner.namespace != words[2]:
        return False
    name = words[5] if words[3] == "delete" else words[4].partition("/")[2]
    return owner.pod == name if words[3] == "delete" else owner.pod.startswith(f"{name}-")


def any_owner(random: Random, cluster: str) -> GpuOwner:
    """Few names, so that they meet: pods of one controller, in two namespaces and clusters; tasks of the array 16,
    which not every node knows as such.
    """
    if random.random() < 0.3:
        job = random.choice(("17", "18"))
        return GpuOwner(job=job, user="ada", kind="slurm", partition="gpu", started=0.0, cluster=cluster,
                        array_task=random.choice(("", f"16_{job}")))  # fmt: skip
    name = random.choice(("web", "web-api"))
    kind = random.choice(("Deployment", "StatefulSet", "Job", "RayCluster", ""))
    return GpuOwner(random.choice(("ml", "nlp")), f"{name}-{random.randint(0, 1)}", random.choice(("a", "b")),
                    kind="kubernetes", started=0.0, cluster=cluster,
                    controller=random.choice((None, Controller(kind, name if kind else ""))))  # fmt: skip


@pytest.mark.parametrize("clusters", [("",), ("east", "west")])
def test_no_command_ends_work_on_other_gpus(clusters: tuple[str, ...]) -> None:
    random, commands = Random(len(clusters)), 0
    for _ in range(300):
        cards = [GpuSpec(f"g{k}", random.choice((0.0, 0.0, 0.0, 0.9)), index=str(k)) for k in range(6)]
        known = facts(cards)
        gpus = tuple(replace(gpu, cluster=random.choice(clusters)) for gpu in known.gpus)
        owners = {
            gpu.uuid: tuple(any_owner(random, gpu.cluster) for _ in range(random.choice((0, 1, 1, 1, 2))))
            for gpu in gpus
        }
        known = replace(known, gpus=gpus, owners={uuid: every for uuid, every in owners.items() if every})
        for each in decide(known, Settings()).recommendations:
            for argv in (action.parameters["argv"] for action in each.actions if action.kind == "run_command"):
                assert isinstance(argv, tuple)
                for uuid, every in known.owners.items():
                    ended = [stopped_by(argv, owner) for owner in every]
                    commands += any(ended)
                    assert not any(ended) or (uuid in each.gpus and all(ended)), (argv, uuid, every)
    assert commands > 50, "hardly a command"
