"""Mapping files: how one family of exporters names the quantities of signals.

A file defines how to detect its exporter and which GPU or node its series belong to (`identity`, `labels`), and for
each quantity some of these forms, of which the best one for a signal's reduction is used:

    share   two counters, part of whole: the mean over any window is exact        (busy seconds of observed seconds)
    level   two gauges, part of whole                                             (memory used of memory total)
    gauge   one gauge, with a scale                                               (percent to ratio)
    total   the sum of several gauges, with a scale                               (used plus free is the total)
    counter one counter, perhaps per a gauge                                      (bytes per link speed)
    speed   one gauge that is a rate already, or a flag: its mean is the rate     (bytes per second; throttled or not)
    rollup  a quantity recorded hourly by recording rules                         (for long windows)

A list of several definitions is tried in order, per GPU: the first that has a value is used.

`by` are the labels that identify the GPU or node; `each`, if given, are finer labels (a disk, a link), of which the
maximum is used. All are canonical names; `labels` maps them to the exporter's names.

A quantity that an exporter does not publish is not in its file: the signal is then unsupported, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from gpu_advisor.promql.expressions import Aggregate, Expression, Labels, Matcher, Selector, union
from gpu_advisor.promql.vocabulary import ScopeName


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def label_matchers(match: dict[str, str]) -> tuple[Matcher, ...]:
    """The matchers of a mapping's `match` or `where`: a value that starts with ~ is a regular expression (RE2)."""
    return tuple(
        Matcher(label, "=~", value[1:]) if value.startswith("~") else Matcher(label, "=", value)
        for label, value in sorted(match.items())
    )


class MetricSelector(_StrictModel):
    """One metric. `match` has label values, or regular expressions after a ~."""

    metric: str
    match: dict[str, str] = Field(default_factory=dict)


class GaugeSum(_StrictModel):
    """The sum of several gauges; a GPU or node that lacks one of them has no sum."""

    sum: tuple[MetricSelector, ...] = Field(min_length=2)
    scale: float = 1.0


class Gauge(MetricSelector):
    scale: float = 1.0


class PartOfWhole(_StrictModel):
    part: MetricSelector
    whole: MetricSelector | GaugeSum
    complement: bool = False


class Counter(MetricSelector):
    per: MetricSelector | None = None
    scale: float = 1.0


class Rollup(_StrictModel):
    """A recorded mean, and its data coverage of each step."""

    mean: str
    coverage: str | None = None
    step_seconds: int = 3600


class Quantity(_StrictModel):
    each: tuple[str, ...] = ()
    share: PartOfWhole | None = None
    level: PartOfWhole | None = None
    gauge: Gauge | None = None
    total: GaugeSum | None = None
    counter: Counter | None = None
    speed: Gauge | None = None
    rollup: Rollup | None = None


class IdentitySeries(_StrictModel):
    """Series with one row per GPU or node, whose labels identify it. The first one present is used."""

    metrics: tuple[str, ...] = Field(min_length=1)


class ExporterMapping(_StrictModel):
    """One file.

    `rank`: of two exporters that report the same GPU, the one with the lower rank is used. A `companion` adds signals
    to GPUs that other exporters report, but no GPUs.
    """

    name: str
    title: str = ""
    rank: int = 100
    scope: ScopeName
    companion: bool = False
    vendor: str = ""
    by: tuple[str, ...]
    identity: IdentitySeries
    witness: str = Field(
        "",
        description="a metric with one series per GPU or node and scrape that has the labels of all others: shows which"
        " series are copies; the identity series if not given",
    )
    labels: dict[str, str | tuple[str, ...]] = Field(default_factory=dict, description="canonical -> exporter's label")
    prefixes: dict[str, str] = Field(default_factory=dict, description="canonical label -> prefix of its value")
    where: dict[str, str] = Field(
        default_factory=dict, description="as `match`, for all quantities but not for identity"
    )
    quantities: dict[str, Quantity | tuple[Quantity, ...]]

    def definitions(self, quantity: str) -> tuple[Quantity, ...]:
        """The definitions of a quantity, best first."""
        found = self.quantities.get(quantity, ())
        return found if isinstance(found, tuple) else (found,)

    @property
    def witnesses(self) -> tuple[str, ...]:
        """Metrics whose samples show when a GPU or node was scraped, by which series."""
        return (self.witness,) if self.witness else self.identity.metrics

    def exporter_labels(self, label: str) -> tuple[str, ...]:
        """The exporter's labels for a canonical label: the first that is not empty is used."""
        found = self.labels.get(label, label)
        return found if isinstance(found, tuple) else (found,)

    def identity_expression(self, window_seconds: int | None = None) -> Expression:
        """The identity series, now or in a window. For a companion, only its targets."""
        function: Literal["last", "count"] = "last" if window_seconds is None else "count"
        found: Expression = union(*(Selector(metric, function, window_seconds) for metric in self.identity.metrics))
        return Aggregate("count", ("job", "instance"), found) if self.companion else found

    def canonical_identities(self, rows: Iterable[Labels]) -> list[dict[str, str]]:
        """Identity rows under canonical label names. `exporter` is this mapping's name; job and instance stay."""
        table = [(label, self.exporter_labels(label), self.prefixes.get(label, "")) for label in IDENTITY_LABELS]
        table += [(name, (name,), "") for name in ("job", "instance")]
        found = []
        for labels in rows:
            original = dict(labels)
            each = {"exporter": self.name, "vendor": self.vendor}
            for label, names, prefix in table:
                for name in names:
                    if name in original:
                        each[label] = prefix + original[name]
                        break
            found.append(each)
        return found


#: The mapping of the series made by recording rules.
RECORDED_SERIES = "recorded series"

#: Canonical identity labels.
IDENTITY_LABELS = ("uuid", "index", "name", "vendor", "pci_bus_id", "nodename", "mig_profile")


@cache
def mappings() -> tuple[ExporterMapping, ...]:
    """All mapping files, by rank."""
    found = [ExporterMapping.model_validate(yaml.safe_load(text)) for text in _files()]
    return tuple(sorted(found, key=lambda mapping: (mapping.rank, mapping.name)))


@cache
def own_mappings() -> tuple[ExporterMapping, ...]:
    """The mappings of this project's own series: exporter, rules, jobs, and hosts under node_exporter's names."""
    return tuple(mapping for mapping in mappings() if mapping.rank <= 0)


def _files() -> Iterator[str]:
    folder = resources.files("gpu_advisor.sources.exporters") / "mappings"
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            yield file.read_text(encoding="utf-8")
