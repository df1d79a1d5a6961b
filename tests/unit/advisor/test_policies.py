from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence

import pytest
from gpu_advisor.policies.scale import Limits, Point, size
from gpu_advisor.recommendation import Reason, Recommendation, Scope
from gpu_advisor.settings import Evaluation, Settings
from hypothesis import given
from hypothesis import strategies as st

from .build import AT, Card, concluded

EVALUATION = Evaluation()
STEP = EVALUATION.step_seconds

# Idle reclaim


def pool_settings(**pool: object) -> Settings:
    return Settings.model_validate({"pools": [{"name": "p", **pool}]})


def card(index: int, kind: str) -> Card:
    """A GPU that is busy, idle, or of which too little is known to tell."""
    made = Card(f"GPU-{index}", 0.5, index=str(index))
    if kind == "busy":
        return made
    idle = dataclasses.replace(made, utilization=0.0)
    changes: dict[str, dict[str, object]] = {
        "idle": {"memory": 0.01},
        "hoarder": {"memory": 0.9},
        "no memory": {"memory": None},
        "down": {"up": False},
        "silent": {"up": None},
        "short": {"coverage": 0.89},
        "no coverage": {"coverage": None},
        "no value": {"utilization": None},
    }
    return dataclasses.replace(idle, **changes[kind])  # type: ignore[arg-type]


IDLE = {"idle", "hoarder", "no memory"}
UNTOLD = {"down", "silent", "short", "no coverage", "no value"}
kinds = st.lists(st.sampled_from(["busy", *sorted(IDLE), *sorted(UNTOLD)]), min_size=1, max_size=12)


@given(kinds, st.integers(0, 4), st.integers(1, 4))
def test_only_idle_gpus_are_reclaimed_whole_gangs_and_never_below_min(found: list[str], least: int, gang: int) -> None:
    settings = pool_settings(gpus_per_replica=gang, gpu={"min": least, "max": 16})
    said = concluded([card(i, kind) for i, kind in enumerate(found)], settings)
    idle = {f"GPU-{i}" for i, kind in enumerate(found) if kind in IDLE}
    for advice in said.recommendations:
        assert set(advice.gpus) == idle
        given_back = advice.current - advice.recommended
        assert 0 < given_back <= len(idle)
        assert advice.recommended >= least
        assert advice.recommended % gang == 0
        assert all(each.value is not None and each.promql for each in advice.evidence[:1])
    if not said.recommendations:  # then there was nothing that could be given back
        keep = max(least, len(found) - len(idle))
        assert -(-keep // gang) * gang >= len(found)
    assert any(word.subject == "idle_reclaim" for word in said.abstentions) == bool(UNTOLD & set(found))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("down", Reason.NO_DATA),
        ("silent", Reason.STALE),
        ("short", Reason.INSUFFICIENT_HISTORY),
        ("no value", Reason.NO_DATA),
    ],
)
def test_why_idleness_cannot_be_told(kind: str, reason: Reason) -> None:
    said = concluded([card(0, kind), card(1, "busy")]).abstentions
    (word,) = (each for each in said if each.subject == "idle_reclaim")
    assert (word.reason, word.scope.kind) == (reason, "pool")
    assert word.message.startswith("1 of 2 GPUs")


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
    assert [each.action for each in kept.rejected] == ["wait longer", "give back all 2"]


def test_serving_pools_are_not_reclaimed() -> None:
    assert not concluded([card(0, "idle"), card(1, "idle")], pool_settings(kind="serving")).recommendations


def test_what_is_pasted_into_a_shell_runs_nothing_else() -> None:
    evil = Card("$(reboot)\n; reboot", 0.0, node="n\nreboot", index="0\rreboot")
    (advice,) = concluded([evil, Card("b", 0.0)]).recommendations
    for line in "\n".join(advice.apply).splitlines():
        assert line.startswith(("#", "nvidia-smi "))
    assert shlex.split(advice.apply[1])[2] == "$(reboot)?; reboot"


# Scaling


def trail(values: Sequence[float | None], gpus: int = 4, at: float = AT) -> tuple[Point, ...]:
    """Points a step apart, the last at `at`; None is a point that is missing."""
    first = at - STEP * (len(values) - 1)
    return tuple(Point(first + STEP * i, gpus, value) for i, value in enumerate(values) if value is not None)


def limits(least: int = 1, most: int = 8, per_replica: int = 1) -> Limits:
    return Limits(least, most, up=0.85, down=0.60, per_replica=per_replica)


utilizations = st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=20)
LEVEL = st.sampled_from([0.0, 0.3, 0.59, 0.7, 0.86, 0.97, 1.0])
#: Loads that last, so that both directions come about often.
loads = st.lists(st.tuples(LEVEL, st.integers(1, 20)), min_size=1, max_size=4).map(
    lambda parts: [value for value, count in parts for _ in range(count)]
)


@given(utilizations | loads, st.integers(1, 12), st.integers(1, 4), st.integers(0, 8), st.integers(1, 3))
def test_limits_and_projection_hold(values: list[float | None], replicas: int, least: int, more: int, per: int) -> None:
    most = least + more
    found = size(trail(values, replicas * per), replicas, limits(least, most, per), EVALUATION, AT)
    if found.replicas > replicas:
        assert found.replicas <= most
    if found.replicas < replicas:
        assert found.replicas >= least
        assert found.basis is not None
        assert found.basis * replicas / found.replicas < 0.85
        assert found.basis >= max(value for value in values[-16:] if value is not None)  # nothing there was higher
    if found.reason:
        assert found.replicas == replicas


@given(loads, st.data())
def test_missing_points_and_gpus_never_make_a_pool_smaller(values: list[float], data: st.DataObject) -> None:
    """Whatever is taken away from the trail, no smaller size comes out than from the whole of it."""
    whole = trail(values)
    there = size(whole, 4, limits(), EVALUATION, AT).replicas
    kept = tuple(
        dataclasses.replace(point, gpus=heard, utilization=0.0 if heard < 4 else point.utilization)
        for point in whole
        for heard in [data.draw(st.sampled_from([0, 1, 3, 4, 4, 4, 4]))]
        if heard
    )
    for cooldown in (60, 600):
        evaluation = EVALUATION.model_copy(update={"cooldown_seconds": cooldown})
        assert size(kept, 4, limits(), evaluation, AT).replicas >= min(there, 4)


@given(loads, st.integers(1, EVALUATION.cooldown_seconds // STEP), st.data())
def test_more_data_does_not_turn_growth_into_its_reverse_within_the_cooldown(
    values: list[float], steps: int, data: st.DataObject
) -> None:
    before = size(trail(values), 4, limits(), EVALUATION, AT).replicas
    later = values + data.draw(st.lists(LEVEL, min_size=steps, max_size=steps))
    after = size(trail(later, at=AT + steps * STEP), 4, limits(), EVALUATION, AT + steps * STEP).replicas
    assert not (before > 4 and after < 4)


@pytest.mark.parametrize(
    ("values", "replicas", "expected"),
    [
        ([0.95] * 4, 1, 2),  # not blocked by 48 % being below the lower threshold
        ([0.95] * 4, 8, 8),  # at its limit
        ([0.86] * 16, 4, 5),
        ([0.85] * 16, 4, 4),  # at the edge it stays
        ([1.0] * 4, 4, 6),  # saturated: by half of itself
        ([1.0] * 4, 1, 2),
        ([0.2] * 17 + [0.95] * 2, 4, 4),  # a peak is not a load
        ([0.95] * 17 + [0.2] * 2, 4, 4),
        ([0.2] * 16, 4, 1),
        ([0.5] * 16, 4, 3),  # two replicas would be at 100 %
        ([0.2] * 4, 4, 4),  # not for long enough
        ([0.2] * 15 + [0.61], 4, 4),
        ([], 4, 4),
    ],
)
def test_sizes(values: list[float | None], replicas: int, expected: int) -> None:
    assert size(trail(values, replicas), replicas, limits(), EVALUATION, AT).replicas == expected


def test_a_step_is_not_followed_by_another_before_its_effect_is_seen() -> None:
    grown = trail([1.0] * 5, 2, AT - STEP) + trail([1.0], 3)
    assert size(grown, 3, limits(), EVALUATION, AT).reason is Reason.INSUFFICIENT_HISTORY
    assert size(grown[:-1], 2, limits(), EVALUATION, AT - STEP).replicas == 3


@pytest.mark.parametrize(("cooldown", "replicas"), [(600, 1), (1200, 4)])
def test_a_pool_that_grew_does_not_shrink_within_the_cooldown(cooldown: int, replicas: int) -> None:
    grown = trail([0.3] * 3, 2, AT - 16 * STEP) + trail([0.1] * 16)
    evaluation = EVALUATION.model_copy(update={"cooldown_seconds": cooldown})
    found = size(grown, 4, limits(), evaluation, AT)
    assert found.replicas == replicas
    assert ("cool-down" in found.why) == (replicas == 4)


def serving(cards: list[Card], **pool: object) -> tuple[list[Recommendation], dict[str, Reason], dict[str, int]]:
    said = concluded(cards, pool_settings(kind="serving", gpu={"min": 1, "max": 16}, **pool))
    return list(said.recommendations), {w.subject: w.reason for w in said.abstentions}, dict(said.desired_replicas)


def served(count: int, value: float, **change: object) -> list[Card]:
    points = tuple((AT - STEP * i, value) for i in reversed(range(16)))
    return [Card(f"GPU-{i}", value, trail=points, **change) for i in range(count)]  # type: ignore[arg-type]


def test_gangs_scale_by_whole_replicas() -> None:
    (advice,), words, desired = serving(served(8, 0.95), gpus_per_replica=4)
    assert (advice.kind, advice.current, advice.recommended) == ("scale_up", 2, 3)
    assert desired == {"p": 3}
    assert not words
    (down,), _, desired = serving(served(8, 0.1), gpus_per_replica=4)
    assert (down.kind, down.recommended, desired) == ("scale_down", 1, {"p": 1})
    assert serving(served(2, 0.95), gpus_per_replica=4) == ([], {"scale": Reason.CONFLICTING}, {})


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (Card("GPU-x", None, up=None), Reason.STALE),
        (Card("GPU-x", None, up=False), Reason.NO_DATA),
        (Card("GPU-x", None), Reason.NO_DATA),
        (Card("GPU-x", 0.0), Reason.INSUFFICIENT_HISTORY),  # it has a value, but no trail: the mean is of the others
    ],
)
@pytest.mark.parametrize("value", [0.1, 0.95])
def test_with_one_gpu_unheard_a_pool_is_not_sized(odd: Card, reason: Reason, value: float) -> None:
    assert serving([*served(3, value), odd]) == ([], {"scale": reason}, {})


def test_saturation_is_told() -> None:
    (advice,), words, _ = serving(served(4, 1.0))
    assert (advice.recommended, advice.confidence, advice.projection.utilization_ratio) == (6, "medium", None)
    assert words == {"demand": Reason.SATURATED}


def test_an_id_is_of_who_and_what_never_of_values() -> None:
    (one,), _, _ = serving(served(4, 0.95))
    (two,), _, _ = serving(served(6, 0.92))
    assert one.summary != two.summary
    assert one.id("c") == two.id("c")
    others = [
        dataclasses.replace(one, kind="other"),
        dataclasses.replace(one, direction="down"),
        dataclasses.replace(one, scope=Scope("pool", "q")),
        dataclasses.replace(one, scope=Scope("node", "p")),
        dataclasses.replace(one, kind="scale_upp", scope=Scope("pool", "")),  # parts do not run into each other
    ]
    assert len({one.id("c"), one.id("d"), *(other.id("c") for other in others)}) == 7
    assert one.id("c") == dataclasses.replace(one, scope=Scope("pool", "p", "a label")).id("c")
    assert len(one.id("c")) == 16
