"""Exporters that look like GPU exporters and that no mapping reads: their GPUs are missing, and that must show. Pure.

To find them, one instant query lists metrics by job, without the jobs of exporters that are mapped:

    names = read(unmapped_query(mapped_jobs))          # PromQL
    unmapped_exporters(metrics_by_job(names), mappings)
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from gpu_advisor.promql.compiler import quote_string
from gpu_advisor.promql.expressions import Labels, Matcher, any_of_values, metrics_of
from gpu_advisor.sources.exporters.mapping import ExporterMapping

#: Metrics with one of these words in their names are of GPUs or other accelerators. Syntax common to RE2 and Python.
#: Prometheus 3 stores OpenTelemetry's names with their dots, if configured to.
GPU_METRIC = (
    r"(?i)(.*[_:.])?(gpus?|npu|mlu|dcu|gcu|xpu|hpu|tpu|xpum|amdgpu|nvidia|nvml|dcgm|rocm|rsmi|habana[a-z]*|neuron[a-z]*"
    r"|ascend|accelerator)([_.].*)?"
)

#: What a GPU exporter publishes, by words in its metrics' names.
_ASPECTS: Mapping[str, re.Pattern[str]] = {
    "utilization": re.compile(r"(?i)util|duty_cycle|busy|activity|_active|_load|_use_percent|usage_percent"),
    "memory": re.compile(r"(?i)mem|vram|framebuffer|_fb_|hbm"),
    "temperature": re.compile(r"(?i)temp"),
    "power": re.compile(r"(?i)power|watt|energy|joule"),
    "clock": re.compile(r"(?i)clock|freq|_mhz|hertz"),
}
#: An exporter publishes several of these; a program that mentions a GPU publishes one.
_MIN_ASPECTS = 2

#: This project's own metrics besides those of its exporter, cluster metrics about requests, and recorded series. A
#: domain before a colon is no rule's: names of clouds have it, https://cloud.google.com/monitoring/promql/promql-mapping.
_NOT_OF_GPUS = re.compile(r"(gpu_advisor|gpu_exporter|training|kube|slurm)_.*|(?!\w+_(io|com):[^:]*$).*:.*")

_is_gpu_metric = re.compile(GPU_METRIC).fullmatch

#: The label of the query's results that has the metric's name.
NAME_LABEL = "metric_name"

#: https://prometheus.io/docs/guides/opentelemetry/
HOW_TO_UNDOT = (
    "let Prometheus write underscores for dots (otlp.translation_strategy: UnderscoreEscapingWithSuffixes, or"
    " metric_name_validation_scheme: legacy for the scrape)"
)

#: Metrics shown for an exporter.
MAX_SHOWN_METRICS = 5

HOW_TO_MAP = (
    "save its page and run `gpu-advisor mappings test PAGE`; then write a mapping into source.mappings_dir "
    "(docs/mappings.md, Adding an exporter)"
)


@dataclass(frozen=True, slots=True)
class UnmappedExporter:
    """A job whose metrics look like a GPU exporter's; `metrics` are some of their names, of `count`."""

    job: str
    metrics: tuple[str, ...]
    count: int

    @property
    def message(self) -> str:
        """What is missing, and how to map it."""
        more = f" and {self.count - len(self.metrics)} more" if self.count > len(self.metrics) else ""
        return (
            f"job {self.job or '(none)'} publishes {', '.join(self.metrics)}{more}, which no mapping reads, so its"
            f" GPUs are missing: {HOW_TO_UNDOT if any('.' in name for name in self.metrics) else HOW_TO_MAP}"
        )


def is_gpu_metric(name: str) -> bool:
    """Whether a metric looks like one of a GPU exporter."""
    return _is_gpu_metric(name) is not None and _NOT_OF_GPUS.fullmatch(name) is None


def unmapped_query(mapped_jobs: Iterable[str], matchers: Iterable[Matcher] = ()) -> str:
    """PromQL for the metrics of all other jobs that look like a GPU's: few series, as mapped jobs are left out.

    `matchers` are those of the settings: the GPUs of others in the store are not missing.
    """
    names, jobs = Matcher("__name__", "=~", GPU_METRIC), any_of_values("job", tuple(sorted(set(mapped_jobs))))
    others = (Matcher("job", "!=" if jobs.op == "=" else "!~", jobs.value),) if jobs.value else ()
    every = (f"{each.label}{each.op}{quote_string(each.value)}" for each in (names, *others, *matchers))
    selector = f"{{{', '.join(every)}}}"
    # A copy, as results have no names of metrics.
    return f'count by ({NAME_LABEL}, job) (label_replace({selector}, "{NAME_LABEL}", "$1", "__name__", "(.+)"))'


def metrics_by_job(results: Iterable[Labels]) -> dict[str, set[str]]:
    """The results of the query: metric names by job."""
    found: dict[str, set[str]] = {}
    for labels in results:
        each = dict(labels)
        found.setdefault(each.get("job", ""), set()).add(each.get(NAME_LABEL, ""))
    return found


def unmapped_exporters(
    names_by_job: Mapping[str, Collection[str]], mappings: Iterable[ExporterMapping]
) -> tuple[UnmappedExporter, ...]:
    """The jobs that look like GPU exporters and have no identity series of any mapping, by name."""
    identities = {
        metric
        for mapping in mappings
        if mapping.scope == "gpu" and not mapping.companion
        for metric in metrics_of(mapping.identity_expression())
    }
    found = []
    for job, names in sorted(names_by_job.items()):
        metrics = sorted(name for name in names if is_gpu_metric(name))
        aspects = {aspect for aspect, words in _ASPECTS.items() if any(words.search(name) for name in metrics)}
        if identities.isdisjoint(names) and len(aspects) >= _MIN_ASPECTS:
            found.append(UnmappedExporter(job, _shown(metrics), len(metrics)))
    return tuple(found)


def _shown(metrics: Iterable[str]) -> tuple[str, ...]:
    """One metric of each aspect, then others."""
    rest = list(metrics)
    first = []
    for words in _ASPECTS.values():
        name = next((name for name in rest if words.search(name)), None)
        if name is not None:
            first.append(name)
            rest.remove(name)
    return tuple([*first, *rest][:MAX_SHOWN_METRICS])
