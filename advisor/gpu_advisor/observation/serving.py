"""Inference servers: their signals by replica, in at most six queries however many there are.

One query finds which servers are present, by one metric each; at most three read windows, one reads instant values, and
one the history of throughput and latency.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil

from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.serving.facts import CurvePoint, ServingFacts, ServingReplica
from gpu_advisor.evaluation.serving.gpus import assign_gpus
from gpu_advisor.evaluation.serving.signals import SERVING_SIGNALS
from gpu_advisor.promql.expressions import (
    Aggregate,
    ConstantLabel,
    Expression,
    Labels,
    Matcher,
    Selector,
    TimeSeries,
    Vector,
    union,
)
from gpu_advisor.sources.base import Source
from gpu_advisor.sources.exporters.serving.mapping import ServerMapping, server_mappings
from gpu_advisor.sources.query_plan import leaves_of, plan_queries

#: Labels of a server's target. Prometheus sets the first two; service discovery usually adds the others.
TARGET_LABELS = ("job", "instance", "namespace", "pod", "node")

#: Queries for all window values, however many servers of however many kinds.
MAX_WINDOW_QUERIES = 3
MIN_LEAVES_PER_QUERY = 12

#: The label that tells parts of one query apart.
PART_LABEL = "_part"

#: The history of a server's curve: its length, its step, and the window of a point (seconds).
HISTORY_SECONDS, HISTORY_STEP_SECONDS, HISTORY_WINDOW_SECONDS = 6 * 3600, 60, 120

#: The signals of a curve's points, and of the demand.
CURVE_SIGNALS = ("running", "generation_token_rate", "itl_mean", "prompt_token_rate")


def read_serving(
    source: Source, facts: Facts, at: float, matchers: tuple[Matcher, ...], cluster_label: str
) -> ServingFacts:
    """The inference servers at time `at` (Unix time), joined to the GPUs. Raises SourceError."""
    evaluation = facts.evaluation
    detection = union(
        *(
            ConstantLabel(Aggregate("count", (), Selector(each.detect, matchers=matchers)), PART_LABEL, each.name)
            for each in server_mappings()
        )
    )
    counts = source.instant({"servers": detection}, at)["servers"]
    present = {dict(labels).get(PART_LABEL, "") for labels in counts}
    found = tuple(each for each in server_mappings() if each.name in present)
    if not found:
        return ServingFacts(queries=1)
    expressions = {
        each.name: signal_expressions(each, evaluation.window_seconds, matchers, cluster_label) for each in found
    }
    wanted = {
        f"{server}/{name}": expression
        for server, by_name in expressions.items()
        for name, expression in by_name.items()
    }
    wanted["/started"] = Selector("process_start_time_seconds", matchers=matchers)
    wanted |= {
        f"{each.name}/info/{name}": Selector(info.metric, matchers=matchers)
        for each in found
        for name, info in each.info.items()
    }
    leaves = sum(1 for expression in wanted.values() for _ in leaves_of(expression))
    plan = plan_queries(wanted, max(MIN_LEAVES_PER_QUERY, ceil(leaves / MAX_WINDOW_QUERIES)))
    values = plan.read(source, at)
    replicas = build_replicas(found, values, cluster_label)
    histories = _read_histories(source, found, at, matchers, cluster_label)
    return ServingFacts(
        replicas=assign_gpus(replicas, facts.gpus, facts.owners, facts.nodes),
        expressions=expressions,
        titles={each.name: each.title for each in found},
        flags={each.name: each.flags for each in found},
        helm_values={each.name: each.helm for each in found},
        model_labels={each.name: each.labels.get("model", "") for each in found},
        histories=histories,
        window_seconds=evaluation.window_seconds,
        queries=2 + len(plan.combined),
    )


def signal_expressions(
    mapping: ServerMapping, window_seconds: int, matchers: tuple[Matcher, ...] = (), cluster_label: str = ""
) -> dict[str, Expression]:
    """The expression of each signal that the server publishes, one value per engine."""
    by = (*((cluster_label,) if cluster_label else ()), *TARGET_LABELS, *mapping.engine_labels)
    found = {
        signal.name: mapping.expression(signal.quantity, signal.reduction, signal.q, by, window_seconds, matchers)
        for signal in SERVING_SIGNALS
    }
    return {name: expression for name, expression in found.items() if expression is not None}


def build_replicas(
    mappings: Sequence[ServerMapping], values: Mapping[str, Vector], cluster_label: str
) -> tuple[ServingReplica, ...]:
    """Query results -> one replica per server, model and engine. Pure."""
    started = {_target(dict(labels)): value for labels, value in values.get("/started", {}).items()}
    found: list[ServingReplica] = []
    for mapping in mappings:
        by_engine: dict[Labels, dict[str, float]] = {}
        for signal in SERVING_SIGNALS:
            for labels, value in values.get(f"{mapping.name}/{signal.name}", {}).items():
                if math.isfinite(value):
                    by_engine.setdefault(labels, {})[signal.name] = value
        products = {name: _products(info.product, values.get(f"{mapping.name}/info/{name}", {}), mapping)
                    for name, info in mapping.info.items()}  # fmt: skip
        for labels, of in by_engine.items():
            if "running" not in of and "waiting" not in of:
                continue  # series of another program, or of a page that no longer exists
            each = dict(labels)
            engine = each.get(mapping.labels.get("engine", ""), "")
            for name, known in products.items():
                product = known.get((*_target(each), engine))
                if product is not None:
                    of.setdefault(name, product)
            found.append(
                ServingReplica(
                    mapping.name, each.get("job", ""), each.get("instance", ""),
                    each.get(mapping.labels.get("model", ""), ""), engine, each.get(cluster_label, ""),
                    each.get("namespace", ""), each.get("pod", ""), each.get("node", ""), of,
                    started.get(_target(each)),
                )
            )  # fmt: skip
    return tuple(sorted(_without_copies(found)))


def _target(labels: Mapping[str, str]) -> tuple[str, str]:
    return labels.get("job", ""), labels.get("instance", "")


def _products(names: Iterable[str], vector: Vector, mapping: ServerMapping) -> dict[tuple[str, str, str], float]:
    """The product of numbers that are labels, by target and engine; none where one is no number."""
    found: dict[tuple[str, str, str], float] = {}
    for labels in vector:
        each = dict(labels)
        try:
            product = math.prod(float(each.get(name, "")) for name in names)
        except ValueError:
            continue
        if product > 0 and math.isfinite(product):
            job, instance = _target(each)
            found[job, instance, each.get(mapping.labels.get("engine", ""), "")] = product
    return found


def _without_copies(replicas: Iterable[ServingReplica]) -> Iterator[ServingReplica]:
    """Of a server that several jobs scrape, the one with most samples."""
    best: dict[tuple[object, ...], ServingReplica] = {}
    for each in replicas:
        place = (each.namespace, each.pod) if each.pod else ("", each.instance)
        key = (each.server, each.cluster, place, each.model, each.engine)
        if key not in best or _samples(each) > _samples(best[key]):
            best[key] = each
    yield from best.values()


def _samples(replica: ServingReplica) -> tuple[float, str]:
    return replica.value("samples") or 0.0, replica.job


def _read_histories(
    source: Source, mappings: Sequence[ServerMapping], at: float, matchers: tuple[Matcher, ...], cluster_label: str
) -> dict[tuple[str, str], tuple[CurvePoint, ...]]:  # fmt: skip
    """Points of the curve of each server and model over the last hours: one query."""
    parts: list[Expression] = []
    for mapping in mappings:
        label = mapping.labels.get("model")
        by = (label,) if label else ()
        for name in CURVE_SIGNALS:
            every = signal_expressions(mapping, HISTORY_WINDOW_SECONDS, matchers, cluster_label)
            if name in every:
                parts.append(ConstantLabel(Aggregate("avg", by, every[name]), PART_LABEL, f"{mapping.name}/{name}"))
    if not parts:
        return {}
    end = at // HISTORY_STEP_SECONDS * HISTORY_STEP_SECONDS
    series = source.range(union(*parts), end - HISTORY_SECONDS, end, HISTORY_STEP_SECONDS)
    return curve_points(series, {each.name: each.labels.get("model", "") for each in mappings})


def curve_points(
    series: Mapping[Labels, TimeSeries], model_labels: Mapping[str, str]
) -> dict[tuple[str, str], tuple[CurvePoint, ...]]:
    """Series of means by server, model and signal -> the points of steps that have all of them. Pure."""
    by_signal: dict[tuple[str, str], dict[str, dict[float, float]]] = {}
    for labels, points in series.items():
        each = dict(labels)
        server, _, name = each.get(PART_LABEL, "").partition("/")
        key = server, each.get(model_labels.get(server, ""), "")
        by_signal.setdefault(key, {})[name] = dict(points)
    found = {}
    for key, signals in by_signal.items():
        if all(name in signals for name in CURVE_SIGNALS):
            running, rate, itl, prompts = (signals[name] for name in CURVE_SIGNALS)
            rows = [
                CurvePoint(running[time], rate[time], itl[time], prompts.get(time, 0.0) * running[time] / rate[time])
                for time in sorted(running)
                if time in rate and time in itl and running[time] > 0 and rate[time] > 0 and itl[time] > 0
            ]
            found[key] = tuple(row for row in rows if all(map(math.isfinite, (row.tokens_per_second, row.itl_seconds))))
    return found
