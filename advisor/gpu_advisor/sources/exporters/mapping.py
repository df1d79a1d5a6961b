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
maximum is used. All are canonical names; `labels` maps them to the exporter's names: to one label, or to a list of
candidates, of which the first that has a value is used, and no placeholder such as N/A. A list within the list joins
labels: `uuid: [serial_number, [hostname, gpu_id]]`.

MIG slices are GPUs of their own, if the mapping has `slice_labels`: these replace `labels` in series of slices. A
quantity is of whole GPUs (`of: gpu`, the default), of slices (`of: slice`), or of the board even if a slice's series
repeats it (`of: board`).

A quantity that an exporter does not publish is not in its file: the signal is then unsupported, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from gpu_advisor.promql.expressions import (
    Aggregate,
    Expression,
    LabelJoin,
    LabelReplace,
    Matcher,
    ScopeName,
    Selector,
    union,
)
from gpu_advisor.sources.exporters.identity_labels import Candidate, identity_expression


class MappingModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def label_matchers(match: dict[str, str]) -> tuple[Matcher, ...]:
    """The matchers of a mapping's `match` or `where`: a value that starts with ~ is a regular expression (RE2)."""
    return tuple(
        Matcher(label, "=~", value[1:]) if value.startswith("~") else Matcher(label, "=", value)
        for label, value in sorted(match.items())
    )


def _as_candidates(value: Any) -> Any:
    """One label, or a list of labels and lists of labels -> a list of lists."""
    if isinstance(value, str):
        return ((value,),)
    if isinstance(value, list | tuple) and value:
        return tuple((each,) if isinstance(each, str) else each for each in value)
    raise ValueError("give a label, or a list of labels and lists of labels, best first")


#: The exporter's labels for a canonical label, best first.
Candidates = Annotated[tuple[Candidate, ...], BeforeValidator(_as_candidates)]


class MetricSelector(MappingModel):
    """One metric. `match` has label values, or regular expressions after a ~."""

    metric: str
    match: dict[str, str] = Field(default_factory=dict)
    below: float | None = Field(None, description="values from here on mean no value; `valid_below` if not given")
    labels: dict[str, Candidates] = Field(default_factory=dict, description="as in the mapping, for this metric alone")

    @field_validator("match")
    @classmethod
    def _regular_expressions(cls, match: dict[str, str]) -> dict[str, str]:
        for value in match.values():
            if value.startswith("~"):
                try:
                    re.compile(value[1:])
                except re.error as error:
                    raise ValueError(f"{value[1:]!r} is not a regular expression: {error}") from error
        return match


class GaugeSum(MappingModel):
    """The sum of several gauges; a GPU or node that lacks one of them has no sum."""

    sum: tuple[MetricSelector, ...] = Field(min_length=2)
    scale: float = 1.0


class Gauge(MetricSelector):
    scale: float = 1.0


def _kind_of_whole(value: Any) -> str:
    return "sum" if isinstance(value, GaugeSum) or (isinstance(value, dict) and "sum" in value) else "metric"


class PartOfWhole(MappingModel):
    part: MetricSelector
    whole: Annotated[
        Annotated[MetricSelector, Tag("metric")] | Annotated[GaugeSum, Tag("sum")], Discriminator(_kind_of_whole)
    ]
    complement: bool = False


class Counter(MetricSelector):
    per: MetricSelector | None = None
    scale: float = 1.0


class Rollup(MappingModel):
    """A recorded mean, and its data coverage of each step."""

    mean: str
    coverage: str | None = None
    step_seconds: int = 3600


QuantityOf = Literal["gpu", "slice", "board"]


class Quantity(MappingModel):
    of: QuantityOf = "gpu"
    each: tuple[str, ...] = ()
    share: PartOfWhole | None = None
    level: PartOfWhole | None = None
    gauge: Gauge | None = None
    total: GaugeSum | None = None
    counter: Counter | None = None
    speed: Gauge | None = None
    rollup: Rollup | None = None

    @model_validator(mode="after")
    def _has_a_form(self) -> Quantity:
        forms = [name for name in type(self).model_fields if name not in ("of", "each")]
        if all(getattr(self, form) is None for form in forms):
            raise ValueError(f"give one of {', '.join(forms)}")
        return self


def as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


Definitions = Annotated[tuple[Quantity, ...], BeforeValidator(as_tuple)]


class IdentitySeries(MappingModel):
    """Series with one row per GPU or node, whose labels identify it. The first one present is used."""

    metrics: tuple[str, ...] = Field(min_length=1)


class ExporterMapping(MappingModel):
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
    labels: dict[str, Candidates] = Field(default_factory=dict, description="canonical -> exporter's labels")
    slice_labels: dict[str, Candidates] = Field(
        default_factory=dict, description="as `labels`, for series of MIG slices: those whose identifying label has one"
    )
    prefixes: dict[str, str] = Field(default_factory=dict, description="canonical label -> prefix of its value")
    separators: dict[str, str] = Field(
        default_factory=dict, description="canonical label that does not identify -> text between joined values"
    )
    where: dict[str, str] = Field(
        default_factory=dict, description="as `match`, for all quantities but not for identity"
    )
    valid_below: float | None = Field(None, description="readings from here on mean no value, as in DCGM")
    metric_prefixes: tuple[str, ...] = Field(
        ("",), min_length=1, description="the exporter may put one of these before the names of all its metrics"
    )
    quantities: dict[str, Definitions]
    identified_by: Candidate = Field((), description="not for files: set by `with_identities`")

    def definitions(self, quantity: str) -> tuple[Quantity, ...]:
        """The definitions of a quantity, best first."""
        return self.quantities.get(quantity, ())

    @property
    def witnesses(self) -> tuple[str, ...]:
        """Metrics whose samples show when a GPU or node was scraped, by which series."""
        return (self.witness,) if self.witness else self.identity.metrics

    def candidates(self, label: str, of: QuantityOf = "gpu") -> tuple[Candidate, ...]:
        """The exporter's labels for a canonical label, best first."""
        return (self.slice_labels.get(label) if of == "slice" else None) or self.labels.get(label) or ((label,),)

    def exporter_labels(self, label: str) -> tuple[str, ...]:
        """Those of the candidates that are one label."""
        return tuple(candidate[0] for candidate in self.candidates(label) if len(candidate) == 1)

    def relabel(
        self,
        selector: Selector,
        by: Iterable[str],
        of: QuantityOf = "gpu",
        labels: Mapping[str, tuple[Candidate, ...]] | None = None,
    ) -> Expression:
        """The selector with the labels in `by` under canonical names; series that identify nothing are left out.

        `labels` are those of the metric, if it has others than the mapping says.
        """
        found: Expression = selector
        identifier = self.by[0]
        if identifier in by:
            own = (labels or {}).get(identifier)
            checked = (self.identified_by,) if self.identified_by and of != "slice" else ()
            candidates = own or checked or self.candidates(identifier, of)
            prefix = self.prefixes.get(identifier, "")
            found = identity_expression(selector, identifier, candidates, prefix, checked=bool(checked and not own))
        for label in by:
            if label != identifier:
                found = self.rename(found, label, of)
        return found

    def rename(self, found: Expression, label: str, of: QuantityOf = "gpu") -> Expression:
        """The results with a label that does not identify under its canonical name."""
        prefix = self.prefixes.get(label, "")
        # The outermost replacement wins: the first choice comes last.
        for names in reversed(self.candidates(label, of)):
            if len(names) > 1:
                found = LabelJoin(found, label, names, self.separators.get(label, "/"))
            elif names[0] != label or prefix:
                found = LabelReplace(found, label, names[0], prefix)
        return found

    def with_identities(self, rows: Iterable[Mapping[str, str]]) -> ExporterMapping:
        """The mapping for these canonical rows, with shorter queries if one candidate identifies all of them.

        Series that it does not identify, former ones say, then get identities that no row has.
        """
        used = {row.get(INDIRECT_IDENTITY, "") for row in rows if row.get(self.by[0]) and "parent_uuid" not in row}
        by_name = {"/".join(candidate): candidate for candidate in self.candidates(self.by[0])}
        by_name[""] = self.candidates(self.by[0])[0]
        return self.model_copy(update={"identified_by": by_name[used.pop()]}) if len(used) == 1 else self

    def limit(self, metric: MetricSelector) -> float | None:
        """The limit from which on values of a metric mean no value, if there is one."""
        return self.valid_below if metric.below is None else metric.below

    def identity_expression(self, window_seconds: int | None = None) -> Expression:
        """The identity series, now or in a window. For a companion, only its targets."""
        function: Literal["last", "count"] = "last" if window_seconds is None else "count"
        found: Expression = union(*(Selector(metric, function, window_seconds) for metric in self.identity.metrics))
        return Aggregate("count", ("job", "instance"), found) if self.companion else found


#: The mapping of the series made by recording rules.
RECORDED_SERIES = "recorded series"

#: Canonical identity labels.
IDENTITY_LABELS = ("uuid", "index", "name", "vendor", "pci_bus_id", "nodename", "mig_profile", "parent_uuid", "unified")

#: Labels that Prometheus sets, and the node that Kubernetes' service discovery often adds.
TARGET_LABELS = ("job", "instance", "node")

#: In a canonical row: the exporter's labels that identify it, if its first choice has a placeholder.
INDIRECT_IDENTITY = "identified_by"
