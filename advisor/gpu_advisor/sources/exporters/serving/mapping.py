"""Mapping files of inference servers: how one server names the quantities of serving signals.

    gauge       a number of now: requests running
    counter     requests, tokens
    histogram   a metric with _bucket, _sum and _count
    per         the mean of two counters: microseconds of requests

A list of definitions is tried in order, per server: the first that has a value is used. `info` has numbers that are
labels: the first of its products whose labels are all numbers. `labels` name the server's label for the model, and
those that distinguish engines on one page; of several names, the first that a series has. `role` is the label of one
metric that names the part of disaggregated serving. `flags` and `helm` say how a setting is given; `flag=value` where
this server has a value of its own for it. What a server does not publish is not in its file. `counts_at_end`: it
counts a request's tokens when the request ends, so that a window without any may have long answers under way.
`yields_to`: it passes requests on to engines that may publish more of them, on the same `page` or under the same
`model`: then these are read instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, model_validator

from gpu_advisor.promql.expressions import (
    Affine,
    Aggregate,
    AggregateOp,
    Expression,
    Function,
    HistogramQuantile,
    Matcher,
    Ratio,
    Selector,
    union,
)
from gpu_advisor.sources.exporters.mapping import MappingModel, as_tuple

#: Inference servers that no mapping reads, by a metric that each of their pages has: the checklist names them.
#: Sources: https://docs.pytorch.org/serve/metrics.html,
#: https://docs.bentoml.com/en/latest/build-with-bentoml/observability/metrics.html,
#: https://docs.openvino.ai/2024/openvino-workflow/model-server/ovms_docs_metrics.html,
#: https://github.com/aphrodite-engine/aphrodite-engine (aphrodite/engine/metrics.py),
#: https://paddlepaddle.github.io/FastDeploy/online_serving/metrics/,
#: https://github.com/ModelTC/lightllm (lightllm/server/router/manager.py)
UNMAPPED_SERVERS: Mapping[str, str] = {
    "ts_inference_requests_total": "TorchServe",
    "bentoml_service_request_total": "BentoML",
    "ovms_requests_success": "OpenVINO Model Server",
    "aphrodite:num_requests_running": "Aphrodite",
    "fastdeploy:num_requests_running": "FastDeploy",
    "lightllm_queue_size": "LightLLM",
}


#: Servers that name their metrics with a colon are also stored with an underscore for it: SGLang changed its own names
#: in some versions (https://github.com/sgl-project/sglang/pull/15758, https://github.com/llm-d/llm-d/pull/1970), and
#: some pipelines escape the colon (https://github.com/kubernetes-sigs/inference-perf/issues/600). Such a server is of a
#: kind of its own, of the name with this suffix.
COLON, UNDERSCORED = ":", "-underscored"


class ServingMetric(MappingModel):
    """One metric, with the values of labels that select its series. Series that differ in the label `add` add up: parts
    of one engine; others repeat each other, as the ranks of a tensor parallel group do."""

    metric: str
    match: dict[str, str] = Field(default_factory=dict)
    add: str = ""


class MeanOfCounters(MappingModel):
    part: ServingMetric
    whole: ServingMetric
    scale: float = 1.0


class ServingQuantity(MappingModel):
    """One form of a quantity."""

    gauge: ServingMetric | None = None
    counter: ServingMetric | None = None
    histogram: ServingMetric | None = None
    per: MeanOfCounters | None = None

    @model_validator(mode="after")
    def _has_one_form(self) -> ServingQuantity:
        if sum(getattr(self, form) is not None for form in type(self).model_fields) != 1:
            raise ValueError(f"give one of {', '.join(type(self).model_fields)}")
        return self


class LabelProduct(MappingModel):
    """Alternatives, the best first: labels that are multiplied."""

    metric: str
    products: tuple[tuple[str, ...], ...] = Field(min_length=1)


class LabelOfMetric(MappingModel):
    metric: str
    label: str


class ServerMapping(MappingModel):
    """One file."""

    name: str
    title: str
    detect: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = Field(
        min_length=1, description="metrics of which each page of this server has one"
    )
    labels: dict[str, Annotated[tuple[str, ...], BeforeValidator(as_tuple)]]
    role: LabelOfMetric | None = None
    counts_at_end: bool = False
    yields_to: Literal["page", "model"] | None = None
    quantities: dict[str, Annotated[tuple[ServingQuantity, ...], BeforeValidator(as_tuple)]]
    info: dict[str, LabelProduct] = Field(default_factory=dict)
    flags: dict[str, str] = Field(default_factory=dict)
    helm: dict[str, str] = Field(default_factory=dict)

    @property
    def metric_names(self) -> frozenset[str]:
        """All metrics that it reads."""
        forms = [form for each in self.quantities.values() for form in each]
        plain = [each.metric for form in forms for each in (form.gauge, form.counter) if each]
        parts = [each.metric for form in forms if form.per for each in (form.per.part, form.per.whole)]
        buckets = [
            form.histogram.metric + suffix
            for form in forms
            if form.histogram
            for suffix in ("_bucket", "_sum", "_count")
        ]
        return frozenset((*self.detect, *plain, *parts, *buckets, *(info.metric for info in self.info.values())))

    def expression(
        self,
        quantity: str,
        reduction: str,
        q: float | None,
        by: tuple[str, ...],
        window_seconds: int,
        matchers: tuple[Matcher, ...] = (),
    ) -> Expression | None:
        """The reduction of a quantity by these labels; None if the server does not publish it."""
        builder = _Builder(by, window_seconds, matchers)
        built = [
            expression
            for form in self.quantities.get(quantity, ())
            if (expression := builder.build(form, reduction, q)) is not None
        ]
        return union(*built) if built else None


class _Builder:
    """The expressions of one definition."""

    def __init__(self, by: tuple[str, ...], window_seconds: int, matchers: tuple[Matcher, ...]) -> None:
        self.by, self.window_seconds, self.matchers = by, window_seconds, matchers

    def build(self, form: ServingQuantity, reduction: str, q: float | None) -> Expression | None:
        if form.gauge:
            return self._gauge(form.gauge, reduction, q)
        if form.counter:
            return self._counter(form.counter) if reduction == "rate" else None
        if form.histogram:
            return self._histogram(form.histogram, reduction, q)
        assert form.per is not None
        if reduction != "mean":
            return None
        mean = Ratio(self._sum(form.per.part, "rate"), self._sum(form.per.whole, "rate"))
        return mean if form.per.scale == 1 else Affine(mean, form.per.scale)

    def _gauge(self, metric: ServingMetric, reduction: str, q: float | None) -> Expression | None:
        """Of several series of one engine, ranks say, the greatest; its mean is over the samples of all."""
        if metric.add and reduction != "samples":
            part = self._parts(metric).build(ServingQuantity(gauge=metric.model_copy(update={"add": ""})), reduction, q)
            return None if part is None else Aggregate("sum", self.by, part)
        forms: dict[str, Callable[[], Expression]] = {
            "last": lambda: self._sum(metric, "last", op="max"),
            "max": lambda: self._sum(metric, "max", op="max"),
            "mean": lambda: self._sum(metric, "mean", op="max"),
            "quantile": lambda: self._sum(metric, "quantile", op="max", q=q),
            "samples": lambda: self._sum(metric, "count", op="max"),
        }
        return forms[reduction]() if reduction in forms else None

    def _counter(self, metric: ServingMetric) -> Expression:
        if not metric.add:
            return self._sum(metric, "rate")
        return Aggregate("sum", self.by, self._parts(metric)._sum(metric, "rate", op="max"))

    def _parts(self, metric: ServingMetric) -> _Builder:
        return _Builder((*self.by, metric.add), self.window_seconds, self.matchers)

    def _histogram(self, metric: ServingMetric, reduction: str, q: float | None) -> Expression | None:
        def part(suffix: str) -> ServingMetric:
            return metric.model_copy(update={"metric": metric.metric + suffix})

        if reduction == "quantile" and q is not None:
            return HistogramQuantile(q, self._sum(part("_bucket"), "rate", by=(*self.by, "le")))
        if reduction == "mean":
            return Ratio(self._sum(part("_sum"), "rate"), self._sum(part("_count"), "rate"))
        return self._sum(part("_count"), "rate") if reduction == "rate" else None

    def _sum(
        self,
        metric: ServingMetric,
        function: Function,
        *,
        op: AggregateOp = "sum",
        by: tuple[str, ...] | None = None,
        q: float | None = None,
    ) -> Expression:
        where = tuple(Matcher(label, "=", value) for label, value in sorted(metric.match.items()))
        window = None if function == "last" else self.window_seconds
        selector = Selector(metric.metric, function, window, q=q, matchers=(*where, *self.matchers))
        return Aggregate(op, self.by if by is None else by, selector)


@cache
def server_mappings() -> tuple[ServerMapping, ...]:
    """This project's mappings of inference servers, by name; and those of the same servers with underscores for the
    colons of their metrics."""
    folder = resources.files("gpu_advisor.sources.exporters") / "serving"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    read = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files]
    renamed = [
        {**_without_colons(each), "name": each["name"] + UNDERSCORED}
        for each in read
        if any(COLON in metric for metric in as_tuple(each["detect"]))
    ]
    return tuple(map(ServerMapping.model_validate, (*read, *renamed)))


def _without_colons(given: Any, of_metric: bool = False) -> Any:
    """The same definitions of metrics that are named without colons."""
    if isinstance(given, dict):
        return {key: _without_colons(value, key in ("detect", "metric")) for key, value in given.items()}
    if isinstance(given, list):
        return [_without_colons(each, of_metric) for each in given]
    return given.replace(COLON, "_") if of_metric else given
