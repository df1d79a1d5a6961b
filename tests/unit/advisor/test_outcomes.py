"""What became of advice, as tables and properties over the pure functions."""

from __future__ import annotations

import pytest
from gpu_advisor.evaluation.recommendation import Scope
from gpu_advisor.state.outcomes import (
    NO_OUTCOMES,
    ClosedRecommendation,
    OutcomeResult,
    Outcomes,
    TrackedRecommendation,
    UtilizationSnapshot,
    close_ended,
    judge_settled,
)
from gpu_advisor.state.sizes import PoolSize
from hypothesis import given
from hypothesis import strategies as st

AT, SETTLE = 1_800_000_000.0, 900.0
SCOPE = Scope("pool", "p")
POOL: tuple[str, str] = (SCOPE.kind, SCOPE.name)


def tracked(
    current: float, recommended: float, direction: str = "up", id_: str = "1", unit: str = "replicas"
) -> TrackedRecommendation:
    return TrackedRecommendation(id_, "scale", direction, SCOPE, unit, AT, current, recommended, 0.5, 0.7)


def observe(at: float, replicas: float | None, utilization: float | None) -> UtilizationSnapshot:
    sizes = {} if replicas is None else {POOL: {"replicas": PoolSize(replicas, replicas)}}
    return UtilizationSnapshot(at, {} if utilization is None else {POOL: utilization}, sizes)


@pytest.mark.parametrize(
    ("current", "recommended", "found", "result"),
    [
        (2, 4, 4, OutcomeResult.APPLIED),
        (2, 4, 5, OutcomeResult.APPLIED),
        (2, 4, 3, OutcomeResult.PARTLY_APPLIED),
        (2, 4, 2, OutcomeResult.CAUSE_GONE),
        (2, 4, 1, OutcomeResult.NOT_APPLIED),
        (4, 2, 2, OutcomeResult.APPLIED),
        (4, 2, 1, OutcomeResult.APPLIED),
        (4, 2, 3, OutcomeResult.PARTLY_APPLIED),
        (4, 2, 5, OutcomeResult.NOT_APPLIED),
        (4, 0, None, OutcomeResult.APPLIED),  # all were given back, and the pool with them
    ],
)
def test_results(current: float, recommended: float, found: float | None, result: OutcomeResult) -> None:
    direction = "up" if recommended > current else "down"
    left, closed = close_ended(
        {"1": tracked(current, recommended, direction)}, (), frozenset(), observe(AT, found, 0.7)
    )
    assert left == {}
    waiting, (outcome,) = judge_settled(closed, observe(AT + SETTLE, found, 0.7), SETTLE)
    assert (waiting, outcome.result) == ((), result)
    right_size = (found or 0) == recommended
    assert (outcome.error_ratio is not None) == right_size
    assert outcome.error_ratio is None or outcome.error_ratio == pytest.approx(0)


@pytest.mark.parametrize(
    ("current", "recommended", "found", "observed", "improved"),
    [
        (2, 4, 4, 0.4, True),
        (2, 4, 3, 0.4, True),
        (2, 4, 4, 0.49, False),
        (2, 4, 4, 0.6, False),
        (4, 2, 2, 0.6, True),
        (4, 2, 2, 0.51, False),
        (4, 2, 2, None, None),
        (2, 4, 2, 0.4, None),  # demand fell by itself
        (4, 2, 4, 0.6, None),  # demand rose by itself
        (4, 2, 5, 0.6, None),  # it grew instead
    ],
)
def test_a_resize_that_was_recommended_relieves_what_grows_and_uses_what_shrinks(
    current: float, recommended: float, found: float, observed: float | None, improved: bool | None
) -> None:
    direction = "up" if recommended > current else "down"
    closed = ClosedRecommendation(tracked(current, recommended, direction), AT, found)
    _, (outcome,) = judge_settled([closed], observe(AT + 10 * SETTLE, found, observed), SETTLE)
    assert outcome.improved is improved


@pytest.mark.parametrize("observed", [0.4, 0.6])
def test_the_utilization_of_its_scope_shows_nothing_of_what_is_no_resize(observed: float) -> None:
    closed = ClosedRecommendation(tracked(2, 2, "change", unit="workers"), AT, None)
    _, (outcome,) = judge_settled([closed], observe(AT + 10 * SETTLE, 2, observed), SETTLE)
    assert (outcome.result, outcome.improved) == (OutcomeResult.CAUSE_GONE, None)


def test_a_size_that_changed_again_leaves_no_utilization_to_judge_by() -> None:
    closed = ClosedRecommendation(tracked(2, 4), AT, 4.0)
    _, (outcome,) = judge_settled([closed], observe(AT + SETTLE, 6, 0.7), SETTLE)
    assert (outcome.result, outcome.improved, outcome.error_ratio) == (OutcomeResult.APPLIED, None, None)


def test_while_the_scope_is_out_of_sight_the_judgement_waits_but_not_for_ever() -> None:
    closed = ClosedRecommendation(tracked(2, 4), AT, 4.0)
    assert judge_settled([closed], observe(AT + 3 * SETTLE, 4, None), SETTLE) == ((closed,), ())
    _, (outcome,) = judge_settled([closed], observe(AT + 4 * SETTLE, 4, None), SETTLE)
    assert (outcome.utilization_ratio, outcome.improved, outcome.error_ratio) == (None, None, None)


def test_advice_that_goes_on_after_a_change_of_size_closes_one_promise_and_makes_another() -> None:
    first, second = tracked(2, 4), tracked(4, 6)
    left, (closed,) = close_ended({"1": first}, [second], frozenset(), observe(AT + 60, 4, 0.9))
    assert left == {"1": second}
    assert (closed.tracked, closed.size) == (first, 4)


def test_while_advice_stays_the_same_its_first_promise_counts() -> None:
    later = TrackedRecommendation("1", "scale", "up", SCOPE, "replicas", AT, 2, 4, 0.9, 0.6)
    assert close_ended({"1": tracked(2, 4)}, [later], frozenset(), observe(AT, 2, 0.9)) == ({"1": tracked(2, 4)}, ())
    more = TrackedRecommendation("1", "scale", "up", SCOPE, "replicas", AT + 99, 2, 5, 0.9, 0.6)
    left, closed = close_ended({"1": tracked(2, 4)}, [more], frozenset(), observe(AT, 2, 0.9))
    assert (left["1"].recommended, left["1"].given, closed) == (5, AT, ())


@given(st.sets(st.sampled_from("abcd")), st.sets(st.sampled_from("abcd")), st.sets(st.sampled_from("abcd")))
def test_every_promise_is_kept_or_closed_and_what_is_stale_never_closes(
    before: set[str], made: set[str], unconfirmed: set[str]
) -> None:
    unconfirmed -= made
    open_ = {id_: tracked(2, 4, id_=id_) for id_ in before}
    left, closed = close_ended(
        open_, [tracked(2, 4, id_=id_) for id_ in made], frozenset(unconfirmed), observe(AT, 2, 0.9)
    )
    assert {each.tracked.id for each in closed} == before - made - unconfirmed
    assert set(left) == made | (before & unconfirmed)


def test_counts_go_on_beyond_the_list() -> None:
    found: Outcomes = NO_OUTCOMES
    for _ in range(3):
        _, judged = judge_settled(
            [ClosedRecommendation(tracked(2, 4), AT, 4.0)] * 500, observe(AT + SETTLE, 4, 0.6), SETTLE
        )
        found = found.with_added(judged)
    assert len(found.recent) == 1000
    assert found.counts == {("scale", "applied"): 1500}
    assert found.errors["scale"][0] == 1500
    assert found.errors["scale"][1] == pytest.approx(150)
