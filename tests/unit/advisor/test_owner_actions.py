"""Advice on owners: ask first; whole, quoted commands; none that ends work where the owner is uncertain."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gpu_advisor
import pytest
from gpu_advisor.evaluation.actions import render
from gpu_advisor.evaluation.owners import Controller, GpuOwner
from gpu_advisor.evaluation.policies.owner_actions import gpus_by_stop_key, holds_only, owner_actions, stops_with
from gpu_advisor.observation.controllers import (
    JOB_OWNERS,
    POD_DELETIONS,
    POD_OWNERS,
    REPLICASET_OWNERS,
    controller_selectors,
    with_controllers,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.advisor.builders import AT, GpuSpec, facts, labels

UID = "0123abcd-4567-89ab-cdef-0123456789ab"
ENDS_WORK = {"scancel", "stop", "scale", "patch", "delete", "kill"}

POD = GpuOwner("ml", "train-5f7d-abcde", started=AT - 9000)
DEPLOYED = replace(POD, controller=Controller("Deployment", "train"))
JOB = GpuOwner(job="123_4", user="ada", kind="slurm", account="vis")
BARE = replace(POD, controller=Controller("", ""))


def lines(owners: dict[str, tuple[GpuOwner, ...]], idle: str = "g0") -> list[str]:
    known = facts([GpuSpec(uuid, index=uuid[1:]) for uuid in sorted({"g0", *owners})], owners=owners)
    return list(render(owner_actions(known, [gpu for gpu in known.gpus if gpu.uuid in idle.split()])))


def verbs(found: list[str]) -> set[str]:
    return {word for line in found for word in shlex.split(line, comments=True)} & ENDS_WORK


@pytest.mark.parametrize(
    ("owner", "command"),
    [
        (DEPLOYED, "kubectl -n ml scale deployment/train --replicas=0"),
        (replace(POD, controller=Controller("StatefulSet", "train")), "scale statefulset/train --replicas=0"),
        (replace(POD, controller=Controller("Job", "train")), "-n ml patch job/train '--patch={"),
        (replace(POD, controller=Controller("PyTorchJob", "train")), "kubectl -n ml describe pytorchjob/train"),
        (BARE, "kubectl -n ml delete pod train-5f7d-abcde"),
        (POD, "kubectl -n ml get pod train-5f7d-abcde"),  # the controller is unknown: only a look
        (replace(DEPLOYED, deletion_due=AT - 3600), "kubectl -n ml describe pod train-5f7d-abcde"),
        (replace(BARE, deletion_due=AT - 3600), "kubectl -n ml describe pod train-5f7d-abcde"),
        (JOB, "scancel 123_4"),
        (GpuOwner(unit="jupyter.service"), "systemctl stop jupyter.service"),
        (GpuOwner(unit="user@1000.service"), "systemctl status user@1000.service"),
        (GpuOwner(user="ada"), "ps -o pid,user,lstart,args"),
        (
            GpuOwner(kind="kubernetes", pod_uid=UID),
            f'kubectl get pods -A \'-o=jsonpath={{range .items[?(@.metadata.uid=="{UID}"',
        ),
        (GpuOwner(kind="kubernetes", pod_uid=f'{UID}")]}}'), "ps -o pid,user,lstart,args"),
        (GpuOwner(kind="kubernetes"), "ps -o pid,user,lstart,args"),
        (GpuOwner(kind="slurm"), "ps -o pid,user,lstart,args"),
        (GpuOwner("ml", "train; rm -rf /"), "'train; rm -rf /'"),
    ],
)
def test_ask_first_then_a_whole_command(owner: GpuOwner, command: str) -> None:
    first, *others = lines({"g0": (owner,)})
    begins = "# ask " if owner.names else "# find the "
    assert first.startswith(begins if owner.deletion_due is None else f"# {owner} was to end by ")
    assert command in others[-1]
    assert bool(verbs(others)) == bool(ENDS_WORK & set(command.split()))


@pytest.mark.parametrize(("count", "names"), [(1, 1), (3, 3), (4, 3), (9, 3)])
def test_asking_names_the_first_gpus(count: int, names: int) -> None:
    uuids = [f"g{k}" for k in range(count)]
    asked = lines(dict.fromkeys(uuids, (POD,)), " ".join(uuids))[0]
    assert asked.count("node-a GPU ") == names
    assert asked.endswith(", ...?") == (count > names)


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (POD, {"pod ml/train-5f7d-abcde", "ml/train-5f7d-abcde", "train-5f7d-abcde"}),
        (GpuOwner(pod="train"), {"pod train", "train"}),
        (JOB, {"job 123_4 of ada", "123_4", "ada"}),
        (replace(JOB, cluster="c"), {"job 123_4 of ada in c", "job 123_4 of ada", "123_4", "ada"}),
        (GpuOwner(kind="slurm"), set()),
    ],
)
def test_names_that_people_call_an_owner(owner: GpuOwner, names: set[str]) -> None:
    assert owner.names == names


def test_asking_names_team_and_arrival() -> None:
    asked = lines({"g0": (replace(POD, team="vision"),)})[0]
    assert asked == (
        "# ask pod ml/train-5f7d-abcde of team vision first, running since 2027-01-15 05:30 UTC: does it still need "
        "node-a GPU 0?"
    )
    assert lines({"g0": (JOB,)})[0] == "# ask job 123_4 of ada of account vis first: does it still need node-a GPU 0?"


@pytest.mark.parametrize("owner", [DEPLOYED, BARE, JOB, GpuOwner(unit="jupyter.service")])
@pytest.mark.parametrize(
    "owners",
    [
        lambda owner: {"g0": (owner, GpuOwner(user="bob"))},  # shared
        lambda owner: {"g0": (owner,), "g1": (owner,)},  # one of its GPUs is busy
        lambda owner: {"g0": (owner,), "g1": (replace(owner, started=AT, controller=None),)},  # dated differently
    ],
)
def test_nothing_ends_work_where_the_owner_has_or_shares_other_gpus(
    owner: GpuOwner, owners: Callable[[GpuOwner], dict[str, tuple[GpuOwner, ...]]]
) -> None:
    held = owners(owner)
    assert not verbs(lines(held))
    assert verbs(lines({"g0": (owner,)}))
    if "g1" in held:
        assert verbs(lines(held, "g0 g1"))  # all of its GPUs are idle


def test_a_controller_with_a_busy_pod_is_left_alone() -> None:
    sibling = replace(POD, pod="train-5f7d-zzzzz")
    assert not verbs(lines({"g0": (DEPLOYED,), "g1": (sibling,)}))
    assert verbs(lines({"g0": (DEPLOYED,), "g1": (replace(sibling, namespace="vision"),)}))


OWNERS = st.builds(
    GpuOwner,
    *[st.text(max_size=8)] * 6,
    st.sampled_from(["", "slurm", "kubernetes"]),
    controller=st.none() | st.builds(Controller, st.sampled_from(["", "Job", "X"]), st.text(max_size=8)),
)


@given(OWNERS)
def test_a_name_is_one_argument_and_never_an_option(owner: GpuOwner) -> None:
    known = facts([GpuSpec("g0")], owners={"g0": (owner,)})
    names = {owner.namespace, owner.pod, owner.job, owner.unit, *(owner.controller or ())}
    for action in owner_actions(known, known.gpus):
        argv = action.parameters.get("argv", ())
        assert isinstance(argv, tuple)
        (line,) = render([action])
        assert "\n" not in line
        assert not [word for word in argv if word.startswith("-") and word in names]
        assert all(word == word.replace("\n", "") or shlex.quote(word) != word for word in argv)


def test_no_placeholder_where_the_value_is_known() -> None:
    folder = Path(gpu_advisor.__file__).parent / "evaluation" / "policies"
    found = {
        node.value
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        and re.search(r"\b(INDEX|UUID|PID|NODE|WATTS|[A-Z]+_WATTS)\b", node.value)
    }  # fmt: skip
    assert found == set()


def owner_row(name: str, value: str, kind: str, owner: str, **more: str) -> tuple[tuple[str, str], ...]:
    return labels(**{name: value}, namespace="ml", owner_kind=kind, owner_name=owner, **more)


@pytest.mark.parametrize(
    ("pods", "sets", "expected"),
    [
        ([owner_row("pod", POD.pod, "ReplicaSet", "train-5f7d")],
         [owner_row("replicaset", "train-5f7d", "Deployment", "train")], Controller("Deployment", "train")),
        ([owner_row("pod", POD.pod, "ReplicaSet", "train-5f7d")],
         [owner_row("replicaset", "train-5f7d", "<none>", "<none>")], Controller("ReplicaSet", "train-5f7d")),
        ([owner_row("pod", POD.pod, "ReplicaSet", "train-5f7d")], [], None),  # a Deployment would undo it
        ([owner_row("pod", POD.pod, "Job", "train")], [owner_row("job_name", "train", "", "")],
         Controller("Job", "train")),
        ([owner_row("pod", POD.pod, "Job", "train")], [owner_row("job_name", "train", "CronJob", "nightly")],
         Controller("Job", "train")),  # suspending this run lasts
        ([owner_row("pod", POD.pod, "Job", "train")], [owner_row("job_name", "train", "JobSet", "train")],
         Controller("JobSet", "train")),  # which would resume it
        ([owner_row("pod", POD.pod, "Job", "train")], [], None),  # Volcano's, not that of `batch`
        ([owner_row("pod", POD.pod, "RayCluster", "train")], [], Controller("RayCluster", "train")),
        ([owner_row("pod", POD.pod, "", "")], [], Controller("", "")),
        ([owner_row("pod", POD.pod, "Job", "train", owner_is_controller="false")], [], None),
        ([owner_row("pod", POD.pod, "Job", "a"), owner_row("pod", POD.pod, "Job", "b")], [], None),  # two clusters
        ([], [], None),
    ],
)  # fmt: skip
def test_controllers_of_pods(
    pods: list[tuple[tuple[str, str], ...]], sets: list[tuple[tuple[str, str], ...]], expected: Controller | None
) -> None:
    results = {
        POD_OWNERS: dict.fromkeys(pods, 1.0),
        REPLICASET_OWNERS: {row: 1.0 for row in sets if "replicaset" in dict(row)},
        JOB_OWNERS: {row: 1.0 for row in sets if "job_name" in dict(row)},
    }
    ((owner,),) = with_controllers({"g0": (POD,)}, results).values()
    assert owner.controller == expected
    assert owner.identity == POD.identity
    assert set(controller_selectors([POD, JOB])) == {*results, POD_DELETIONS}
    assert controller_selectors([JOB]) == {}


def test_the_deletion_of_a_pod_is_due_at_its_latest_time() -> None:
    """Of pods of one name in two clusters, none is stopped by a command while one is being deleted."""
    east, west = (labels(namespace="ml", pod=POD.pod, cluster=cluster) for cluster in ("east", "west"))
    other = replace(POD, namespace="vision")
    found = with_controllers({"g0": (POD, other)}, {POD_DELETIONS: {east: AT - 50, west: AT - 20}})["g0"]
    assert [owner.deletion_due for owner in found] == [AT - 20, None]
    assert found[0].identity == POD.identity


def test_jobs_are_looked_up_by_the_names_that_their_pods_may_have() -> None:
    (matcher,) = controller_selectors([replace(POD, pod="train-2-xk4b9")])[JOB_OWNERS].matchers
    assert (matcher.label, set(matcher.value.split("|"))) == ("job_name", {"train-2", "train"})  # an indexed Job's


@pytest.mark.parametrize(
    ("owner", "cancelled"),
    [
        (GpuOwner(job="36", kind="slurm", user="ada", partition="a100"), "36"),
        # The last task of an array has the array's number: cancelling it would end all of its tasks.
        (GpuOwner(job="36", kind="slurm", partition="a100", array_task="36_3"), "36_3"),
        (GpuOwner(job="37", kind="slurm", partition="a100", array_task="36_1"), "36_1"),
        (GpuOwner(job="51", kind="slurm", partition="a100", array_task="50+1"), "50+1"),
        (GpuOwner(job="50", kind="slurm", partition="a100", array_task="50+0"), None),  # would end all components
        (GpuOwner(job="36", kind="slurm", user="ada"), None),  # may be an array's
        (GpuOwner(job="36", kind="slurm", partition="a100", array_task="36_[3-9]"), None),
    ],
)
def test_slurm_cancels_this_job_and_no_other(owner: GpuOwner, cancelled: str | None) -> None:
    _, look, *ends = lines({"g0": (owner,)})
    assert f"scontrol show job {owner.job}" in look
    assert [shlex.split(line, comments=True)[-1] for line in ends if "scancel" in line] == [cancelled] * bool(cancelled)


def test_a_pod_is_one_owner_whichever_of_its_containers_hold_gpus() -> None:
    server, sidecar = replace(BARE, container="server"), replace(BARE, container="sidecar")
    asked, *others = lines({"g0": (server, sidecar)})
    assert asked.endswith("does it still need node-a GPU 0?")
    assert verbs(others) == {"delete"}
    assert len(others) == 1
    assert not verbs(lines({"g0": (server,), "g1": (sidecar,)}))  # the other container is busy


NAMES = st.sampled_from(["a", "a-b", "a-b-c", "ab", "b", ""])
ANY_OWNERS = st.builds(
    GpuOwner, namespace=st.sampled_from(["", "n"]), pod=NAMES, user=st.sampled_from(["", "u"]),
    controller=st.one_of(st.none(), st.builds(Controller, st.just("Job"), NAMES)),
)  # fmt: skip


@given(st.lists(st.lists(ANY_OWNERS, max_size=3), max_size=5), st.integers(0, 31))
def test_who_is_stopped_is_found_by_key_as_by_comparing_all(held: list[list[GpuOwner]], chosen: int) -> None:
    owners = {f"g{n}": tuple(each) for n, each in enumerate(held)}
    gpus = {uuid for n, uuid in enumerate(owners) if chosen >> n & 1}
    keys = gpus_by_stop_key(owners)
    for owner in {each for some in held for each in some}:
        stopped = [some for some in owners.items() if any(stops_with(each, owner) for each in some[1])]
        certain = all(uuid in gpus and all(stops_with(each, owner) for each in some) for uuid, some in stopped)
        assert holds_only(owners, keys, owner, gpus) is certain
