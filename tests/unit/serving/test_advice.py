"""Causes and advice on made-up servers: what is found, what is never advised, and what missing data does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from gpu_advisor.evaluation import serving
from gpu_advisor.evaluation.money import GpuPrice
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.prices import Prices
from gpu_advisor.evaluation.recommendation import Abstention
from gpu_advisor.evaluation.serving.advice import Advice, ServerOptions
from gpu_advisor.evaluation.serving.advisers import advise, near_misses
from gpu_advisor.evaluation.serving.attention_heads import attention_heads, tensor_parallel_rule
from gpu_advisor.evaluation.serving.cost import cost_per_million_tokens
from gpu_advisor.evaluation.serving.decision_table import CAUSES, ROWS
from gpu_advisor.evaluation.serving.diagnosis import GroupDiagnosis, diagnose_window
from gpu_advisor.evaluation.serving.facts import CurvePoint, ServingReplica
from gpu_advisor.evaluation.serving.groups import Objectives, make_group
from gpu_advisor.evaluation.serving.projection import LoadChange, project
from gpu_advisor.evaluation.serving.recommend import ServedPool, conclude
from gpu_advisor.evaluation.serving.step_model import StepModel, fit_step_model
from gpu_advisor.settings import PoolSettings, Settings
from gpu_advisor.sources.exporters.serving.mapping import server_mappings
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.advisor.builders import facts

AT = 1e6
CALM = {
    "running": 8.0, "running_max": 12.0, "samples": 20.0, "waiting": 0.0, "waiting_now": 0.0, "kv_usage": 0.3,
    "kv_usage_max": 0.4, "preemption_rate": 0.0, "prompt_token_rate": 1000.0, "generation_token_rate": 400.0,
    "request_rate": 2.0, "ttft_p95": 0.2, "ttft_p90": 0.15, "ttft_p50": 0.1, "itl_p95": 0.025, "itl_p99": 0.03,
    "itl_mean": 0.02, "queue_seconds": 0.0, "prompt_tokens": 500.0, "output_tokens": 200.0, "iteration_tokens": 28.0,
    "iteration_rate": 50.0,
}  # fmt: skip
BATCH_LIMIT = {**CALM, "running": 4.0, "running_max": 4.0, "waiting": 28.0, "waiting_now": 28.0, "kv_usage_max": 0.05,
               "ttft_p50": 1.5, "ttft_p90": 2.0, "ttft_p95": 2.2}  # fmt: skip
FULL_CACHE = {**CALM, "running": 5.0, "running_max": 6.0, "waiting": 11.0, "waiting_now": 11.0, "kv_usage": 0.9,
              "kv_usage_max": 1.0, "preemption_rate": 1.5, "ttft_p50": 1.5, "ttft_p90": 2.0,
              "ttft_p95": 2.2}  # fmt: skip
OBJECTIVES = Objectives(1.0, 0.05)
#: Modules that read features besides the decision table.
ADVISES = ("settings_advice", "capacity_advice", "recommend")
VLLM = next(each for each in server_mappings() if each.name == "vllm")


def diagnosed(
    *values: Mapping[str, float], objectives: Objectives = OBJECTIVES, loads: tuple[float, ...] = ()
) -> GroupDiagnosis:
    replicas = [
        ServingReplica("vllm", "j", f"h{number}:8000", "m", values=dict(each)) for number, each in enumerate(values)
    ]
    points = [CurvePoint(load, load / (0.01 + 0.001 * load), 0.01 + 0.001 * load, 2.5) for load in loads]
    return diagnose_window(make_group(replicas, points, AT, 300.0), objectives)


def causes(found: GroupDiagnosis) -> set[str]:
    return {each.name for each in found.causes}


def options(shared: bool | None = None) -> ServerOptions:
    return ServerOptions("vLLM", VLLM.flags, VLLM.helm, shared)


def advice_of(found: GroupDiagnosis, shared: bool | None = None) -> dict[str, Advice]:
    made = {name: advise(found, name, options(shared)) for name in causes(found)}
    return {name: each for name, each in made.items() if each is not None}


def text_of(advice: Advice) -> str:
    return " ".join(f"{each.parameters} {each.note}" for each in advice.actions)


@pytest.mark.parametrize("objectives", [OBJECTIVES, Objectives()], ids=["objectives", "none stated"])
@pytest.mark.parametrize(("values", "cause"), [(BATCH_LIMIT, "batch_limit_bound"), (FULL_CACHE, "kv_cache_bound")])
def test_limits_need_no_objective(values: Mapping[str, float], cause: str, objectives: Objectives) -> None:
    assert causes(diagnosed(values, objectives=objectives)) == {cause}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"kv_usage": 0.97, "kv_usage_max": 1.0}, {"kv_cache_bound"}),
        ({"kv_usage": 0.5, "kv_usage_max": 0.6}, {"batch_limit_bound"}),
        ({"kv_usage": 0.97, "kv_usage_max": 1.0, "itl_mean": 0.2}, {"decode_bandwidth_bound"}),
        ({"kv_usage": 0.97, "kv_usage_max": 1.0, "preemption_rate": 0.0}, set()),
    ],
)
def test_a_server_that_never_preempts_has_a_full_cache(changes: Mapping[str, float], expected: set[str]) -> None:
    """TensorRT-LLM by default begins a request only with room for its whole answer (GUARANTEED_NO_EVICT)."""
    never_preempts = {name: value for name, value in BATCH_LIMIT.items() if name != "preemption_rate"}
    found = diagnosed({**never_preempts, **changes})
    assert causes(found) == expected
    assert not any("preempted" in each.summary for each in advice_of(found).values())


#: Objective 50 ms; steps take 10 ms, 1 ms for each request and a little for prompts.
LOADS = (2.0, 4.0, 8.0, 16.0, 32.0)


@pytest.mark.parametrize(
    ("changes", "loads", "expected"),
    [
        ({"running_max": 20.0}, LOADS, {"kv_cache_bound"}),
        ({"running_max": 100.0}, LOADS, set()),
        ({"running_max": 100.0}, (), {"kv_cache_bound"}),
        ({"running_max": 100.0, "itl_p99": 0.07}, LOADS, {"kv_cache_bound"}),
        ({"running_max": 20.0, "kv_usage": 0.3}, LOADS, set()),
    ],
    ids=["short steps", "long steps", "no curve", "answers stall", "full for a moment"],
)
def test_more_room_helps_no_server_whose_steps_are_too_long_when_its_cache_is_full(
    changes: Mapping[str, float], loads: tuple[float, ...], expected: set[str]
) -> None:
    found = diagnosed({**FULL_CACHE, **changes}, loads=loads)
    assert causes(found) & {"kv_cache_bound"} == expected


@pytest.mark.parametrize(("rate", "known", "expected"), [(3.0, True, True), (1.0, True, False), (3.0, False, False)])
def test_prompts_are_in_each_others_way_only_where_they_take_much_of_the_time(
    rate: float, known: bool, expected: bool
) -> None:
    """A tenth of a millisecond a token: 1,000 tokens three times a second take 30 % of the time, once 10 %; alone they
    take 0.1 s, and not four times as long."""
    slow = {**CALM, "request_rate": rate, "prompt_tokens": 1000.0, "ttft_p50": 0.05, "ttft_p90": 2.0, "ttft_p95": 3.0,
            "prefill_seconds": 0.4}  # fmt: skip
    points = [
        CurvePoint(load, load / itl, itl, prompts)
        for load in LOADS
        for prompts in (1.0, 5.0)
        for itl in [0.01 + 0.0002 * load + 0.0001 * prompts]
    ]
    replica = ServingReplica("vllm", "j", "h:8000", "m", values=slow)
    found = diagnose_window(make_group([replica], points if known else (), AT, 300.0), OBJECTIVES)
    assert ("head_of_line" in causes(found)) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"prefill_seconds": 1.2}, True),
        ({"itl_mean": 0.052}, True),
        ({"request_rate": 1.8}, True),
        ({"waiting": 12.0, "waiting_now": 12.0}, True),
    ],
    ids=["a cache that is full for a moment", "long prompts", "answers stall", "much of the time", "a queue"],
)
def test_late_first_tokens_are_due_to_prompts_only_where_these_take_time(
    changes: Mapping[str, float], expected: bool
) -> None:
    """Two windows of a server that keeps its objectives for all but a few minutes of a day looked like the first."""
    late = {**CALM, "request_rate": 0.8, "prompt_tokens": 1800.0, "output_tokens": 270.0, "prefill_seconds": 0.5,
            "queue_seconds": 1.2, "ttft_p90": 6.0, "ttft_p95": 8.0, "kv_usage_max": 0.98, "preemption_rate": 0.01,
            "iteration_tokens": 60.0, "iteration_rate": 28.0, "generation_token_rate": 220.0,
            "itl_mean": 0.035}  # fmt: skip
    points = [
        CurvePoint(load, load / itl, itl, prompts)
        for load in LOADS
        for prompts in (1.0, 50.0)
        for itl in [0.02 + 0.0002 * load + 0.0001 * prompts]
    ]
    replica = ServingReplica("vllm", "j", "h:8000", "m", values={**late, **changes})
    found = diagnose_window(make_group([replica], points, AT, 300.0), OBJECTIVES)
    assert ("prefill_bound" in causes(found)) == expected


def test_every_feature_decides_or_advises() -> None:
    used = {part.feature for row in ROWS for condition in row.conditions for part in condition.parts()}
    sources = Path(serving.__file__).parent
    text = "".join((sources / f"{name}.py").read_text("utf-8") for name in ADVISES)
    idle = {name for name in diagnosed(CALM, CALM).features if name not in used and f'"{name}"' not in text}
    assert idle == set()


@given(
    st.lists(st.dictionaries(st.sampled_from(sorted(BATCH_LIMIT)), st.floats(0, 1000)), min_size=1, max_size=3),
    st.lists(st.floats(1, 64), max_size=5, unique=True),
)
def test_without_objectives_nothing_is_said_of_latencies(changes: list[dict[str, float]], loads: list[float]) -> None:
    replicas = [{**BATCH_LIMIT, **each} for each in changes]
    found = causes(diagnosed(*replicas, objectives=Objectives(), loads=tuple(loads)))
    assert found <= {"kv_cache_bound", "batch_limit_bound", "imbalance", "prefix_cache_useless", "cold_start"}


@pytest.mark.parametrize("replicas", [1, 2, 30])
@pytest.mark.parametrize(("values", "cause"), [(BATCH_LIMIT, "batch_limit_bound"), (FULL_CACHE, "kv_cache_bound")])
def test_replicas_that_are_all_at_their_limit_have_its_cause(
    values: Mapping[str, float], cause: str, replicas: int
) -> None:
    """An even load is no spread to blame, however fast tokens are."""
    assert causes(diagnosed(*[values] * replicas, loads=(1, 2, 4, 9, 20))) == {cause}


def test_a_calm_server_has_no_cause() -> None:
    assert causes(diagnosed(CALM, loads=(2, 4, 8, 12))) == set()


@given(st.sampled_from([CALM, BATCH_LIMIT, FULL_CACHE]), st.sets(st.sampled_from(sorted(CALM)), max_size=22))
def test_missing_signals_never_add_a_cause(values: Mapping[str, float], missing: set[str]) -> None:
    left = {name: value for name, value in values.items() if name not in missing}
    assert causes(diagnosed(left)) <= causes(diagnosed(values))


def test_a_near_miss_names_its_number() -> None:
    almost = {**BATCH_LIMIT, "running": 3.7}
    (miss,) = (each for each in near_misses(diagnosed(almost)) if each.action == "Batch-limit-bound")
    assert miss.why_not.startswith("not met: ")
    assert "plateau 0.925, threshold 0.97" in miss.why_not


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({}, "m: raise max-num-seqs from 4 to 8: 28 requests waiting"),
        ({"max_num_seqs": 4.0, "waiting": 1.2}, "m: raise max-num-seqs from 4 to 8: 1 request waiting"),
        ({"running": 24.6, "running_max": 24.7}, "m: raise max-num-seqs from 25 to 49: 28 requests waiting"),
    ],
)
def test_a_larger_batch_names_the_setting_and_counts_whole_requests(changes: Mapping[str, float], title: str) -> None:
    advice = advise(diagnosed({**BATCH_LIMIT, **changes}), "batch_limit_bound", options())
    assert advice is not None
    assert advice.summary == title
    assert advice.note.startswith("One step at most doubles the limit.")
    assert float(advice.current).is_integer()


@pytest.mark.parametrize(
    ("configured", "how"),
    [(True, "set slo in the pool m, as in {ttft"), (False, "add a pool m of kind serving with slo.ttft_p95")],
)
def test_a_missing_objective_is_stated_where_the_pool_is(configured: bool, how: str) -> None:
    replica = ServingReplica("vllm", "j", "h:8000", "m", values=dict(CALM))
    pool = Pool(PoolSettings(name="m", kind="serving"), ())
    served = ServedPool(make_group([replica], (), AT, 300.0), pool, configured, True)
    found = list(conclude(facts([]), Settings(), served))
    assert any(how in each.message for each in found if isinstance(each, Abstention))


@given(st.floats(1, 512), st.floats(0.001, 0.89), st.floats(0.001, 0.2))
def test_a_limit_grows_at_most_twofold_and_within_cache_and_objective(limit: float, used: float, itl: float) -> None:
    values = {**BATCH_LIMIT, "running": limit, "running_max": limit, "kv_usage_max": used}
    found = diagnosed(values, objectives=Objectives(1.0, itl), loads=(1, 2, 5, 9, 20))
    for name, advice in advice_of(found).items():
        if name == "batch_limit_bound":
            assert limit < advice.recommended <= 2 * limit
            assert advice.recommended * used / limit <= 0.9
            assert 0.01 + 0.001 * advice.recommended <= itl
            low, high = advice.projection.intervals["throughput_ratio"]
            assert 0 < low <= high


def test_projection_beyond_the_loads_observed_is_marked() -> None:
    (advice,) = advice_of(diagnosed(BATCH_LIMIT, loads=(1, 2, 4))).values()
    assert "extrapolation" in advice.note
    assert advice.confidence == "medium"
    (known,) = advice_of(diagnosed(BATCH_LIMIT, loads=(1, 2, 4, 9))).values()
    assert "extrapolation" not in known.note


@pytest.mark.parametrize(("target", "factor"), [(8, 1), (40, 1), (80, 2), (2, 2), (1, 4)])
def test_projections_are_as_much_wider_as_they_leave_the_loads_observed(target: float, factor: float) -> None:
    """The history knew 4 to 40 requests at a time."""
    curve = StepModel(0.01, 0.0005, 0.0, 0.0, 40)
    low, high = project(curve, 10, LoadChange(20, target, 0.02, 0.0)).intervals["itl_seconds"]
    assert (high - low) / (high + low) == pytest.approx(0.1 * factor, rel=0.02)
    low, high = project(replace(curve, seen=0), 10, LoadChange(20, target, 0.02, 0.0)).intervals["itl_seconds"]
    assert (high - low) / (high + low) == pytest.approx(0.2, rel=0.02)  # it knew no load


@given(st.floats(1, 200), st.floats(1, 200), st.floats(0, 100), st.booleans())
def test_the_lower_end_of_a_projection_is_below_the_upper(
    running: float, target: float, waiting: float, known: bool
) -> None:
    curve = StepModel(0.01, 0.0005, 0.0, 0.01, 40) if known else None
    projected = project(curve, 10, LoadChange(running, target, 0.02, 0.0, waiting, 2.0))
    assert ("ttft_seconds" in projected.intervals) is (waiting > target - running)  # 0 s is no time to a first token
    without_tokens = project(curve, 10, LoadChange(running, target, None, 0.0, waiting, 2.0))
    assert {"ttft_seconds", "itl_seconds"}.isdisjoint(without_tokens.intervals)
    assert all(0 <= low <= high for low, high in projected.intervals.values())
    low, high = projected.intervals["throughput_ratio"]
    assert projected.throughput_ratio is not None
    assert 0.99 * low <= projected.throughput_ratio <= 1.01 * high


def test_more_replicas_have_no_throughput_of_their_own() -> None:
    """Half of the requests a replica: less throughput of each, and the same of all."""
    late = {**CALM, "running": 16.0, "running_max": 18.0, "itl_mean": 0.06}
    advice = advice_of(diagnosed(late, loads=(1, 2, 4, 9, 20)))["decode_bandwidth_bound"]
    assert advice.projection.throughput_ratio is None
    assert set(advice.projection.intervals) == {"itl_seconds"}
    assert advice.projection.intervals["itl_seconds"][1] < 0.06
    assert (advice.confidence, advice.note) == ("high", "")
    unproven = {**late, "running_p50": 18.0}
    one_load = advice_of(diagnosed(unproven))["decode_bandwidth_bound"]
    assert one_load.confidence == "medium"
    assert "one load only" in one_load.note


@pytest.mark.parametrize("shared", [True, None])
def test_a_shared_gpu_never_gives_the_server_more_of_its_memory(shared: bool | None) -> None:
    advice = advice_of(diagnosed(FULL_CACHE), shared)["kv_cache_bound"]
    assert "--gpu-memory-utilization" not in text_of(advice)
    assert any("memory" in each.action for each in advice.rejected)
    assert "--gpu-memory-utilization" in text_of(advice_of(diagnosed(FULL_CACHE), False)["kv_cache_bound"])


def test_what_changes_answers_or_must_divide_heads_is_said() -> None:
    text = text_of(advice_of(diagnosed(FULL_CACHE))["kv_cache_bound"])
    assert "max-num-seqs: 0.75 times the present value" in text
    assert "changes answers" in text
    assert "divide the model's number of attention heads" in text


@pytest.mark.parametrize(
    ("server", "setting", "expected"),
    [
        ("vllm", "kv_cache_dtype", "--kv-cache-dtype fp8"),
        ("sglang", "kv_cache_dtype", "--kv-cache-dtype fp8_e4m3"),
        ("tgi", "kv_cache_dtype", "--kv-cache-dtype fp8_e4m3fn"),
        ("lmdeploy", "kv_cache_dtype", "--quant-policy 8"),
        ("llama-cpp", "kv_cache_dtype", "--cache-type-k and --cache-type-v q8_0"),
        ("vllm-ray", "no_prefix_caching", "engine_kwargs.enable_prefix_caching of LLMConfig: False"),
        ("sglang", "gpu_memory_utilization", "--mem-fraction-static 0.9"),
        ("trtllm-serve", "kv_cache_dtype", "kv cache dtype: fp8"),
    ],
)
def test_a_setting_has_the_value_of_its_server(server: str, setting: str, expected: str) -> None:
    mapping = next(each for each in server_mappings() if each.name == server)
    asked: dict[str, bool | float | str] = {
        "kv_cache_dtype": "fp8",
        "no_prefix_caching": True,
        "gpu_memory_utilization": 0.95,
    }
    given = asked[setting]
    (action,) = ServerOptions(mapping.title, mapping.flags, mapping.helm, None).configure("m", setting, given)
    said = " ".join(f"{flag} {value}" for flag, value in action.parameters.items()) or action.note
    assert said == expected


@pytest.mark.parametrize(("gpus", "same_server", "expected"), [(2, False, 4), (0, False, None), (2, True, None)])
def test_a_multiple_of_what_is_not_known_is_said_in_words(gpus: int, same_server: bool, expected: int | None) -> None:
    """A number could be less than the present one: two GPUs for a server that has four."""
    uuids = tuple(f"GPU-{number}" for number in range(gpus))
    replicas = [
        ServingReplica("vllm", "j", "h:8000", "m", engine=engine, values=FULL_CACHE, gpus=uuids)
        for engine in ("0", "1")[: 2 if same_server else 1]
    ]
    found = diagnose_window(make_group(replicas, (), AT, 300.0), OBJECTIVES)
    advice = advice_of(found)["kv_cache_bound"]
    sizes = [each.parameters.get("--tensor-parallel-size") for each in advice.actions]
    assert [each for each in sizes if each] == [expected] * (expected is not None)
    assert ("tensor-parallel-size: twice the present value" in text_of(advice)) == (expected is None)


def test_an_uneven_load_is_routed_not_scaled() -> None:
    found = diagnosed({**BATCH_LIMIT, "running": 20.0, "running_max": 30.0}, {**CALM, "running": 2.0},
                      {**CALM, "running": 2.0}, loads=(1, 2, 4, 9, 20))  # fmt: skip
    assert "imbalance" in causes(found)
    assert "decode_bandwidth_bound" not in causes(found)


@pytest.mark.parametrize(
    ("usual", "cause"), [(6.0, "wrong_gpu"), (16.0, "decode_bandwidth_bound")], ids=["loads differ", "one load"]
)
def test_a_request_alone_is_judged_by_loads_that_differ(usual: float, cause: str) -> None:
    late = {**CALM, "running": usual, "running_max": 16.0, "running_p50": usual, "itl_mean": 0.09, "itl_p99": 0.1}
    found = diagnosed(late, objectives=Objectives(1.0, 0.009), loads=(4, 6, 9, 16))
    assert cause in causes(found)
    assert len({"wrong_gpu", "decode_bandwidth_bound"} & causes(found)) == 1


@pytest.mark.parametrize(
    ("changes", "stalled"),
    [
        ({}, True),
        ({"itl_p99": 0.4}, False),  # shorter than half of the time that a first token may take
        ({"prefill_seconds": 0.2}, False),  # first tokens wait for something else
        ({"preemption_rate": 4.0}, False),  # each answer is computed again: that is the cache's doing
    ],
)
def test_steps_with_prompts_stall_answers(changes: dict[str, float], stalled: bool) -> None:
    late = {"ttft_p90": 1.01, "ttft_p95": 1.2, "itl_p99": 0.6, "prefill_seconds": 0.3}
    found = diagnosed({**CALM, **late, **changes}, objectives=Objectives(1.0, None))
    assert ("prefill_bound" in causes(found)) == stalled


def test_one_first_token_in_ten_that_is_late_is_enough() -> None:
    late = {**FULL_CACHE, "ttft_p50": 0.1, "itl_p99": 0.6, "preemption_rate": 0.0, "prefill_seconds": 0.3}
    assert causes(diagnosed({**late, "ttft_p90": 1.01, "ttft_p95": 1.2})) == {"prefill_bound"}
    assert causes(diagnosed({**late, "ttft_p90": 0.80, "ttft_p95": 0.9})) == set()


@pytest.mark.parametrize(
    ("itl", "running", "expected"), [(0.056, 20.0, {"imbalance"}), (0.045, 20.0, set()), (0.056, 3.0, set())]
)
def test_uneven_replicas_that_miss_an_objective_are_imbalance(itl: float, running: float, expected: set[str]) -> None:
    busiest, calm = {**CALM, "running": running, "running_max": 24.0, "itl_mean": itl}, {**CALM, "running": 2.0}
    assert causes(diagnosed(busiest, calm, calm, loads=(1, 2, 4, 9, 20))) & {"imbalance"} == expected


def test_every_cause_has_rows_advice_and_signals() -> None:
    assert {row.cause for row in ROWS} == CAUSES.keys()
    for name in CAUSES:
        advise(diagnosed(CALM, CALM, loads=(1, 4, 9, 20)), name, options())


def test_the_curve_is_that_of_the_server() -> None:
    points = [
        CurvePoint(n, n / itl, itl, f)
        for n in (1.0, 4.0, 9.0, 30.0)
        for f in (0.0, 20.0, 50.0)
        for itl in [0.008 + 0.0004 * n + 0.00002 * f]
    ]
    model = fit_step_model(points)
    assert model is not None
    assert (model.base, model.per_sequence, model.per_prompt_token) == pytest.approx((0.008, 0.0004, 0.00002))
    assert model.error_ratio < 1e-9
    settled = model.settled_itl(500.0, 2.0)
    assert model.itl(500.0 * settled, 2.0) == pytest.approx(settled)
    assert math.isinf(model.settled_itl(1e6, 2.0))
    assert model.itl(model.largest(0.05, 2.0), 2.0) == pytest.approx(0.05)
    assert fit_step_model(points[:2]) is None


def test_cost_per_million_tokens_needs_every_price() -> None:
    replicas = [ServingReplica("vllm", "j", f"h{n}:1", "m", values=CALM, gpus=(f"GPU-{n}",)) for n in range(2)]
    group = make_group(replicas, (), AT, 300.0)
    prices = {f"GPU-{n}": GpuPrice(3.6, "EUR") for n in range(2)}
    # 7.2 an hour for 800 tokens per second: 2.5 a million.
    found = cost_per_million_tokens(group, Prices(prices, "EUR"))
    assert found is not None
    assert found[0] == pytest.approx(2.5)
    assert found[1] == "EUR"
    del prices["GPU-1"]
    assert cost_per_million_tokens(group, Prices(prices, "EUR")) is None
    unknown = ServingReplica("vllm", "j", "h9:1", "m", values=CALM)
    assert cost_per_million_tokens(make_group([*replicas, unknown], (), AT, 300.0), Prices(prices, "EUR")) is None


EXECUTIONS = {"samples": 20.0, "waiting": 20.0, "waiting_now": 21.0, "batch": 4.0, "queue_seconds": 0.15,
              "request_seconds": 0.2, "request_rate": 90.0}  # fmt: skip


@pytest.mark.parametrize("server", ["triton", "ray-serve"])
def test_executions_that_leave_requests_waiting_are_made_larger(server: str) -> None:
    mapping = next(each for each in server_mappings() if each.name == server)
    found = diagnosed(EXECUTIONS, objectives=Objectives())
    assert causes(found) == {"batch_limit_bound"}
    advice = advise(found, "batch_limit_bound", ServerOptions(mapping.title, mapping.flags, mapping.helm, None))
    assert advice is not None
    assert (advice.current, advice.recommended) == (4.0, 8)
    assert "max_batch_size" in text_of(advice)


@pytest.mark.parametrize(
    "changes",
    [
        {"waiting": 3.0}, {"queue_seconds": 0.04}, {"itl_mean": 0.02}, {"generation_token_rate": 400.0},
        {"kv_usage": 0.1},
    ],
    ids=["few wait", "a short wait", "tokens", "tokens counted", "a KV cache"],
)  # fmt: skip
def test_executions_that_serve_their_queue_or_single_tokens_are_left_alone(changes: dict[str, float]) -> None:
    assert causes(diagnosed({**EXECUTIONS, **changes}, objectives=Objectives())) == set()
    for name in ("batch", "waiting", "queue_seconds", "request_seconds"):
        known = {key: value for key, value in EXECUTIONS.items() if key != name}
        assert causes(diagnosed(known, objectives=Objectives())) == set()


@pytest.mark.parametrize(
    ("model", "heads"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", 32), ("/models/Meta-Llama-3-70B", 64), ("Qwen2.5-7B-Instruct-AWQ", 28),
        ("Qwen/Qwen2.5-14B", 40), ("llama-3.2-3b", 24), ("mistral_7b_instruct", 32), ("llama-3.1-80b", None),
        ("my-finetune", None), ("", None), ("qwen2.5-72b", 64), ("deepseek-r1-distill-qwen-7b", None),
    ],
)  # fmt: skip
def test_sizes_of_tensor_parallelism_divide_the_heads(model: str, heads: int | None) -> None:
    assert attention_heads(model) == heads
    rule = tensor_parallel_rule(model)
    if heads is None:
        assert "config.json" in rule
    else:
        assert all(heads % int(size) == 0 for size in rule.rsplit(": ", 1)[1].split(", "))
