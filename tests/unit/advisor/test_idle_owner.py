"""Idle for its owner: drawn days of each class, and the parts of the judgement."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu_advisor.evaluation.activity import Pauses, find_pauses
from gpu_advisor.evaluation.diagnosis.idle_owner import judge_idle_gpu
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.evaluation.signals import JOB_STEP_TIME
from gpu_advisor.observation.owners import (
    POD_STARTS,
    date_owners,
    owners_from_info,
    owners_from_pods,
    pod_start_selectors,
)
from gpu_advisor.settings import Settings
from gpu_advisor.sources.exporters.detection import CanonicalRows, JobKey
from gpu_advisor.sources.exporters.mapping_files import mappings

from tests.owner_days import judge_days
from tests.owner_histories import CLASSES
from tests.unit.advisor.builders import AT, GpuSpec, facts, labels, with_values

STEP = 300.0


@pytest.mark.parametrize("kind", CLASSES)
def test_a_person_would_do_the_same(kind: str, tmp_path: Path) -> None:
    """`make bench-owners` draws 500 of each class."""
    assert [(day.seed, found) for day, found in judge_days(kind, range(3), tmp_path) if found != day.verdict] == []


def steps(*shares: float | None) -> tuple[tuple[float, float], ...]:
    return tuple((STEP * (n + 1), share) for n, share in enumerate(shares) if share is not None)


BUSY, QUIET, BLIP = 0.5, 0.0, 0.004


@pytest.mark.parametrize(
    ("shares", "since", "pauses"),
    [
        ((QUIET,) * 12, None, Pauses(3600, None, any_activity=False)),
        ((QUIET,) * 12, 2400.0, Pauses(1200, None, any_activity=False)),  # of its owner's time only
        ((BUSY,) * 2 + (QUIET,) * 10, None, Pauses(3000, 0.0)),
        ((BUSY, *(QUIET,) * 7, BUSY, QUIET, QUIET, QUIET), None, Pauses(900, 2100, 2400)),
        ((BUSY, QUIET, QUIET, BLIP, QUIET, QUIET), None, Pauses(600, 600)),  # a second of work is work
        ((BUSY, QUIET, None, QUIET, BUSY, QUIET), None, Pauses(300, 0.0)),  # what is missing is no pause
        ((BUSY, *(BLIP,) * 40), None, Pauses(40 * STEP, None)),  # a desktop all the time is none
        ((BLIP,) * 6, None, Pauses(0, 0.0)),  # half an hour of it may be work
        ((BUSY, QUIET, QUIET), STEP, Pauses(2 * STEP, None, any_activity=False)),  # the work of the owner before
        ((), None, None),
    ],
)
def test_pauses(shares: tuple[float | None, ...], since: float | None, pauses: Pauses | None) -> None:
    at = STEP * len(shares)
    assert find_pauses(steps(*shares), STEP, at, since, 0.01, 1800) == pauses


def test_owners_of_our_exporter_have_their_start() -> None:
    pod = labels(uuid="1", owner_namespace="a", owner_pod="p", owner_kind="kubernetes")
    user = labels(uuid="1", owner_user="ada", owner_kind="user")
    unknown = labels(uuid="2", owner_kind="user")
    found = owners_from_info({pod: 1, user: 1, unknown: 1}, {pod: 100.0}, {user}, frozenset())
    assert [(str(owner), owner.started) for owner in found["1"]] == [("pod a/p", 100.0), ("user ada", None)]
    assert [owner.is_older_than(50.0) for owner in found["1"]] == [False, True]
    assert "2" not in found


def test_a_pod_label_of_the_target_is_the_exporters_own() -> None:
    dcgm = next(mapping for mapping in mappings() if mapping.name == "dcgm-exporter")
    target = {"job": "d", "instance": "i:1", "pod": "dcgm-x", "namespace": "ops"}
    alone = labels(UUID="GPU-1", **target)
    owned = labels(UUID="GPU-2", exported_pod="train", exported_namespace="ml", **target)
    honored = labels(UUID="GPU-3", **{**target, "pod": "infer", "namespace": "ml"})
    present = [alone, owned, honored]
    counts = {alone: 120.0, owned: 119.0, honored: 40.0}
    up = {labels(**target): 1.0}
    found = owners_from_pods(dcgm, CanonicalRows(), present, counts, up, {JobKey("d"): 120.0}, frozenset())
    assert {uuid: [str(owner) for owner in owners] for uuid, owners in found.items()} == {
        "GPU-2": ["pod ml/train"], "GPU-3": ["pod ml/infer"],
    }  # fmt: skip
    assert found["GPU-2"][0].is_older_than(0.0) is True  # it was there throughout the window
    assert found["GPU-3"][0].is_older_than(0.0) is None  # a series that begins says nothing of its pod's start
    assert pod_start_selectors(found["GPU-3"])
    dated = date_owners(found, {POD_STARTS: {labels(namespace="ml", pod="infer"): 50.0}})
    assert dated["GPU-3"][0].is_older_than(60.0) is True
    assert dated["GPU-3"][0].is_older_than(40.0) is False
    east, west = (labels(namespace="ml", pod="infer", cluster=cluster) for cluster in ("east", "west"))
    for starts in ({east: 50.0, west: 20.0}, {west: 20.0, east: 50.0}):
        assert (
            date_owners(found, {POD_STARTS: starts})["GPU-3"][0].is_older_than(40.0) is False
        )  # the youngest of one name


@pytest.mark.parametrize(
    ("job", "whole"),
    [("a", False), ("b", True)],  # the exporter showed no pod before; another job drops the labels of pods
)
def test_a_pod_came_where_its_own_target_showed_none_before(job: str, whole: bool) -> None:
    dcgm = next(mapping for mapping in mappings() if mapping.name == "dcgm-exporter")
    pod = labels(UUID="GPU-1", job="a", instance="i:1", exported_pod="db-0", exported_namespace="ml")
    none = labels(UUID="GPU-1", job=job, instance="i:1")
    expected = {JobKey("a"): 120.0, JobKey("b"): 120.0}
    found = owners_from_pods(dcgm, CanonicalRows(), [pod], {pod: 119.0, none: 1.0}, {}, expected, frozenset())
    assert [owner.observed_whole_window for owner in found["GPU-1"]] == [whole]


@pytest.mark.parametrize(
    ("due", "verdict"),
    [(None, "reclaim"), (AT + 30, "phase"), (AT - 600, "phase"), (AT - 1801, "reclaim")],  # at last it is stuck
)
def test_a_pod_that_is_being_deleted_is_left_to_end(due: float | None, verdict: str) -> None:
    owner = GpuOwner("ml", "train", started=AT - 90_000, deletion_due=due)
    known = facts([GpuSpec("a", 0.0)], owners={"a": (owner,)})
    assert judge_idle_gpu(known, known.gpus[0]).verdict == verdict


@pytest.mark.parametrize(
    ("shares", "why"),
    [
        ((BUSY, QUIET, QUIET), "something ran 10 min ago"),
        ((BUSY, *(QUIET,) * 120, BUSY, *(QUIET,) * 8), "it worked again 45 min ago after a pause"),
        ((BUSY, *(QUIET,) * 120, BUSY, *(QUIET,) * 100), "it paused for up to 10 h before"),
    ],
)
def test_why_an_idle_gpu_is_left_to_its_owner(shares: tuple[float, ...], why: str) -> None:
    past = tuple((AT - STEP * (len(shares) - 1 - n), share) for n, share in enumerate(shares))
    known = facts([GpuSpec("a", 0.0)], activity={"a": past})
    assert judge_idle_gpu(known, known.gpus[0]).why == why


def test_a_gpu_whose_activity_could_not_be_read_is_left_to_its_owner() -> None:
    known = facts([GpuSpec("a", 0.0), GpuSpec("b", 0.0)], activity={"b": ((AT, QUIET),)})
    unread, read = (judge_idle_gpu(known, gpu) for gpu in known.gpus)
    assert (unread.verdict, unread.observed, unread.why) == ("phase", False, "its activity could not be read")
    assert read.observed


def test_a_job_without_steps_is_reported_with_all_of_its_idle_gpus() -> None:
    """Its nodes in the order of their names: the same advice from one evaluation to the next."""
    owner = GpuOwner(job="77", user="ada", kind="slurm", started=AT - 90_000)
    uuids = "abcdefgh"
    cards = [GpuSpec(uuid, 0.0, node=f"node-{uuid}") for uuid in reversed(uuids)]
    known = facts(cards, owners=dict.fromkeys(uuids, (owner,)))
    known = with_values(known, {JOB_STEP_TIME: dict.fromkeys(uuids, 0.0)})
    (advice,) = decide(known, Settings()).recommendations
    assert (advice.kind, sorted(advice.gpus), advice.current, advice.recommended) == ("hung_job", [*uuids], 8, 0)
    assert advice.nodes == tuple(f"node-{uuid}" for uuid in uuids)


@pytest.mark.parametrize(("owners", "lines"), [(1, 1), (4, 4), (5, 4), (300, 4)])
def test_the_reasons_of_many_owners_are_few_lines(owners: int, lines: int) -> None:
    cards = [GpuSpec(f"g{number}", 0.0) for number in range(2 * owners)]
    held = {
        card.uuid: (GpuOwner("ml", f"p-{n // 2}", started=AT - 60 * (n // 2 % 25)),) for n, card in enumerate(cards)
    }
    found = [each for each in decide(facts(cards, owners=held), Settings()).abstentions if "left to" in each.message]
    assert len(found) == lines
    assert sorted(uuid for each in found for uuid in each.gpus) == sorted(held)
    assert all(len(each.message) < 300 for each in found)
