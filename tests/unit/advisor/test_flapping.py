"""Advice on work in turns begins at most once in two hours, and lasting idleness is found soon."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from gpu_advisor.evaluation.diagnosis.idle_owner import HOLD_OFF_SECONDS, PAUSE_FACTOR, judge_idle_gpu
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.evaluation.policies import KINDS
from gpu_advisor.evaluation.recommendation import Abstention, Reason, Scope
from gpu_advisor.settings import Settings
from gpu_advisor.state.active import LINGER_SECONDS, LINGERING_KINDS, ActiveRecommendation, update_active
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.alternation import HOUR, Alternation, most_within
from tests.unit.advisor.builders import AT, GpuSpec, concluded, facts

STEP, ROUND = 300.0, 150.0
SETTINGS = Settings()
WINDOW = float(SETTINGS.evaluation.idle_window_seconds)
KNOWN = facts([GpuSpec("g", 0.0)])
TURNS = st.builds(Alternation, st.floats(120, 7200), st.floats(0.05, 0.95), st.floats(0, 1))


def rounds(hours: float) -> Iterator[float]:
    return (ROUND * n for n in range(int(WINDOW / ROUND) + 1, int(hours * HOUR / ROUND)))


def reclaimed(work: Alternation, now: float) -> bool:
    """Whether the GPU is to be released `now` seconds after its owner came, by all that is recorded of it."""
    if work.busy_share(now, WINDOW) >= SETTINGS.evaluation.idle_utilization / 100:
        return False
    ends = [STEP * n for n in range(1, int(now / STEP) + 1)] + [now]
    activity = tuple((AT - now + end, work.busy_share(end, STEP)) for end in ends)
    owner = GpuOwner("ml", "p", started=AT - now)
    known = replace(KNOWN, activity={"g": activity}, activity_step_seconds=STEP, owners={"g": (owner,)})
    return judge_idle_gpu(known, known.gpus[0]).verdict == "reclaim"


def beginnings(present: Callable[[float], bool], hours: float) -> list[float]:
    found, before = [], False
    for now in rounds(hours):
        here = present(now)
        if here and not before:
            found.append(now)
        before = here
    return found


@examples(max_examples=40, deadline=None)
@given(TURNS)
def test_reclaim_begins_at_most_once_in_two_hours(work: Alternation) -> None:
    assert most_within(beginnings(lambda now: reclaimed(work, now), 10), 2 * HOUR) <= 1


@examples(max_examples=25, deadline=None)
@given(TURNS, st.floats(2.5, 6))
def test_lasting_idleness_is_found_within_the_window_and_ten_minutes(work: Alternation, stops: float) -> None:
    """Later only by what the owner's own pauses, or the time after one, ask for."""
    pause = work.period * (1 - work.duty)
    last = replace(work, stops=stops * HOUR)
    needed = WINDOW + 600
    if pause >= WINDOW - STEP:
        needed = max(needed, PAUSE_FACTOR * (pause + STEP) + STEP + 600, HOLD_OFF_SECONDS + 600)
    elif pause > 0:
        needed = max(needed, PAUSE_FACTOR * (pause + STEP) + STEP + 600)
    assert reclaimed(last, stops * HOUR + needed)


def test_reclaim_ends_at_the_first_evaluation_that_sees_work() -> None:
    work = Alternation(5 * HOUR, 0.5, 0.5)  # two hours and a half of each, a pause first
    first = 2.5 * HOUR
    assert reclaimed(work, first)
    assert not any(reclaimed(work, first + ROUND * n) for n in range(1, 60))


# Other advice

JOB = Scope("job", "llm")
ADVICE = replace(
    concluded([GpuSpec("g", 0.0), GpuSpec("h", 0.0)]).recommendations[0], kind="data_loading", scope=JOB, gpus=("g",)
)
OWNED = replace(KNOWN, owners={"g": (GpuOwner("ml", "p", started=AT - 9000),)}, reported_jobs={"g": "llm"})


def evaluation(now: float, known: Facts = OWNED, abstentions: tuple[Abstention, ...] = ()) -> Evaluation:
    return Evaluation(AT + now, replace(known, at=AT + now), (), (), (), abstentions)


def is_active(before: Mapping[str, ActiveRecommendation], now: float, made: bool, **more: Any) -> dict[str, Any]:
    found = update_active(before, {"id": ADVICE} if made else {}, evaluation(now, **more))
    return dict(found.active)


@examples(max_examples=60, deadline=None)
@given(TURNS, st.floats(0.02, 0.9))
def test_advice_on_work_in_turns_begins_at_most_once_in_two_hours(work: Alternation, limit: float) -> None:
    active: dict[str, Any] = {}

    def present(now: float) -> bool:
        nonlocal active
        active = is_active(active, now, made=work.busy_share(now, WINDOW) > limit)
        return bool(active)

    assert most_within(beginnings(present, 12), 2 * HOUR) <= 1


GONE = replace(OWNED, reported_jobs={})
RESTARTED = replace(OWNED, owners={"g": (GpuOwner("ml", "p", started=AT + 600),)})


@pytest.mark.parametrize(
    ("known", "after", "stays"),
    [
        (OWNED, 900.0, True),
        (OWNED, LINGER_SECONDS - 1.0, True),
        (OWNED, LINGER_SECONDS + 0.0, False),
        (GONE, 900.0, False),  # the job ended
        (RESTARTED, 900.0, False),  # it was changed, and started again
        (replace(OWNED, gpus=()), 900.0, False),
    ],
)
def test_advice_ends_with_its_job_and_after_two_hours_without_its_cause(
    known: Facts, after: float, stays: bool
) -> None:
    before = is_active({}, 0.0, made=True)
    assert bool(is_active(before, after, made=False, known=known)) == stays


def test_no_time_passes_while_data_is_missing() -> None:
    blind = (Abstention(Reason.NO_DATA, "x", JOB, "", ("g",)),)
    active = is_active({}, 0.0, made=True)
    for hour in range(1, 10):
        active = is_active(active, hour * HOUR, made=False, abstentions=blind)
        assert active
    assert is_active(active, 9 * HOUR + 60, made=False)
    assert not is_active(active, 12 * HOUR, made=False)


def test_what_has_a_past_of_its_own_does_not_linger() -> None:
    assert set(KINDS) - LINGERING_KINDS >= {"idle_reclaim", "hung_job", "scale_up", "scale_down", "lost_gpu"}
    assert set(KINDS) >= LINGERING_KINDS
