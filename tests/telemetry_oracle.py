"""Evaluates drawn histories on a source, and compares with the truth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import Source
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.source import EmbeddedSource
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.source import PrometheusSource

from tests.servers import prometheus
from tests.telemetry_histories import (
    IDLE_WINDOW,
    WINDOW,
    DrawnHistory,
    Sample,
    draw_history,
    missed_releases,
    observe,
    openmetrics_lines,
    wrong_releases,
)

AT = 1_795_003_200.0

#: A mean over five minutes may differ from the truth by gaps of a tenth, and by what lies before its first sample and
#: after its last, together one scrape interval.
TOLERANCE = 0.1


@dataclass(frozen=True)
class Verdict:
    """`could` counts idle GPUs that data suffice for."""

    seed: int
    kind: str
    wrong: tuple[str, ...]
    missed: tuple[str, ...]
    could: int
    queries: int


def judge(history: DrawnHistory, seed: int, evaluation: Evaluation, at: float = AT) -> Verdict:
    released = [uuid for each in evaluation.recommendations if each.kind == "idle_reclaim" for uuid in each.gpus]
    idle = [observe(history, gpu, at, IDLE_WINDOW) for gpu in history.gpus]
    return Verdict(
        seed,
        history.kind,
        (*wrong_releases(history, at, released), *_wrong_values(history, evaluation, at)),
        tuple(missed_releases(history, at, released)),
        sum(1 for each in idle if each.coverage >= 0.95 and each.utilization == 0),
        evaluation.queries,
    )


def _wrong_values(history: DrawnHistory, evaluation: Evaluation, at: float) -> Iterator[str]:
    """Means that were believed, and are not near the truth. A gauge that is read rarely is no mean."""
    facts = evaluation.facts
    interval = max(each.interval for each in history.streams)
    sampled = history.style == "dcgm-exporter" and interval > 15
    for gpu in history.gpus:
        value = facts.values.get("gpu_utilization", {}).get(gpu.uuid)
        coverage = facts.values.get("gpu_utilization_coverage", {}).get(gpu.uuid)
        if coverage is not None and not 0 <= coverage <= 1:
            yield f"{gpu.uuid}: coverage {coverage}"
        if value is None or coverage is None or coverage < facts.evaluation.min_coverage_ratio or sampled:
            continue
        truth = observe(history, gpu, at, WINDOW).utilization
        if abs(value - truth) > TOLERANCE + interval / WINDOW:
            yield f"{gpu.uuid}: {value:.3f} for {truth:.3f}"


def evaluate_embedded(seeds: Iterable[int], folder: Path, kind: str | None = None) -> Iterator[Verdict]:
    """Each history in a history file of its own."""
    for seed in seeds:
        history = draw_history(seed, AT, kind)
        store = History(folder / f"{seed}.db")
        by_target: dict[str, list[tuple[str, tuple[tuple[str, str], ...], float, float]]] = {}
        for name, labels, value, at in history.samples():
            each = by_target.setdefault(labels["instance"], [])
            each.append((name, tuple(sorted(labels.items())), value, at))
        for target, samples in by_target.items():
            store.import_samples(target, samples)
        yield judge(history, seed, evaluate(EmbeddedSource(store), Settings(), AT))
        store.close()
        (folder / f"{seed}.db").unlink()


def evaluate_on(engine: str, seeds: Iterable[int], folder: Path) -> Iterator[Verdict]:
    """All histories in one server, each with a label that the settings select."""
    drawn = {seed: replace(draw_history(seed, AT), labels={"history": str(seed)}) for seed in seeds}
    with loaded_server(engine, (each for history in drawn.values() for each in history.samples()), folder) as source:
        for seed, history in drawn.items():
            yield judge(history, seed, evaluate(source, selecting(source, history=str(seed)), AT))


@contextmanager
def loaded_server(engine: str, samples: Iterator[Sample], folder: Path) -> Iterator[PrometheusSource]:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "samples.om"
    with file.open("w", encoding="utf-8") as opened:
        opened.writelines(openmetrics_lines(samples))
    with prometheus(folder, backfill=file, engine=engine) as server:
        source = PrometheusSource(PrometheusClientConfig(server.url, timeout_seconds=60))
        try:
            yield source
        finally:
            source.close()


def selecting(source: Source, **labels: str) -> Settings:
    return Settings.model_validate({"source": {"prometheus": {"url": source.address, "matchers": labels}}})
