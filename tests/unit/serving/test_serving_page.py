"""The page of inference servers: models with their numbers and advice, and no number where there is no signal."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from gpu_advisor.evaluation.money import GpuPrice
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.prices import Prices
from gpu_advisor.evaluation.serving.facts import ServingReplica
from gpu_advisor.evaluation.serving.groups import make_group
from gpu_advisor.evaluation.serving.recommend import ServedPool
from gpu_advisor.notify.metrics import METRIC_FAMILIES, MetricsExposition
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.settings import PoolSettings, Settings
from gpu_advisor.sources.embedded.source import EmbeddedSource
from gpu_advisor.state.view import PublishedRecommendation, SourceStatus, View
from gpu_advisor.web.page.serving_list import serving_rows

from benchmarks.serving.draw import CLASSES
from benchmarks.serving.situation import WARM_UP_SECONDS, WINDOW_SECONDS
from benchmarks.serving.windows import watch
from tests.serving_pages import START, history_of, simulated_lines
from tests.unit.advisor.test_api import whole
from tests.unit.advisor.test_page import client_of, text_of

END = START + WARM_UP_SECONDS + 2 * WINDOW_SECONDS


def test_a_model_has_its_numbers_and_advice(tmp_path: Path) -> None:
    situation = CLASSES["batch_limit_bound"](7)
    slo = {"ttft_p95": f"{situation.ttft}s", "itl_p95": f"{situation.itl}s"}
    settings = Settings.model_validate({"pools": [{"name": situation.model.name, "kind": "serving", "slo": slo}]})
    with closing(history_of(simulated_lines(situation, watch(situation, 2)), tmp_path)) as history:
        found = evaluate(EmbeddedSource(history), settings, END)
    issued = tuple(PublishedRecommendation(each.id(""), END, each) for each in found.recommendations)
    (row,) = serving_rows(found, issued)
    assert (row.name, row.server, row.replicas) == (situation.model.name, "vLLM", 1)
    assert row.advice == issued
    assert (row.waiting or 0) > 0
    assert (row.missed or 0) > 0.5
    assert row.cost is None  # its GPUs are unknown

    text = text_of(client_of(replace(whole(), evaluation=found, issued=issued)), "/page/serving")
    assert situation.model.name in text
    assert "batch-limit-bound" in text.lower()

    published = View("c", SourceStatus("fake", "memory", True), found, issued)
    assert "gpu_advisor_serving_missed_ratio{" in MetricsExposition().render(published, ()).decode()
    stale = MetricsExposition().render(replace(published, overdue=True), ()).decode()
    assert "gpu_advisor_serving_" not in stale, "an alert rests on it"

    silent = tuple(dataclasses.replace(each, values={"running": 1.0}) for each in found.served[0].group.replicas)
    group = replace(found.served[0].group, replicas=silent)
    (row,) = serving_rows(replace(found, served=(replace(found.served[0], group=group),)), ())
    assert (row.ttft, row.waiting, row.missed, row.tokens_per_second) == (None, None, None, None)


def test_a_pool_has_as_many_replicas_as_on_the_overview() -> None:
    """Of four by its GPUs, three report; two models that share it have no number of their own."""
    whole_view = whole()
    assert whole_view.evaluation is not None
    state = whole_view.evaluation.pools[0]
    name, gpus = state.pool.settings.name, tuple(replace(state.pool.gpus[0], uuid=f"GPU-{n}") for n in range(4))
    pool = replace(state.pool, settings=PoolSettings(name=name, kind="serving"), gpus=gpus)
    replicas = [ServingReplica("triton", "j", f"h{n}:8002", name, values={"running": 1.0}) for n in range(3)]
    served = ServedPool(make_group(replicas, (), END, 300.0), pool, True, True)
    found = replace(whole_view.evaluation, served=(served,), pools=(replace(state, pool=pool),))
    assert found.replicas[name] == 4
    view = replace(whole_view, evaluation=found, issued=())
    assert f"{name} triton 3 of 4 " in text_of(client_of(view), "/page/serving")
    shared = replace(found, served=(replace(served, alone=False),))
    assert f"{name} triton 3 3 " in text_of(client_of(replace(view, evaluation=shared)), "/page/serving")


def test_the_catalogue_has_the_metrics_of_serving_and_a_served_model_has_all() -> None:
    """Other views have none of them: they need a model that is served, and its price."""
    values = {"running": 4.0, "generation_token_rate": 400.0, "itl_mean": 0.06, "ttft_p50": 0.1, "request_rate": 2.0}
    replica = ServingReplica("vllm", "j", "h:8000", "m", values=values, gpus=("GPU-1",))
    slo = {"ttft_p95": "1s", "itl_p95": "50ms"}
    pool = Pool(PoolSettings.model_validate({"name": "m", "kind": "serving", "slo": slo}), ())
    served = ServedPool(make_group([replica], (), END, 300.0), pool, True, True)
    evaluation = whole().evaluation
    assert evaluation is not None
    evaluation = replace(evaluation, served=(served,), prices=Prices({"GPU-1": GpuPrice(2.0, "USD")}, "USD"))
    text = MetricsExposition().render(replace(whole(), evaluation=evaluation), ()).decode()
    names = {name for name in METRIC_FAMILIES if name.startswith("gpu_advisor_serving_")}
    assert names == {line.split("{")[0] for line in text.splitlines() if line.startswith("gpu_advisor_serving_")}


def test_a_fleet_without_servers_says_what_is_found() -> None:
    text = text_of(client_of(whole()), "/page/serving")
    assert "No inference-server metrics found" in text
    assert "Servers without metrics" not in text


def test_servers_whose_metrics_are_missing_are_named_with_the_fix() -> None:
    evaluation = whole().evaluation
    assert evaluation is not None
    facts = replace(evaluation.facts, serving=replace(evaluation.facts.serving, quiet=("h<0>:8000",)))
    text = text_of(client_of(replace(whole(), evaluation=replace(evaluation, facts=facts))), "/page/serving")
    assert "Servers without metrics" in text
    assert "h&lt;0&gt;:8000: requests for completions" in text or "h<0>:8000: requests for completions" in text
