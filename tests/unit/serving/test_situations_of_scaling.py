"""Situations in which an operator would not sign a number of replicas: what the advisor says of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from gpu_advisor.evaluation.engine import Evaluation, decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.recommendation import Reason, Recommendation
from gpu_advisor.evaluation.serving.facts import CurvePoint, DemandSample, GroupKey, ServingFacts, ServingReplica
from gpu_advisor.settings import Settings

STEP, STEPS = 60, 240
AT = 1_795_000_020.0
LAST = AT // STEP * STEP

#: A step of the server (seconds): base, and for each running request.
BASE, PER_SEQUENCE = 0.01, 0.0005

#: Tokens per second that a replica generates within 50 ms for each token, 95 % of the time.
WORK = 1538.0

SLO = {"ttft_p95": "1s", "itl_p95": "50ms"}


def values(tokens_per_second: float, **changes: float) -> dict[str, float]:
    """Of a replica that generates so many tokens, or as many as 200 requests at a time do."""
    tokens_per_second = min(tokens_per_second, 200 / (BASE + 200 * PER_SEQUENCE))
    running = tokens_per_second * BASE / (1 - tokens_per_second * PER_SEQUENCE)
    itl = BASE + PER_SEQUENCE * running
    found = {
        "running": running, "running_max": 1.2 * running, "samples": 20.0, "waiting": 0.0, "waiting_now": 0.0,
        "kv_usage": 0.2, "kv_usage_max": 0.25, "preemption_rate": 0.0, "generation_token_rate": tokens_per_second,
        "prompt_token_rate": tokens_per_second / 2, "request_rate": tokens_per_second / 200, "output_tokens": 200.0,
        "prompt_tokens": 100.0, "itl_mean": itl, "itl_p95": itl, "ttft_p95": 0.2, "ttft_p90": 0.15, "ttft_p50": 0.1,
    }  # fmt: skip
    return found | changes


def replicas(count: int, tokens_per_second: float, model: str = "llama", first: int = 0) -> list[ServingReplica]:
    each = values(tokens_per_second / count)
    return [
        ServingReplica("vllm", "vllm", f"{model}-{number}:8000", model, values=each)
        for number in range(first, first + count)
    ]


def history(tokens_per_second: Sequence[float], size: Sequence[int], waiting: float = 0.0) -> tuple[DemandSample, ...]:
    """The last steps; before them, the first of each."""
    early = STEPS - len(tokens_per_second)
    demand = [tokens_per_second[0]] * early + list(tokens_per_second)
    sizes = [size[0]] * (STEPS - len(size)) + list(size)
    return tuple(
        DemandSample(LAST - (STEPS - 1 - step) * STEP, count, tokens, waiting if step == STEPS - 1 else 0.0)
        for step, (tokens, count) in enumerate(zip(demand, sizes, strict=True))
    )


def curve() -> tuple[CurvePoint, ...]:
    loads = (4, 8, 16, 24, 32, 40, 48, 64)
    return tuple(CurvePoint(n, n / (BASE + PER_SEQUENCE * n), BASE + PER_SEQUENCE * n) for n in loads)


def evaluated(
    members: Sequence[ServingReplica],
    demand: tuple[DemandSample, ...],
    slo: Mapping[str, str] | None = None,
    most: int = 40,
    start_delay: int = 180,
    curve_points: tuple[CurvePoint, ...] | None = None,
) -> Evaluation:
    pool = {"name": "llama", "kind": "serving", "slo": dict(slo or SLO), "start_delay_seconds": start_delay,
            "gpu": {"min": 1, "max": most}}  # fmt: skip
    settings = Settings.model_validate({"pools": [pool]})
    serving = ServingFacts(
        tuple(sorted(members)),
        histories={GroupKey("vllm", "llama"): curve() if curve_points is None else curve_points},
        demand={GroupKey("vllm", "llama"): demand},
    )
    return decide(Facts(AT, (), (), {}, {}, settings.evaluation, serving=serving), settings)


def wanted(found: Evaluation) -> int | None:
    """What the metric that autoscalers follow asks for."""
    return dict(found.desired_replicas).get("llama")


def sized(found: Evaluation) -> Recommendation | None:
    return next((each for each in found.recommendations if each.kind in ("scale_up", "scale_down")), None)


@pytest.mark.parametrize("start_delay", [60, 180, 360])
def test_replicas_that_start_are_not_taken_back(start_delay: int) -> None:
    """A rush of three minutes asked for more; they start, and publish nothing yet."""
    rush = [4 * WORK] * 20 + [7 * WORK] * 3
    asked, later = (
        wanted(evaluated(replicas(5, 4 * WORK), history(demand, [5]), start_delay=start_delay))
        for demand in (rush, [*rush, 4 * WORK, 4 * WORK])
    )
    assert asked is not None
    assert later is not None
    assert later >= asked >= 7


def test_a_rush_within_the_cool_down_of_a_reduction_is_answered() -> None:
    """Somebody, or another autoscaler, removed two replicas a minute ago."""
    found = evaluated(replicas(4, 3.9 * WORK), history([3 * WORK] * 10 + [6 * WORK], [6] * 9 + [4] * 2))
    asked = wanted(found)
    assert asked is not None
    assert asked >= 6


def test_a_replica_that_hangs_is_named_and_not_counted() -> None:
    hung = replace(
        replicas(1, WORK, first=8)[0],
        values=values(WORK, generation_token_rate=0.0, prompt_token_rate=0.0, running=30.0),
    )
    calm = evaluated([*replicas(6, 2 * WORK), hung], history([2 * WORK], [7]))
    (message,) = (each for each in calm.abstentions if "hangs" in each.message)
    assert (message.reason, "llama-8:8000" in message.message) == (Reason.CONFLICTING, True)
    assert wanted(calm) == 7
    assert sized(calm) is None
    busy, whole = (
        evaluated(members, history([6 * WORK], [4]))
        for members in ([*replicas(3, 2.9 * WORK), hung], replicas(4, 3.9 * WORK))
    )
    assert (wanted(busy) or 0) == (wanted(whole) or 0) + 1


@pytest.mark.parametrize("objective", [8, 10.9])
def test_an_objective_that_no_load_keeps_is_said_so(objective: float) -> None:
    """A request that is alone takes 10.5 ms; within 10.9 ms, hardly a second one fits."""
    found = evaluated(replicas(3, 2 * WORK), history([2 * WORK], [3]), {"itl_p95": f"{objective}ms"})
    (message,) = (each for each in found.abstentions if each.subject == "scale")
    assert message.reason is Reason.CONFLICTING
    assert f"slo.itl_p95 of {objective:g} ms" in message.message
    assert "takes 10.5 ms" in message.message
    assert sized(found) is None


def test_without_a_curve_its_inputs_are_named() -> None:
    found = evaluated(replicas(3, 2 * WORK), history([2 * WORK], [3]), curve_points=())
    (message,) = (each for each in found.abstentions if each.subject == "scale")
    assert message.reason is Reason.INSUFFICIENT_HISTORY


def test_a_demand_beyond_the_maximum_is_said_so() -> None:
    found = evaluated(replicas(5, 4.9 * WORK), history([9 * WORK], [5]), most=5)
    (message,) = (each for each in found.abstentions if each.subject == "scale")
    assert "more than the maximum of 5" in message.message
    assert wanted(evaluated(replicas(4, 3.9 * WORK), history([9 * WORK], [4]), most=5)) == 5


def test_two_models_in_a_pool_have_no_one_number_of_replicas() -> None:
    """One number for both would add up: a Deployment that follows it grows, and so does the number."""
    canary = replicas(1, 0.5 * WORK, model="canary")
    serving = ServingFacts(
        (*replicas(6, 5 * WORK), *canary), histories={GroupKey("vllm", "llama"): curve()},
        demand={GroupKey("vllm", "llama"): history([5 * WORK], [6])},
    )  # fmt: skip
    settings = Settings.model_validate({"pools": [{"name": "chat", "kind": "serving", "slo": SLO}]})
    found = decide(Facts(AT, (), (), {}, {}, settings.evaluation, serving=serving), settings)
    assert "chat" not in dict(found.desired_replicas)
    assert any("canary (1), llama (6)" in each.message for each in found.abstentions if each.scope.name == "chat")


def test_a_rolling_restart_changes_nothing() -> None:
    """Each replica is away for a minute; the others carry its load."""
    sizes = [8, 7, 8, 7, 8, 7, 8]
    found = evaluated(replicas(7, 6 * WORK), history([6 * WORK] * 7, sizes))
    assert wanted(found) in (7, 8)
    assert (wanted(found) or 0) >= 6


@pytest.mark.parametrize("lost", [1, 3, 5])
def test_preempted_replicas_are_asked_for_again(lost: int) -> None:
    found = evaluated(replicas(8 - lost, 6 * WORK), history([6 * WORK], [8] * 5 + [8 - lost], waiting=50.0 * lost))
    asked = wanted(found)
    assert asked is not None
    assert asked >= max(7, 8 - lost)


def test_traffic_that_doubles_daily_is_followed_up_and_down() -> None:
    """Sizes along a day never fall below the demand, and return to it."""
    day = [WORK * (2 + 6 * abs(step / 120 - 1)) for step in range(240)][::-1]
    sizes = []
    for end in range(130, 240, 5):
        demand = day[: end + 1]
        found = evaluated(replicas(12, demand[-1]), history(demand, [12]))
        sizes.append(wanted(found) or 0)
        assert sizes[-1] * WORK >= demand[-1]
    assert sizes[-1] <= day[239] / WORK + 3
    assert min(sizes) < sizes[-1]


def test_without_a_replica_there_is_no_number() -> None:
    """Scaled to zero: nothing is published, and an autoscaler keeps what it has (KEDA: its own trigger wakes it)."""
    assert wanted(evaluated([], history([0.0], [0]))) is None


def test_a_batch_job_at_night_is_a_demand_like_any_other_up_to_the_maximum() -> None:
    found = evaluated(
        replicas(6, 5.9 * WORK), history([2 * WORK] * 30 + [5.9 * WORK] * 3, [6], waiting=4000.0), most=10
    )
    assert wanted(found) == 10


def test_counters_that_restart_leave_gaps_and_no_fall() -> None:
    """The steps of a reset are missing: nothing is taken away by them."""
    demand = history([6 * WORK] * 30, [8])
    gaps = tuple(each for number, each in enumerate(demand) if number not in (STEPS - 3, STEPS - 2))
    found = evaluated(replicas(8, 6 * WORK), gaps)
    assert (wanted(found) or 8) == 8
