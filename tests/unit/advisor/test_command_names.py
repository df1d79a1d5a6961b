"""Names from labels in commands: whatever an exporter says, a command acts on the one thing that it is about."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace

import pytest
from gpu_advisor.evaluation.actions import render
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.evaluation.policies.command_names import NameKind, names_one
from gpu_advisor.evaluation.policies.gpu_commands import drain_node, list_processes
from gpu_advisor.evaluation.policies.owner_actions import owner_actions
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.advisor.builders import GpuSpec, facts

ONE = {
    "cluster": ["east", "prod-eu.1", "arn:aws:eks:eu-west-1:1:cluster/a", "gke_p_z_c"],
    "host": ["node-1", "n1.example.org", "10.0.0.1", "gpu_node", "all-1", "alligator", "ALLOC", "a" * 253],
    "gpu": ["GPU-4c5a-11", "MIG-GPU-1/0/1", "00000000:3b:00.0", "0", "serial~0000:01:00.0", "n1/0"],
    "slurm_job": ["1", "4294967295", "123_4", "123+1"],
    "unit": ["jupyter.service", "user@1000.service", r"dev-x\x2d1.mount", "docker-0ab.scope", "-.mount"[1:]],
}
MANY = {
    "cluster": ["ALL", "all", "a,b", "--all", "-M", "a b", "", "a\n", "a=b"],
    "host": ["ALL", "all", "n[1-9]", "a,b", "--all", "-l", "a b", "a=b", "", ".", "a\n", "\u0430ll", "a" * 254],
    "gpu": ["0,1", "0,1,2,3", "-i", "", "GPU-1 GPU-2", "GPU-*", "GPU-1\n", "$(reboot)", "\u0660"],
    "slurm_job": ["1,2", "123_[1-9]", "123_*", "--me", "-u root", "", "1 2", "all", "1.0", "\u0661", "1\n"],
    "unit": ["*.service", "a?.service", "[ab].service", "-M host", "--all", "a.service b.service", "", "a\n", "a/b"],
}


def table(names: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(kind, name) for kind, found in names.items() for name in found]


@pytest.mark.parametrize(("kind", "name"), [*table(ONE), *table(MANY)])
def test_names_of_one_thing_and_of_several(kind: NameKind, name: str) -> None:
    assert names_one(kind, name) is (name in ONE[kind])


@pytest.mark.parametrize("name", MANY["host"])
def test_no_node_is_drained_by_a_name_that_stands_for_others(name: str) -> None:
    known = facts([GpuSpec("g0", node=name)])
    (gpu,) = known.gpus
    found = list(drain_node(known, gpu, "gpu"))
    assert [action.kind for action in found] == ["note"]
    assert name not in render(found)[0].split() or not name
    ordinary = replace(gpu, node="node-1", cluster="")
    assert render(drain_node(known, ordinary, "gpu lost")) == (
        "kubectl cordon node-1  # then drain it; on Slurm instead:",
        "scontrol update nodename=node-1 state=drain 'reason=gpu lost'",
    )


@pytest.mark.parametrize(
    "owner",
    [
        *(GpuOwner(unit=name) for name in MANY["unit"]),
        *(GpuOwner(job=name, user="ada", kind="slurm") for name in MANY["slurm_job"]),
    ],
)
def test_no_owner_is_stopped_by_a_name_that_stands_for_others(owner: GpuOwner) -> None:
    known = facts([GpuSpec("g0")], owners={"g0": (owner,)})
    lines = render(owner_actions(known, known.gpus))
    words = {word for line in lines for word in shlex.split(line, comments=True)}
    assert not words & {"stop", "scancel", "systemctl", "scontrol"}
    assert lines[0].startswith("# ask " if owner.names else "# find the owner that has node-a GPU 0 and ask ")


@given(st.text(max_size=20))
def test_the_driver_is_asked_about_one_gpu_or_none(uuid: str) -> None:
    known = facts([GpuSpec(uuid or "g")])
    for action in list_processes(known, known.gpus, "x"):
        argv = action.parameters["argv"]
        assert isinstance(argv, tuple)
        assert argv[-1].isascii()
        assert not set(argv[-1]) & set(",*? \n'\"$-") - {"-"}
        assert not argv[-1].startswith("-")


@pytest.mark.parametrize(
    ("parents", "labels", "slices"),
    [
        ((None, None), ["a", "b"], False),
        (("board", None), ["board", "b"], True),
        (("board", "board"), ["board"], True),
    ],
)
def test_of_slices_the_board_is_asked_once(parents: Sequence[str | None], labels: list[str], slices: bool) -> None:
    """The driver lists the processes of whole GPUs."""
    known = facts([GpuSpec("a"), GpuSpec("b")])
    gpus = [replace(gpu, parent=parent or "") for gpu, parent in zip(known.gpus, parents, strict=True)]
    (action,) = list_processes(known, gpus, "which processes?")
    argv = action.parameters["argv"]
    assert isinstance(argv, tuple)
    assert list(argv[4:]) == labels
    assert ("slices" in action.note) == slices
