"""Owners and their teams."""

from __future__ import annotations

import pytest
from gpu_advisor.evaluation.owners import GpuOwner, with_team
from gpu_advisor.observation.owners import owners_from_info
from gpu_advisor.settings import TeamSettings

from tests.unit.advisor.builders import labels

TEAMS = (
    TeamSettings(name="ml", namespaces=["ml-.*"], users=["ada"]),
    TeamSettings(name="vision", accounts=["vis"], namespaces=[".*"]),
)


@pytest.mark.parametrize(
    ("owner", "team"),
    [
        (GpuOwner("ml-train", "p"), "ml"),
        (GpuOwner("xml-train", "p"), "vision"),  # a pattern matches the whole text; the first team wins
        (GpuOwner(user="ada", account="vis"), "ml"),
        (GpuOwner(user="grace", account="vis"), "vision"),
        (GpuOwner(user="grace", account="visual"), ""),
        (GpuOwner(job="7"), ""),  # without a namespace, even `.*` matches none
    ],
)
def test_the_first_team_that_matches(owner: GpuOwner, team: str) -> None:
    found = with_team(owner, TEAMS)
    assert found.team == team
    assert with_team(found, ()) == owner  # settings without teams: none


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"owner_kind": "kubernetes", "owner_namespace": "ml", "owner_pod": "p", "owner_pod_uid": "u"}, "pod ml/p"),
        ({"owner_kind": "kubernetes", "owner_pod_uid": "u"}, "pod with uid u"),
        ({"owner_kind": "kubernetes"}, "an unknown pod"),
        ({"owner_kind": "slurm"}, "an unknown Slurm job"),
        ({"owner_kind": "user", "owner_user": "ada"}, "user ada"),
        ({"owner_kind": "user"}, None),
        ({}, None),
    ],
)
def test_what_a_scheduler_has_allocated_has_an_owner(row: dict[str, str], name: str | None) -> None:
    """A GPU without an owner may be removed: one of a pod without a name must not be."""
    found = owners_from_info({labels(uuid="1", **row): 1.0}, {}, (), frozenset())
    assert [str(owner) for owner in found.get("1", ())] == ([name] if name else [])


def test_containers_and_steps_of_one_owner_are_one_owner() -> None:
    common = {"uuid": "1", "owner_kind": "slurm", "training_job": "7", "owner_account": "vis", "owner_partition": "gpu"}
    first, second = labels(**common, owner_step="0"), labels(**common, owner_step="1")
    (owner,) = owners_from_info({first: 1, second: 1}, {second: 50.0, first: 900.0}, {second}, frozenset())["1"]
    assert (owner.account, owner.partition, owner.started) == ("vis", "gpu", 50.0)
    assert owner.observed_whole_window
