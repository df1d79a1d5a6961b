"""ExporterMapping files: how the signals' quantities are spelled by one family of exporters.

A file says how its exporter is recognized and who its series are of (`identity`, `labels`), and has for each quantity
some of these forms, of which a signal's reduction picks the one that gives it best:

    share   two counters, part of whole: the mean over any window is exact        (busy seconds of observed seconds)
    level   two gauges, part of whole                                             (memory used of memory total)
    gauge   one gauge, with a scale                                               (percent to ratio)
    total   several gauges added up, with a scale                                 (used and free make the total)
    counter one counter, perhaps per a gauge                                      (bytes per link speed)
    speed   one gauge that is a rate already, or a flag: its mean is the rate     (bytes per second; throttled or not)
    rollup  what recording rules made of a quantity, hour by hour                 (for long windows)

Several of these in a list are tried one after the other, for each GPU by itself: the first that has a value counts.

`by` are the labels that name the thing measured; `each`, if given, are finer labels (a disk, a link), of which the
highest value counts. All are our names; `labels` says how the exporter calls them.

What an exporter does not publish is not in its file: then the signal is unsupported, never guessed.
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
    """The matchers of a mapping's `match` or `where`: a value that begins with ~ is a regular expression (RE2)."""
    return tuple(
        Matcher(label, "=~", value[1:]) if value.startswith("~") else Matcher(label, "=", value)
        for label, value in sorted(match.items())
    )


class MetricSelector(_StrictModel):
    """One series family. `match` are labels with their values, or with regular expressions behind a ~."""

    metric: str
    match: dict[str, str] = Field(default_factory=dict)


class GaugeSum(_StrictModel):
    """Several gauges added up; a thing that lacks one of them has no total."""

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
    """A recorded mean, and how much of each step it was made of."""

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
    """Who is there: series with one row a thing, whose labels tell who it is. The first that is there counts."""

    metrics: tuple[str, ...] = Field(min_length=1)


class ExporterMapping(_StrictModel):
    """One file.

    `rank`: of two exporters that tell of the same GPU, the one with the lower rank is listened to. A `companion` tells
    of GPUs that others tell of: it adds signals, but no GPUs.
    """

    name: str
    title: str = ""
    rank: int = 100
    scope: ScopeName
    companion: bool = False
    vendor: str = ""
    by: tuple[str, ...]
    identity: IdentitySeries
    labels: dict[str, str | tuple[str, ...]] = Field(default_factory=dict, description="ours -> theirs")
    prefixes: dict[str, str] = Field(default_factory=dict, description="ours -> what stands before their value")
    where: dict[str, str] = Field(
        default_factory=dict, description="as `match`, of all values; identity is read without"
    )
    quantities: dict[str, Quantity | tuple[Quantity, ...]]

    def definitions(self, quantity: str) -> tuple[Quantity, ...]:
        """The ways to a quantity, best first."""
        found = self.quantities.get(quantity, ())
        return found if isinstance(found, tuple) else (found,)

    def exporter_labels(self, label: str) -> tuple[str, ...]:
        """Where our label stands in this exporter's series: the first of these that is not empty."""
        found = self.labels.get(label, label)
        return found if isinstance(found, tuple) else (found,)

    def identity_expression(self, window_seconds: int | None = None) -> Expression:
        """The identity series there now, or those of a window. Of a companion it is enough to know where it is."""
        function: Literal["last", "count"] = "last" if window_seconds is None else "count"
        found: Expression = union(*(Selector(metric, function, window_seconds) for metric in self.identity.metrics))
        return Aggregate("count", ("job", "instance"), found) if self.companion else found

    def canonical_identities(self, rows: Iterable[Labels]) -> list[dict[str, str]]:
        """Identity rows under our names. `exporter` is this mapping's name; job and instance are as they were."""
        table = [(ours, self.exporter_labels(ours), self.prefixes.get(ours, "")) for ours in IDENTITY_LABELS]
        table += [(name, (name,), "") for name in ("job", "instance")]
        found = []
        for labels in rows:
            theirs = dict(labels)
            each = {"exporter": self.name, "vendor": self.vendor}
            for ours, names, prefix in table:
                for name in names:
                    if name in theirs:
                        each[ours] = prefix + theirs[name]
                        break
            found.append(each)
        return found


#: The mapping of the series that recording rules make.
RECORDED_SERIES = "recorded series"

#: What is known of a thing besides its values.
IDENTITY_LABELS = ("uuid", "index", "name", "vendor", "pci_bus_id", "nodename", "mig_profile")


@cache
def mappings() -> tuple[ExporterMapping, ...]:
    """All mapping files, by rank."""
    found = [ExporterMapping.model_validate(yaml.safe_load(text)) for text in _files()]
    return tuple(sorted(found, key=lambda mapping: (mapping.rank, mapping.name)))


@cache
def own_mappings() -> tuple[ExporterMapping, ...]:
    """Those of what this project makes itself: its exporter and rules, jobs, and hosts under node_exporter's names."""
    return tuple(mapping for mapping in mappings() if mapping.rank <= 0)


def _files() -> Iterator[str]:
    folder = resources.files("gpu_advisor.sources.exporters") / "mappings"
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            yield file.read_text(encoding="utf-8")
