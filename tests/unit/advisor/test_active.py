"""What stays active without being made again: recommendations whose data is missing, and those of a job's turns."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.recommendation import Abstention, Reason, Scope
from gpu_advisor.evaluation.signals import JOB_BATCH_SIZE
from gpu_advisor.settings import Settings
from gpu_advisor.state.active import (
    BATCH_SIZE,
    LINGER_SECONDS,
    MAX_CLOCK_ERROR_SECONDS,
    ActiveRecommendation,
    Snooze,
    active_snoozes,
    stale_ids,
    update_active,
)

from tests.unit.advisor.builders import AT, MODEL, GpuSpec, facts, with_values

POOL, OTHER, JOB, FLEET = Scope("pool", MODEL), Scope("pool", "removed"), Scope("job", "run"), Scope("fleet", "")


def active(scope: Scope, *gpus: str, kind: str = "idle_reclaim") -> ActiveRecommendation:
    return ActiveRecommendation(AT - 60, kind, scope, frozenset(gpus), AT - 15)


def missing(
    scope: Scope, *gpus: str, reason: Reason = Reason.NO_DATA, kinds: tuple[str, ...] = (), resolves: bool = False
) -> Abstention:
    return Abstention(reason, "idle_reclaim", scope, "why", gpus, kinds, resolves=resolves)


@pytest.mark.parametrize(
    ("former", "abstention", "is_target_down", "is_stale"),
    [
        # Its pool is there: what the pool's data says, or lacks, counts.
        (active(POOL, "a"), None, True, False),
        (active(POOL, "a"), missing(POOL), False, True),
        (active(POOL, "a"), missing(OTHER), False, False),
        (active(POOL, "a"), missing(POOL, "a"), False, True),
        (active(POOL, "a"), missing(POOL, "b"), False, False),
        (active(POOL, "a"), missing(POOL, reason=Reason.STALE), False, True),
        (active(POOL, "a"), missing(POOL, reason=Reason.UNSUPPORTED), False, False),
        (active(POOL, "a"), missing(POOL, resolves=True), False, False),
        (active(POOL, "a"), missing(POOL, kinds=("idle_reclaim",)), False, True),
        (active(POOL, "a"), missing(POOL, kinds=("scale_up",)), False, False),
        # A pool's missing data covers its jobs and GPUs, not the pool of other GPUs.
        (active(JOB, "a"), missing(POOL, "a"), False, True),
        (active(OTHER, "a"), missing(POOL, "a"), False, False),
        # Its scope is gone: removed, unless something does not report.
        (active(OTHER, "x"), None, False, False),
        (active(OTHER, "x"), None, True, True),
        (active(OTHER), None, True, True),
        (active(OTHER, "x"), missing(FLEET), False, True),
        (active(OTHER, "a"), None, True, False),  # its GPUs report, from another pool
        (active(OTHER, "a", "x"), None, True, True),
    ],
)
def test_missing_data_resolves_nothing(
    former: ActiveRecommendation, abstention: Abstention | None, is_target_down: bool, is_stale: bool
) -> None:
    known = facts([GpuSpec("a"), GpuSpec("b")], down_targets=("n:1",) if is_target_down else ())
    evaluation = replace(decide(known, Settings()), abstentions=(abstention,) if abstention else ())
    assert stale_ids({"1": former}, frozenset(), evaluation) == (frozenset({"1"}) if is_stale else frozenset())
    assert stale_ids({"1": former}, frozenset({"1"}), evaluation) == frozenset()  # it was made again


def of_job(batch_size: float | None) -> Facts:
    known = facts([GpuSpec("a"), GpuSpec("b")], jobs={"a": "run"})
    return known if batch_size is None else with_values(known, {JOB_BATCH_SIZE: {"a": batch_size}})


@pytest.mark.parametrize(
    ("kind", "scope", "seen", "batch_size", "lingers"),
    [
        ("data_loading", JOB, AT - 600, None, True),
        ("idle_reclaim", JOB, AT - 600, None, False),
        ("data_loading", JOB, AT - LINGER_SECONDS, None, False),
        ("data_loading", Scope("job", "ended"), AT - 600, None, False),
        (BATCH_SIZE, JOB, AT - 600, 32.0, True),
        (BATCH_SIZE, JOB, AT - 600, 64.0, False),  # it was followed
        (BATCH_SIZE, JOB, AT - 600, None, False),
    ],
)
def test_advice_on_a_jobs_work_outlasts_its_turns(
    kind: str, scope: Scope, seen: float, batch_size: float | None, lingers: bool
) -> None:
    former = ActiveRecommendation(AT - 9000, kind, scope, frozenset({"a"}), seen, frozenset({32.0}))
    evaluation = replace(decide(of_job(batch_size), Settings()), abstentions=())
    found = update_active({"1": former}, {}, evaluation)
    assert (found.stale, found.lingering) == (frozenset(), frozenset({"1"}) if lingers else frozenset())
    assert dict(found.active) == ({"1": former} if lingers else {})


@pytest.mark.parametrize(
    ("made", "until", "is_active"),
    [
        (AT - 60, AT + 1, True),
        (AT - 60, AT, False),
        (AT + MAX_CLOCK_ERROR_SECONDS, AT + 9000, True),  # the clock was corrected a little
        (AT + MAX_CLOCK_ERROR_SECONDS + 1, AT + 9000, False),
    ],
)
def test_snoozes_end_and_those_of_a_wrong_clock_do_not_count(made: float, until: float, is_active: bool) -> None:
    snooze = Snooze("later", made, until)
    assert active_snoozes({"1": snooze}, AT) == ({"1": snooze} if is_active else {})
