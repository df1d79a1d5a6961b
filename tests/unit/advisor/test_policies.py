from __future__ import annotations

import dataclasses
import shlex
from typing import Any

import pytest
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.recommendation import Reason
from gpu_advisor.evaluation.signals import JOB_STEP_TIME
from gpu_advisor.settings import Settings
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.advisor.builders import GpuSpec, concluded, facts


def pool_settings(**pool: Any) -> Settings:
    return Settings.model_validate({"pools": [{"name": "p", **pool}]})


def card(index: int, kind: str) -> GpuSpec:
    """A GPU that is busy, idle, or not known well enough."""
    made = GpuSpec(f"GPU-{index}", 0.5, index=str(index))
    if kind == "busy":
        return made
    idle = dataclasses.replace(made, utilization=0.0)
    changes: dict[str, dict[str, Any]] = {
        "idle": {"memory": 0.01},
        "hoarder": {"memory": 0.9},
        "no memory": {"memory": None},
        "down": {"up": False},
        "silent": {"up": None},
        "short": {"coverage": 0.89},
        "no coverage": {"coverage": None},
        "no value": {"utilization": None},
    }
    return dataclasses.replace(idle, **changes[kind])


IDLE = {"idle", "hoarder", "no memory"}
INSUFFICIENT_DATA = {"down", "silent", "short", "no coverage", "no value"}
kinds = st.lists(st.sampled_from(["busy", *sorted(IDLE), *sorted(INSUFFICIENT_DATA)]), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("found", "title"),
    [
        (["idle", "idle", "busy"], ": 2 idle for 30 min"),
        (["idle", "hoarder", "busy"], ": 2 idle for 30 min, memory allocated on 1 of them"),
        (["hoarder", "hoarder", "busy"], ": 2 idle for 30 min, memory allocated"),
        (["hoarder", "hoarder"], ": all idle for 30 min, memory allocated"),
    ],
)
def test_a_title_counts_what_differs(found: list[str], title: str) -> None:
    settings = pool_settings(gpu={"min": 0, "max": 16})
    (advice,) = concluded([card(i, kind) for i, kind in enumerate(found)], settings).recommendations
    assert advice.summary.endswith(title)


@pytest.mark.parametrize(
    ("found", "messages"),
    [
        (["down"], ["1 of 1 GPUs: node-a GPU 0 is down: lost"]),
        (["down"] * 3 + ["busy"], ["3 of 4 GPUs are down: lost"]),
        (["silent"] * 2, ["2 of 2 GPUs stopped reporting: check that their exporter is up"]),
        (["no value"] * 2, ["2 of 2 GPUs: no sample in the window: too early, or the kernel or driver does not support "
                            "it"]),
    ],
)  # fmt: skip
def test_a_reason_of_several_gpus_names_none_of_them(found: list[str], messages: list[str]) -> None:
    cards = [card(i, kind) for i, kind in enumerate(found)]
    settings = pool_settings()
    known = facts(cards, settings, down_reasons={each.uuid: "lost" for each in cards if each.up is False})
    reasons = [each.message for each in decide(known, settings).abstentions if each.subject == "idle_reclaim"]
    assert reasons == messages
    checked = [each.message for each in decide(known, settings).checks if each.scope.kind == "pool" and each.message]
    assert all(("node-a GPU" in each) == (len(found) == 1) for each in checked)


@given(kinds, st.integers(0, 4), st.integers(1, 4))
def test_only_idle_gpus_are_reclaimed_whole_gangs_and_never_below_min(found: list[str], least: int, gang: int) -> None:
    settings = pool_settings(gpus_per_replica=gang, gpu={"min": least, "max": 16})
    results = concluded([card(i, kind) for i, kind in enumerate(found)], settings)
    idle = {f"GPU-{i}" for i, kind in enumerate(found) if kind in IDLE}
    for advice in results.recommendations:
        assert set(advice.gpus) == idle
        given_back = advice.current - advice.recommended
        assert 0 < given_back <= len(idle)
        assert advice.recommended >= least
        assert advice.recommended % gang == 0
        assert all(each.value is not None and each.promql for each in advice.evidence[:1])
    if not results.recommendations:  # nothing to release
        keep = max(least, len(found) - len(idle))
        assert -(-keep // gang) * gang >= len(found)
    about = [each for each in results.abstentions if each.subject == "idle_reclaim"]
    assert any(not each.resolves for each in about) == bool(INSUFFICIENT_DATA & set(found))
    kept = [each for each in about if "and kept" in each.message]
    assert [set(each.gpus) for each in kept] == ([idle] if idle and not results.recommendations else [])


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("down", Reason.NO_DATA),
        ("silent", Reason.STALE),
        ("short", Reason.INSUFFICIENT_HISTORY),
        ("no value", Reason.NO_DATA),
    ],
)
def test_why_idleness_is_unknown(kind: str, reason: Reason) -> None:
    results = concluded([card(0, kind), card(1, "busy")]).abstentions
    (abstention,) = (each for each in results if each.subject == "idle_reclaim")
    assert (abstention.reason, abstention.scope.kind) == (reason, "pool")
    assert abstention.message.startswith("1 of 2 GPUs")


def test_idle_reclaim_says_who_holds_memory_and_what_comes_of_it() -> None:
    settings = Settings.model_validate({"cost": {"gpu_price_per_hour": {"NVIDIA H100": 2.5}}})
    (advice,) = concluded(
        [card(0, "hoarder"), card(1, "idle"), card(2, "busy"), card(3, "idle")], settings
    ).recommendations
    assert (advice.current, advice.recommended, advice.diagnosis) == (4, 1, "idle_holding_memory")
    assert advice.projection.cost_change_per_hour == -7.5
    assert advice.projection.utilization_ratio == pytest.approx(0.5)
    assert "GPU-0" in "\n".join(advice.apply)  # who holds memory is looked for there, and only there
    assert "GPU-1" not in "\n".join(advice.apply)
    (kept,) = concluded([card(0, "idle"), card(1, "idle")]).recommendations
    assert [each.action for each in kept.rejected] == ["wait longer", "release all 2"]


def test_a_job_that_goes_on_beside_its_idle_gpu_is_reported() -> None:
    settings = Settings()
    cards = [card(0, "idle"), card(1, "idle")]
    for share, reported in ((0.6, True), (0.0, False)):
        known = facts(cards, settings, reported_jobs={"GPU-0": "resnet\nrm -r /"})
        known = dataclasses.replace(known, values={**known.values, JOB_STEP_TIME.name: {"GPU-0": share}})
        (advice,) = decide(known, settings).recommendations
        assert ("# resnet?rm -r / reports training steps" in advice.apply[0]) == reported


def test_serving_pools_are_not_reclaimed() -> None:
    assert not concluded([card(0, "idle"), card(1, "idle")], pool_settings(kind="serving")).recommendations


def test_what_is_pasted_into_a_shell_runs_nothing_else() -> None:
    evil = GpuSpec("$(reboot)\n; reboot", 0.0, node="n\nreboot", index="0\rreboot")
    (advice,) = concluded([evil, GpuSpec("b", 0.0)]).recommendations
    commands = [line for line in "\n".join(advice.apply).splitlines() if not line.startswith("#")]
    assert all(line.startswith('sh -c \'for gpu; do nvidia-smi -i "$gpu" ') for line in commands)
    assert [shlex.split(line, comments=True)[-1] for line in commands] == ["b"]  # the other's name is not one of a GPU
