"""From pages of inference servers to recommendations, with nothing but the pages."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.settings import Settings
from gpu_advisor.sources.embedded.source import EmbeddedSource

from benchmarks.serving.draw import CLASSES
from benchmarks.serving.situation import WARM_UP_SECONDS, WINDOW_SECONDS, Situation
from benchmarks.serving.windows import watch
from tests.serving_pages import START, history_of, simulated_lines

END = START + WARM_UP_SECONDS + 2 * WINDOW_SECONDS


def evaluated(situation: Situation, folder: Path, slo: bool = True) -> Evaluation:
    objectives = {"ttft_p95": f"{situation.ttft * 1000:.0f}ms", "itl_p95": f"{situation.itl * 1000:.0f}ms"}
    pool = {"name": situation.model.name, "kind": "serving", "slo": objectives}
    settings = Settings.model_validate({"pools": [pool] if slo else []})
    with closing(history_of(simulated_lines(situation, watch(situation, 2)), folder)) as history:
        return evaluate(EmbeddedSource(history), settings, END)


def test_a_server_at_its_hidden_batch_limit(tmp_path: Path) -> None:
    situation = CLASSES["batch_limit_bound"](7)
    found = evaluated(situation, tmp_path, slo=False)
    (advice,) = (each for each in found.recommendations if each.kind == "serving_batch_limit")
    assert advice.current == situation.settings.max_num_seqs
    assert advice.current < advice.recommended <= 2 * advice.current
    assert "does not publish its limit" in advice.explanation
    low, high = advice.projection.intervals["throughput_ratio"]
    assert 1.0 <= low < high <= 2.0
    assert any(line.startswith(f"--max-num-seqs {advice.recommended:g}") for line in advice.apply)
    assert any("maxNumSeqs" in line for line in advice.apply)
    assert any("slo" in each.message for each in found.abstentions if each.subject == "scale")


def test_objectives_in_the_pool_of_the_models_name(tmp_path: Path) -> None:
    situation = CLASSES["wrong_gpu"](3)
    found = evaluated(situation, tmp_path)
    assert {each.kind for each in found.recommendations} == {"serving_gpu"}
    assert found.recommendations[0].scope.name == situation.model.name


def test_a_healthy_server_needs_no_advice(tmp_path: Path) -> None:
    found = evaluated(CLASSES["healthy"](1), tmp_path)
    assert found.recommendations == ()
    assert found.desired_replicas == ((CLASSES["healthy"](1).model.name, 1),)


def test_queries_do_not_grow_with_the_replicas(tmp_path: Path) -> None:
    situation = CLASSES["under_batched"](5)
    found = [evaluated(replace(situation, delays=(0.0,) * count), tmp_path / str(count)) for count in (1, 40)]
    assert [len(each.facts.serving.replicas) for each in found] == [1, 40]
    assert found[0].queries == found[1].queries <= 25
