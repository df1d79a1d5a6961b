"""Recording rules of inference servers, generated from their mappings: what dashboards and alerts read.

Their names and labels do not depend on the server: `server` is its kind, `model` the model that it serves or, where it
names none, its job. The level `server` has a series for each engine, with the labels of its target and its own; the
level `served_model` one for each model, namespace and cluster, since quantiles are of all its requests. A quantity that
a server does not publish has no series, and a router that repeats its servers' gauges without a model has none. What
passes its requests on to engines that are recorded too is in FRONTENDS, for sums not to have them twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from gpu_advisor.promql.compiler import to_promql
from gpu_advisor.promql.expressions import Expression, LabelReplace, Matcher, any_of_values, union
from gpu_advisor.sources.exporters.serving.mapping import UNDERSCORED, ServerMapping, server_mappings
from gpu_advisor.sources.exporters.serving.series_labels import MODEL, series_labels

WINDOW_SECONDS = 300


@dataclass(frozen=True, slots=True)
class ServingRecord:
    """A recorded series: a quantity of a mapping, reduced; `q` (0..1) is for quantiles."""

    record: str
    quantity: str
    reduction: str
    about: str
    q: float | None = None

    @property
    def by_model(self) -> bool:
        return self.reduction == "quantile"


#: The levels are `server` and `served_model`.
SERVING_RECORDS: tuple[ServingRecord, ...] = (
    ServingRecord("server:requests_running:last", "running", "last", "requests running"),
    ServingRecord("server:requests_waiting:last", "waiting", "last", "requests waiting"),
    ServingRecord("server:kv_cache_usage_ratio:last", "kv_usage", "last", "KV cache used"),
    ServingRecord("server:preemptions_per_second:rate5m", "preemptions", "rate", "preemptions"),
    ServingRecord("server:requests_per_second:rate5m", "requests", "rate", "requests finished"),
    ServingRecord("server:generated_tokens_per_second:rate5m", "generation_tokens", "rate", "tokens generated"),
    ServingRecord("server:prompt_tokens_per_second:rate5m", "prompt_tokens", "rate", "tokens of prompts"),
    ServingRecord("server:step_tokens:mean5m", "iteration_tokens", "mean", "tokens of a step, mean"),
    ServingRecord("server:execution_requests:mean5m", "batch", "mean", "requests of an execution, mean"),
    ServingRecord("served_model:ttft_seconds:p95_5m", "ttft", "quantile", "time to first token, 95th percentile", 0.95),
    ServingRecord("served_model:ttft_seconds:p50_5m", "ttft", "quantile", "time to first token, median", 0.5),
    ServingRecord("served_model:itl_seconds:p95_5m", "itl", "quantile", "inter-token latency, 95th percentile", 0.95),
    ServingRecord(
        "served_model:queue_seconds:p95_5m", "queue_time", "quantile", "time in the queue, 95th percentile", 0.95
    ),
)

#: Servers that pass requests on to recorded engines, 1 for each.
FRONTENDS = "server:frontend:info"

#: What an engine and what passes requests on to it have in common: alternatives, each with a selection of engines.
#: Dynamo writes a model in lower case, for which PromQL has no function: then the namespace has to do.
_SHARED: Mapping[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "page": ((("job", "instance", "exported_job", "exported_instance"), ""),),
    "model": ((("namespace",), '{namespace!=""}'), (("namespace", "model"), "")),
}

#: Names that a collector or a federating server gives to the labels of the targets behind it: without them, all would
#: be one server.
_BEHIND_A_COLLECTOR = ("exported_job", "exported_instance")


def serving_rules_document(jobs: Sequence[str] = (), cluster_label: str = "cluster") -> dict[str, object]:
    """A rules file as a YAML document, with a group for each kind of server. `jobs` restricts it to these jobs."""
    every = {each.name: each for each in server_mappings()}
    groups = []
    for name, mapping in every.items():
        if name.endswith(UNDERSCORED):
            continue
        same = [mapping, *([every[name + UNDERSCORED]] if name + UNDERSCORED in every else [])]
        rules = [
            {"record": record.record, "expr": to_promql(expression), "labels": {"server": name}}
            for record in SERVING_RECORDS
            if (expression := _expression(same, record, jobs, cluster_label)) is not None
        ]
        groups.append({"name": f"gpu-advisor-serving-{name}", "rules": rules})
    fronts = [
        {"record": FRONTENDS, "expr": _frontends(each, cluster_label), "labels": {"server": each.name}}
        for each in every.values()
        if each.yields_to
    ]
    return {"groups": [*groups, {"name": "gpu-advisor-serving-frontends", "rules": fronts}]}


def _frontends(mapping: ServerMapping, cluster_label: str) -> str:
    """Servers of this kind beside engines, over the series of the other groups. What has a KV cache is an engine."""
    assert mapping.yields_to
    cache = "server:kv_cache_usage_ratio:last"
    own = " or ".join(f'server:requests_{each}:last{{server="{mapping.name}"}}' for each in ("running", "waiting"))
    beside = " or ".join(
        f"({own}) unless {cache} and on ({', '.join(filter(None, (cluster_label, *labels)))}) {cache}{matcher}"
        for labels, matcher in _SHARED[mapping.yields_to]
    )
    return f"0 * ({beside}) + 1"


def _expression(
    same: Sequence[ServerMapping], record: ServingRecord, jobs: Sequence[str], cluster_label: str
) -> Expression | None:
    """Of one kind of server, under each spelling of its metrics and each label for the model."""
    found = [
        expression if label == MODEL else LabelReplace(expression, MODEL, label)
        for mapping in same
        for label in mapping.labels.get(MODEL, ("job",))
        if (expression := _of_model_label(mapping, label, record, jobs, cluster_label)) is not None
    ]
    return union(*found) if found else None


def _of_model_label(
    mapping: ServerMapping, label: str, record: ServingRecord, jobs: Sequence[str], cluster_label: str
) -> Expression | None:
    """Of the series whose model is in this label."""
    others = (other for what, names in mapping.labels.items() if what != MODEL for other in names)
    labels = series_labels(mapping, cluster_label, (label, *others, *_BEHIND_A_COLLECTOR))
    by = labels.names_of(labels.group) if record.by_model else labels.all_names
    matchers = [any_of_values("job", tuple(jobs))] if jobs else []
    for each in mapping.labels.get(MODEL, ()):
        matchers.append(Matcher(each, "!=" if each == label else "=", ""))
        if each == label:
            break
    return mapping.expression(record.quantity, record.reduction, record.q, by, WINDOW_SECONDS, tuple(matchers))


def render_serving_rules(jobs: Sequence[str] = (), cluster_label: str = "cluster") -> str:
    """The rules file of all inference servers that have a mapping."""
    head = (
        "# Recording rules of inference servers, generated from their mappings. A server that you do not run records\n"
        "# nothing. Generated by `gpu-advisor rules --serving`; do not edit.\n"
    )
    document = serving_rules_document(jobs, cluster_label)
    return head + yaml.safe_dump(document, sort_keys=False, width=math.inf, allow_unicode=True)
