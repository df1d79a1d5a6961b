"""Owners that share, follow and resemble each other: who is named, since when, and what is advised, by exporter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from gpu_advisor.notify.alert_owners import alerts_by_owner

from tests.owner_spans import (
    AT,
    EXPORTERS,
    MINUTE,
    KubernetesPod,
    Span,
    SpannedGpu,
    evaluate_spans,
    pod,
    slurm,
)


@dataclass(frozen=True)
class Situation:
    """`released` are the GPUs that are advised to be released, `left` why others are left to their owners."""

    gpus: tuple[SpannedGpu, ...]
    named: tuple[str, ...]
    released: tuple[str, ...] = ()
    left: str = ""
    pods: tuple[KubernetesPod, ...] = ()
    commands: tuple[str, ...] = ()  # that change something
    money: tuple[float, float] = (0.0, 0.0)
    routes: tuple[Mapping[str, str], ...] = ()
    unknown: str = ""  # why, through dcgm-exporter without the start of the pod
    exporters: tuple[str, ...] = tuple(EXPORTERS)


def one(*spans: Span, **more: str) -> SpannedGpu:
    return SpannedGpu("GPU-0", spans, **more)


def route(name: str, **more: str) -> Mapping[str, str]:
    return {"namespace": "ml", "owner": f"pod/{name}", **more}


DELETES = "kubectl -n ml delete pod train-0"
UNKNOWN = "it is unknown how long"

SITUATIONS: Mapping[str, Situation] = {
    "one pod, no controller": Situation(
        (one(pod("train-0")),), ("pod ml/train-0",), ("GPU-0",), pods=(KubernetesPod("train-0", AT - 180 * MINUTE),),
        commands=(DELETES,), money=(3.0, 3.0), routes=(route("train-0"),),
    ),
    "an unknown controller is only looked at": Situation(
        (one(pod("train-0")),), ("pod ml/train-0",), ("GPU-0",), money=(3.0, 3.0), routes=(route("train-0"),),
    ),
    "time slicing: both are asked, neither is stopped": Situation(
        (one(pod("a", replica="0"), pod("b", replica="1")),), ("pod ml/a", "pod ml/b"), ("GPU-0",),
        pods=(KubernetesPod("a", AT - 180 * MINUTE), KubernetesPod("b", AT - 180 * MINUTE)), money=(3.0, 3.0),
        routes=(route("a"), route("b")),
    ),
    "time slicing: a young sharer": Situation(
        (one(pod("a", replica="0"), pod("b", 9, replica="1")),), ("pod ml/a", "pod ml/b"), left="pod ml/b came 9 min",
        unknown=UNKNOWN,
    ),
    "another pod within the window": Situation(
        (one(pod("a", 180, 10), pod("b", 10)),), ("pod ml/b",), left="pod ml/b came 10 min ago", unknown=UNKNOWN,
    ),
    "several come and go": Situation(
        (one(pod("a", 180, 150), pod("b", 150, 100), pod("c", 100, 45), pod("d", 45)),), ("pod ml/d",), ("GPU-0",),
        money=(3.0, 3.0), routes=(route("d"),),
    ),
    "a StatefulSet's pod is restarted": Situation(
        (one(pod("db-0", 180, 9), pod("db-0", 8)),), ("pod ml/db-0",), left="pod ml/db-0 came 8 min ago",
        unknown=UNKNOWN,
    ),
    "a StatefulSet's pod is restarted between two scrapes": Situation(
        (one(pod("db-0", 180, 8), pod("db-0", 8)),), ("pod ml/db-0",), left="pod ml/db-0 came 8 min ago",
        pods=(KubernetesPod("db-0", AT - 8 * MINUTE, ("StatefulSet", "db")),),
    ),
    "a container is restarted in its pod": Situation(
        (one(pod("db-0", 180, 5), pod("db-0", 5)),), ("pod ml/db-0",), left="pod ml/db-0 came 5 min ago",
        pods=(
            KubernetesPod("db-0", AT - 180 * MINUTE, ("StatefulSet", "db"), container_started=AT - 5 * MINUTE),
        ),
    ),
    "a Job tries again": Situation(
        (one(pod("train-abcde", 180, 12), pod("train-fghij", 12)),), ("pod ml/train-fghij",),
        left="pod ml/train-fghij came 12 min ago", pods=(KubernetesPod("train-fghij", AT - 12 * MINUTE, ("Job", "t")),),
    ),
    "a run of a CronJob": Situation(
        (one(pod("nightly-29-x7k2p", 45)),), ("pod ml/nightly-29-x7k2p",), ("GPU-0",),
        pods=(KubernetesPod("nightly-29-x7k2p", AT - 45 * MINUTE, ("Job", "nightly-29"), ("CronJob", "nightly")),),
        commands=("""kubectl -n ml patch job/nightly-29 '--patch={"spec":{"suspend":true}}'""",), money=(3.0, 3.0),
        routes=(route("nightly-29-x7k2p"),),
    ),
    "a Slurm job is requeued": Situation(
        (one(slurm("17", 180, 10), slurm("17", 8)),), ("job 17 of ada",), left="job 17 of ada came 8 min ago",
        exporters=("gpu-exporter",),
    ),
    "a task of a Slurm array": Situation(
        (one(slurm("19", array_task="17_3")),), ("job 19 of ada",), ("GPU-0",), commands=("scancel 17_3",),
        money=(3.0, 3.0), routes=({"owner": "job/19"},), exporters=("gpu-exporter",),
    ),
    "two clusters with one name": Situation(
        (one(pod("train-0"), cluster="east"), SpannedGpu("GPU-1", (pod("train-0"),), "1", "west")),
        ("pod ml/train-0 in east", "pod ml/train-0 in west"), ("GPU-0", "GPU-1"),
        pods=(
            KubernetesPod("train-0", AT - 300 * MINUTE, ("StatefulSet", "train"), cluster="east"),
            KubernetesPod("train-0", AT - 200 * MINUTE, ("Deployment", "t"), cluster="west"),
        ),
        commands=(
            "kubectl --context=east -n ml scale statefulset/train --replicas=0",
            "kubectl --context=west -n ml scale deployment/t --replicas=0",
        ),
        money=(6.0, 6.0), routes=(route("train-0", cluster="east"), route("train-0", cluster="west")),
    ),
    "two clusters with one name, young in one": Situation(
        (one(pod("train-0"), cluster="east"), SpannedGpu("GPU-1", (pod("train-0", 8),), "1", "west")),
        ("pod ml/train-0 in east", "pod ml/train-0 in west"), ("GPU-0",), "pod ml/train-0 in west came 8 min ago",
        pods=(
            KubernetesPod("train-0", AT - 300 * MINUTE, ("StatefulSet", "train"), cluster="east"),
            KubernetesPod("train-0", AT - 8 * MINUTE, ("StatefulSet", "train"), cluster="west"),
        ),
        commands=("kubectl --context=east -n ml scale statefulset/train --replicas=0",), money=(3.0, 3.0),
        routes=(route("train-0", cluster="east"),),
    ),
    "two clusters, and no cluster on what Kubernetes says": Situation(
        (one(pod("train-0"), cluster="east"), SpannedGpu("GPU-1", (pod("train-0"),), "1", "west")),
        ("pod ml/train-0 in east", "pod ml/train-0 in west"), ("GPU-0", "GPU-1"),
        pods=(KubernetesPod("train-0", AT - 300 * MINUTE, ("StatefulSet", "train")),),  # of one of them
        money=(6.0, 6.0), routes=(route("train-0", cluster="east"), route("train-0", cluster="west")),
    ),
    "an owner moves to another slice": Situation(
        (
            one(), SpannedGpu("MIG-a", (pod("a", 180, 10),), "0:1", slice_of="GPU-0"),
            SpannedGpu("MIG-b", (pod("a", 10),), "0:2", slice_of="GPU-0"),
        ),
        ("pod ml/a",), ("MIG-a",), "pod ml/a came 10 min ago", routes=({},), exporters=("gpu-exporter",),
    ),
}  # fmt: skip

CHANGES = ("delete", "scale", "patch", "scancel", "stop")


@pytest.mark.parametrize(
    ("name", "exporter"), [(name, each) for name, found in SITUATIONS.items() for each in found.exporters]
)
def test_owners_by_exporter(name: str, exporter: str, tmp_path: Path) -> None:
    expected = SITUATIONS[name]
    found = evaluate_spans(exporter, expected.gpus, expected.pods, tmp_path)
    owners = found.facts.owners
    assert sorted({str(owner) for every in owners.values() for owner in every}) == sorted(expected.named)
    released = [each for each in found.recommendations if each.kind == "idle_reclaim"]
    assert tuple(sorted(uuid for each in released for uuid in each.gpus)) == expected.released
    left = [each.message for each in found.abstentions if each.subject == "idle_reclaim"]
    why = expected.unknown if expected.unknown and exporter != "gpu-exporter" else expected.left
    assert len(left) == bool(why)
    assert why in " ".join(left)
    lines = [line.partition("  # ")[0] for each in released for line in each.apply]
    commands = [line for line in lines if not line.startswith("#")]
    assert tuple(line for line in commands if set(line.split()) & {*CHANGES}) == expected.commands
    for each in released:
        assert each.savings is not None
        money = each.savings.money.per_hour
        assert (money.low, money.high) == (expected.money if expected.money[1] else (0.0, None))
        assert tuple(dict(alert.labels) for alert in alerts_by_owner(each, owners)) == expected.routes
    known = [owner.started for every in owners.values() for owner in every if owner.started is not None]
    if exporter == "gpu-exporter" or (expected.pods and not expected.unknown and len(known) == len(owners)):
        assert all(AT - 300 * MINUTE <= started < AT for started in known)
        assert known
