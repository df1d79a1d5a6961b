"""Inference servers: their signals by replica, in at most six queries however many there are.

One query finds which servers are present, by one metric each; three read windows, one reads instant values, and one the
history of throughput and latency. The last window and the one before are two steps of the same queries. With more than
some five kinds of servers there are more queries, so that none is too long. Where headroom is tuned to latencies, the
first evaluation has one more: the history of a day.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Literal

from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.history import step_bounds
from gpu_advisor.evaluation.serving.facts import CurvePoint, DemandSample, GroupKey, ServingFacts, ServingReplica
from gpu_advisor.evaluation.serving.gpus import assign_gpus
from gpu_advisor.evaluation.serving.signals import SERVING_SIGNALS
from gpu_advisor.observation.serving_day import Demands, ServingDayCache
from gpu_advisor.promql.expressions import (
    Aggregate,
    AggregateOp,
    ConstantLabel,
    Expression,
    Labels,
    Matcher,
    Selector,
    TimeSeries,
    Vector,
    union,
)
from gpu_advisor.settings import EvaluationSettings
from gpu_advisor.sources.base import Source
from gpu_advisor.sources.exporters.serving.mapping import (
    UNDERSCORED,
    UNMAPPED_SERVERS,
    ServerMapping,
    server_mappings,
)
from gpu_advisor.sources.exporters.serving.series_labels import (
    CLUSTER,
    MODEL,
    TARGET_NAMES,
    SeriesLabels,
    series_labels,
    unusual_names,
)
from gpu_advisor.sources.query_plan import leaves_of, plan_queries

#: Queries for all window values, however many servers of a few kinds.
MAX_WINDOW_QUERIES = 3
MIN_LEAVES_PER_QUERY = 12

#: Leaves have some 200 characters, and VictoriaMetrics refuses a query of more than 16 KiB (-search.maxQueryLen).
MAX_LEAVES_PER_QUERY = 50

#: Kinds of servers in one query of histories, for the same limit: each has up to 2,000 characters, and 1,000 more with
#: the latencies.
MAX_HISTORIES_PER_QUERY, MAX_WITH_LATENCIES = 6, 4

#: The label that distinguishes parts of one query.
PART_LABEL = "_part"

#: Requests that vLLM's HTTP server counts, whether its engine's statistics are on or off.
COMPLETIONS = "/v1/(chat/)?completions"

#: What a server counts, and a router does not.
COUNTED = ("generation_token_rate", "prompt_token_rate", "request_rate", "itl_mean")

#: A share of the KV cache above this is none; rounding may exceed 1. Some proxies translate the pages of other servers,
#: and publish percent under vLLM's name of a ratio.
MAX_RATIO = 1.01

#: The window of a point of a server's history, in steps.
HISTORY_WINDOW_STEPS = 2

#: The signals of a curve's points, and of the demand.
CURVE_SIGNALS = ("running", "generation_token_rate", "itl_mean", "prompt_token_rate")

#: The parts of a demand: how a signal is aggregated over replicas.
DEMAND_PARTS: Mapping[str, tuple[AggregateOp, str]] = {
    "total_tokens": ("sum", "generation_token_rate"),
    "replicas": ("count", "running"),
    "total_waiting": ("sum", "waiting_now"),
}

#: Of the latencies of all requests of a model, the share and the quantities: the first that a server has a value of.
LATENCY_SHARE = 0.95
LATENCY_PARTS: Mapping[str, tuple[str, ...]] = {"ttft_p95": ("ttft",), "itl_p95": ("request_itl", "itl")}


@dataclass(frozen=True, slots=True)
class FoundServers:
    """Servers of one kind, and the labels that their series have."""

    mapping: ServerMapping
    labels: SeriesLabels

    @property
    def name(self) -> str:
        return self.mapping.name

    def group_of(self, labels: Mapping[str, str]) -> GroupKey:
        """The group of a series that has the labels of groups."""
        model = self.labels.value(MODEL, labels)
        cluster, namespace, job = (self.labels.value(each, labels) for each in ("cluster", "namespace", "job"))
        return GroupKey(self.name, model, cluster, namespace, "" if model else job)


Parts = dict[GroupKey, dict[str, dict[float, float]]]
PartsOf = Callable[[FoundServers, EvaluationSettings, tuple[Matcher, ...]], Iterable[tuple[str, Expression]]]
Histories = dict[GroupKey, tuple[CurvePoint, ...]]


def read_serving(
    source: Source,
    facts: Facts,
    at: float,
    matchers: tuple[Matcher, ...],
    cluster_label: str,
    day: ServingDayCache | None = None,
) -> ServingFacts:
    """The inference servers at time `at` (Unix time), joined to the GPUs. Raises SourceError.

    With a cache of the `day`, the demand is that of a day, with the latencies of all requests.
    """
    evaluation = facts.evaluation
    found, unmapped, answering = _find_servers(source, at, matchers, cluster_label)
    if not found:
        return ServingFacts(unmapped=unmapped, quiet=tuple(sorted(answering)))
    expressions = {
        each.name: signal_expressions(each.mapping, evaluation.window_seconds, matchers, each.labels) for each in found
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
        for name, info in each.mapping.info.items()
    }
    wanted |= {f"{each.name}/role": role for each in found if (role := _role_of_each(each, matchers)) is not None}
    leaves = sum(1 for expression in wanted.values() for _ in leaves_of(expression))
    size = max(MIN_LEAVES_PER_QUERY, ceil(leaves / MAX_WINDOW_QUERIES))
    plan = plan_queries(wanted, min(size, MAX_LEAVES_PER_QUERY))
    values, before = plan.read_twice(source, at, evaluation.window_seconds)
    replicas = with_window_before(build_replicas(found, values), build_replicas(found, before))
    engines, routers, silent = _pages(found, values)
    histories, demand = _read_histories(source, found, at, evaluation, matchers, day)
    return ServingFacts(
        replicas=assign_gpus(replicas, facts.gpus, facts.owners, facts.nodes),
        expressions=expressions,
        titles={each.name: each.mapping.title for each in found},
        flags={each.name: each.mapping.flags for each in found},
        helm_values={each.name: each.mapping.helm for each in found},
        histories=histories,
        demand=demand,
        window_seconds=evaluation.window_seconds,
        unmapped=unmapped,
        quiet=tuple(sorted(answering - engines - routers)),
        routers=tuple(sorted(routers)) if routers and not engines else (),
        silent=silent,
        counted_at_end=frozenset(each.name for each in found if each.mapping.counts_at_end),
    )


def _find_servers(
    source: Source, at: float, matchers: tuple[Matcher, ...], cluster_label: str
) -> tuple[tuple[FoundServers, ...], dict[str, str], set[str]]:
    """The kinds of servers that there are, with the labels in use, those that no mapping reads, and the addresses that
    answer requests for completions. One query."""
    known = [(each.name, metric, unusual_names(each)) for each in server_mappings() for metric in each.detect]
    known += [(name, name, ()) for name in UNMAPPED_SERVERS]
    detection = union(
        *(
            ConstantLabel(Aggregate("count", by, Selector(metric, matchers=matchers)), PART_LABEL, name)
            for name, metric, by in known
        )
    )
    answers = Selector("http_requests_total", matchers=(Matcher("handler", "=~", COMPLETIONS), *matchers))
    wanted = {"servers": union(detection, ConstantLabel(Aggregate("count", ("instance",), answers), PART_LABEL, ""))}
    in_use: dict[str, set[str]] = {}
    answering: set[str] = set()
    for labels in source.instant(wanted, at)["servers"]:
        each = dict(labels)
        if part := each.get(PART_LABEL, ""):
            in_use.setdefault(part, set()).update(each)
        else:
            answering.add(each.get("instance", ""))
    found = tuple(
        FoundServers(each, series_labels(each, cluster_label, in_use[each.name]))
        for each in server_mappings()
        if each.name in in_use
    )
    unmapped = {UNMAPPED_SERVERS[name]: name for name in sorted(in_use.keys() & UNMAPPED_SERVERS.keys())}
    return found, unmapped, answering


def _pages(
    servers: Iterable[FoundServers], values: Mapping[str, Vector]
) -> tuple[set[str], set[str], dict[str, tuple[str, ...]]]:
    """The addresses of pages with an engine's metrics, of those with a router's alone, and by the title of their server
    of those that count, but have no requests running or waiting. Pure."""
    engines: set[str] = set()
    routers: set[str] = set()
    counting: dict[str, set[str]] = {}
    for server in servers:
        counted = {labels for name in COUNTED for labels in values.get(f"{server.name}/{name}", {})}
        addresses = {dict(labels).get("instance", "") for labels in counted}
        counting.setdefault(server.mapping.title, set()).update(addresses)
        for name in ("running", "waiting"):
            for labels in values.get(f"{server.name}/{name}", {}):
                each = dict(labels)
                is_router = _is_routers(server.labels, each, {"request_rate": 1.0} if labels in counted else {})
                (routers if is_router else engines).add(each.get("instance", ""))
    silent = {title: tuple(sorted(found - engines - routers)) for title, found in sorted(counting.items())}
    return engines, routers - engines, {title: found for title, found in silent.items() if found}


def signal_expressions(
    mapping: ServerMapping, window_seconds: int, matchers: tuple[Matcher, ...] = (), labels: SeriesLabels | None = None
) -> dict[str, Expression]:
    """The expression of each signal that the server publishes, one value per engine."""
    by = (labels or series_labels(mapping)).all_names
    found = {
        signal.name: mapping.expression(signal.quantity, signal.reduction, signal.q, by, window_seconds, matchers)
        for signal in SERVING_SIGNALS
    }
    # Servers of embeddings and images publish no number of requests running: then those waiting were sampled.
    waiting = mapping.expression("waiting", "samples", None, by, window_seconds, matchers)
    if waiting is not None:
        running = found["samples"]
        found["samples"] = waiting if running is None else union(running, waiting)
    return {name: expression for name, expression in found.items() if expression is not None}


def build_replicas(servers: Sequence[FoundServers], values: Mapping[str, Vector]) -> tuple[ServingReplica, ...]:
    """Query results -> one replica per server, model and engine. Pure."""
    found: list[ServingReplica] = []
    for server in servers:
        names, mapping = server.labels, server.mapping
        started = {names.target(dict(labels)): value for labels, value in values.get("/started", {}).items()}
        roles = _roles(server, values.get(f"{mapping.name}/role", {}))
        by_engine: dict[Labels, dict[str, float]] = {}
        for signal in SERVING_SIGNALS:
            for labels, value in values.get(f"{mapping.name}/{signal.name}", {}).items():
                if math.isfinite(value):
                    by_engine.setdefault(labels, {})[signal.name] = value
        products = {name: _products(info.products, values.get(f"{mapping.name}/info/{name}", {}), names)
                    for name, info in mapping.info.items()}  # fmt: skip
        for labels, of in by_engine.items():
            if "running" not in of and "waiting" not in of:
                continue  # series of another program, or of a page that no longer exists
            each = dict(labels)
            if _is_routers(names, each, of):
                continue
            if of.get("kv_usage_max", 0.0) > MAX_RATIO:  # in percent, or of another quantity: not to be guessed
                of = {name: value for name, value in of.items() if name not in ("kv_usage", "kv_usage_max")}
            engine, (job, instance) = names.engine(each), names.target(each)
            for name, known in products.items():
                product = known.get((job, instance, engine))
                if product is not None:
                    of.setdefault(name, product)
            model, cluster, namespace, pod, node = (
                names.value(what, each) for what in (MODEL, "cluster", "namespace", "pod", "node")
            )
            found.append(
                ServingReplica(
                    mapping.name, job, instance, model, engine, cluster, namespace, pod, node, of,
                    started.get((job, instance)), series_labels=names.identifying(each),
                    role=roles.get((job, instance), ""),
                )
            )  # fmt: skip
    yielding = {each.name: each.mapping.yields_to for each in servers if each.mapping.yields_to}
    return tuple(sorted(_without_copies(_without_frontends(found, yielding))))


def _role_of_each(server: FoundServers, matchers: tuple[Matcher, ...]) -> Expression | None:
    """The label that names a server's part of disaggregated serving, by target. Not all of its metrics have it."""
    role = server.mapping.role
    if role is None:
        return None
    by = server.labels.names_of((CLUSTER, *TARGET_NAMES))
    return Aggregate("count", (*by, role.label), Selector(role.metric, matchers=matchers))


def _roles(server: FoundServers, vector: Vector) -> dict[tuple[str, str], str]:
    if server.mapping.role is None:
        return {}
    found = map(dict, vector)
    return {server.labels.target(each): each.get(server.mapping.role.label, "") for each in found}


def _without_frontends(
    replicas: Sequence[ServingReplica], yielding: Mapping[str, Literal["page", "model"]]
) -> Iterator[ServingReplica]:
    """Without servers whose engines publish more themselves: `yielding` says where these are, by the kind of server.
    What has a KV cache is an engine, as one of the models of an ensemble in Triton.

    Dynamo writes the names of models in lower case: https://github.com/ai-dynamo/dynamo/blob/main/docs/observability/metrics.md
    """

    def place(each: ServingReplica, where: Literal["page", "model"]) -> tuple[str, ...]:
        page = (each.cluster, each.job, each.instance)
        return page if where == "page" else (each.cluster, each.namespace, each.model.casefold())

    def is_engine(each: ServingReplica) -> bool:
        return each.server not in yielding or each.value("kv_usage") is not None

    known = {where: {place(each, where) for each in replicas if is_engine(each)} for where in set(yielding.values())}
    for each in replicas:
        if is_engine(each) or place(each, where := yielding[each.server]) not in known[where]:
            yield each


def _is_routers(names: SeriesLabels, labels: Mapping[str, str], values: Mapping[str, float]) -> bool:
    """Whether the series are a router's, which publishes gauges of its servers under their names: without a model, and
    without what only a server counts. Source: src/vllm_router of https://github.com/vllm-project/production-stack.
    """
    return MODEL in names.names and not names.value(MODEL, labels) and not any(name in values for name in COUNTED)


def with_window_before(
    replicas: Iterable[ServingReplica], before: Iterable[ServingReplica]
) -> tuple[ServingReplica, ...]:
    """Replicas with what each of them reported in the window before. Pure."""
    values = {each: each.values for each in before}
    return tuple(replace(each, before=values.get(each, {})) for each in replicas)


def _products(products: Iterable[Sequence[str]], vector: Vector, of: SeriesLabels) -> dict[tuple[str, str, str], float]:
    """Numbers that are labels, by target and engine: of the alternatives, the first whose labels are all numbers."""
    found: dict[tuple[str, str, str], float] = {}
    for labels in vector:
        each = dict(labels)
        known = (product for names in products if (product := _product([each.get(name, "") for name in names])))
        if (product := next(known, None)) is not None:
            job, instance = of.target(each)
            found[job, instance, of.engine(each)] = product
    return found


def _product(texts: Iterable[str]) -> float | None:
    """None if one is no number above 0."""
    try:
        product = math.prod(map(float, texts))
    except ValueError:
        return None
    return product if product > 0 and math.isfinite(product) else None


def _without_copies(replicas: Iterable[ServingReplica]) -> Iterator[ServingReplica]:
    """Of a server that several jobs scrape, under one or both spellings of its metrics, the one with most samples."""
    best: dict[tuple[object, ...], ServingReplica] = {}
    for each in replicas:
        # A pod may have a server on each of several ports: data-parallel ranks behind a load balancer.
        place = (each.namespace, each.pod, each.instance.rpartition(":")[2]) if each.pod else ("", "", each.instance)
        key = (each.server.removesuffix(UNDERSCORED), each.cluster, place, each.model, each.engine)
        if key not in best or _samples(each) > _samples(best[key]):
            best[key] = each
    yield from best.values()


def _samples(replica: ServingReplica) -> tuple[float, str]:
    return replica.value("samples") or 0.0, replica.job


def _read_histories(
    source: Source,
    servers: Sequence[FoundServers],
    at: float,
    evaluation: EvaluationSettings,
    matchers: tuple[Matcher, ...],
    day: ServingDayCache | None,
) -> tuple[Histories, Demands]:
    """The points of the curve of each group, and its demand, over the pools' history: one query for a few kinds of
    servers."""
    (first, last), step = step_bounds(at, evaluation), evaluation.step_seconds

    def read(parts: PartsOf, start: float, end: float) -> Parts:
        series: dict[Labels, TimeSeries] = {}
        size = MAX_HISTORIES_PER_QUERY if day is None else MAX_WITH_LATENCIES
        for number in range(0, len(servers), size):
            wanted = [
                ConstantLabel(expression, PART_LABEL, f"{each.name}/{part}")
                for each in servers[number : number + size]
                for part, expression in parts(each, evaluation, matchers)
            ]
            if wanted:
                series |= source.range(union(*wanted), start, end, step)
        return _by_part(series, servers)

    def of_demand(server: FoundServers, *given: Any) -> Iterator[tuple[str, Expression]]:
        yield from _demand_parts(server, *given)
        if day is not None:
            yield from _latency_parts(server, *given)

    def of_history(server: FoundServers, *given: Any) -> Iterator[tuple[str, Expression]]:
        yield from _curve_parts(server, *given)
        yield from of_demand(server, *given)

    by_part = read(of_history, first, last)
    demand: Demands = demand_samples(by_part)
    if day is not None:
        kinds = frozenset(each.name for each in servers)
        demand = day.extend(
            demand, lambda start, end: demand_samples(read(of_demand, start, end)), kinds, first, last, step
        )
    return curve_points(by_part), demand


def _curve_parts(
    server: FoundServers, evaluation: EvaluationSettings, matchers: tuple[Matcher, ...]
) -> Iterator[tuple[str, Expression]]:
    """The signals of a point of the curve: means of the replicas."""
    every = _history_signals(server, evaluation, matchers)
    for name in CURVE_SIGNALS:
        if name in every:
            yield name, Aggregate("avg", _by_group(server), every[name])


def _demand_parts(
    server: FoundServers, evaluation: EvaluationSettings, matchers: tuple[Matcher, ...]
) -> Iterator[tuple[str, Expression]]:
    """Of a server that several jobs scrape, one: its numbers would add up."""
    every = _history_signals(server, evaluation, matchers)
    by = _by_group(server)
    engines = tuple(dict.fromkeys((*by, *server.labels.places)))
    for part, (op, name) in DEMAND_PARTS.items():
        if name in every:
            yield part, Aggregate(op, by, Aggregate("max", engines, every[name]))


def _latency_parts(
    server: FoundServers, evaluation: EvaluationSettings, matchers: tuple[Matcher, ...]
) -> Iterator[tuple[str, Expression]]:
    """Quantiles over the requests of all replicas, of the window that objectives are checked in."""
    by, window = _by_group(server), evaluation.window_seconds
    for part, quantities in LATENCY_PARTS.items():
        found = (
            server.mapping.expression(each, "quantile", LATENCY_SHARE, by, window, matchers) for each in quantities
        )
        published = [each for each in found if each is not None]
        if published:
            yield part, union(*published)


def _history_signals(
    server: FoundServers, evaluation: EvaluationSettings, matchers: tuple[Matcher, ...]
) -> dict[str, Expression]:
    return signal_expressions(server.mapping, HISTORY_WINDOW_STEPS * evaluation.step_seconds, matchers, server.labels)


def _by_group(server: FoundServers) -> tuple[str, ...]:
    return server.labels.names_of(server.labels.group)


def _by_part(series: Mapping[Labels, TimeSeries], servers: Iterable[FoundServers]) -> Parts:
    """Series by group, and by the part of the query."""
    by_name = {each.name: each for each in servers}
    found: Parts = {}
    for labels, points in series.items():
        each = dict(labels)
        server, _, name = each.get(PART_LABEL, "").partition("/")
        key = by_name[server].group_of(each)
        found.setdefault(key, {})[name] = {time: value for time, value in points if math.isfinite(value)}
    return found


def curve_points(parts: Parts) -> Histories:
    """The steps that have all that a point of the curve needs. Pure."""
    found = {}
    for key, signals in parts.items():
        if all(name in signals for name in CURVE_SIGNALS):
            running, rate, itl, prompts = (signals[name] for name in CURVE_SIGNALS)
            found[key] = tuple(
                CurvePoint(running[time], rate[time], itl[time], prompts.get(time, 0.0) * running[time] / rate[time])
                for time in sorted(running)
                if running[time] > 0 and rate.get(time, 0.0) > 0 and itl.get(time, 0.0) > 0
            )
    return found


def demand_samples(parts: Parts) -> dict[GroupKey, tuple[DemandSample, ...]]:
    """The demand of the steps that have all of its parts. Pure."""
    found = {}
    for key, signals in parts.items():
        if all(name in signals for name in DEMAND_PARTS):
            tokens, replicas, waiting = (signals[name] for name in DEMAND_PARTS)
            ttft, itl = (signals.get(name, {}) for name in LATENCY_PARTS)
            found[key] = tuple(
                DemandSample(time, replicas[time], tokens[time], waiting[time], ttft.get(time), itl.get(time))
                for time in sorted(tokens)
                if time in replicas and time in waiting
            )
    return found
