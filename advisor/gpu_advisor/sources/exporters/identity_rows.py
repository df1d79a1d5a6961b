"""Identity rows: an exporter's identity series under canonical label names. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter

from gpu_advisor.promql.expressions import Labels
from gpu_advisor.sources.exporters.identity_labels import Candidate, identify, is_placeholder
from gpu_advisor.sources.exporters.mapping import (
    IDENTITY_LABELS,
    INDIRECT_IDENTITY,
    TARGET_LABELS,
    ExporterMapping,
    QuantityOf,
)

#: An identity row by canonical label.
Row = Mapping[str, str]

#: The row of a series' labels.
_Reader = Callable[[Mapping[str, str]], Row]


@dataclass(slots=True)
class RowReader:
    """Reads the rows of one mapping. `exporter` is the mapping's name; job, instance and node stay, and
    `cluster_label`, if given, becomes `cluster`. A row that identifies nothing lacks the identifying label.

    Series that differ only in other labels, as of pods, have one row together: the same object.
    """

    mapping: ExporterMapping
    cluster_label: str = ""
    _by_shape: dict[tuple[str, ...], _Reader] = field(default_factory=dict, repr=False)

    def read(self, series: Iterable[Labels]) -> list[Row]:
        """The row of each series, in order."""
        found = []
        for labels in series:
            original = dict(labels)
            shape = tuple(original)  # series of one exporter have the same labels
            reader = self._by_shape.get(shape)
            if reader is None:
                reader = self._by_shape[shape] = self._reader(frozenset(shape))
            found.append(reader(original))
        return found

    def _reader(self, names: frozenset[str]) -> _Reader:
        """Reads series that have these labels: the other candidates have no value."""
        mapping, cluster_label = self.mapping, self.cluster_label
        identifier = mapping.by[0]
        identifier_prefix, separators = mapping.prefixes.get(identifier, ""), mapping.separators
        candidates: dict[QuantityOf, tuple[Candidate, ...]] = {
            of: mapping.candidates(identifier, of) for of in ("gpu", "slice")
        }
        others: dict[QuantityOf, list[tuple[str, list[Candidate], str, str]]] = {
            of: [
                (label, present, mapping.prefixes.get(label, ""), separators.get(label, "/"))
                for label in (*IDENTITY_LABELS, *TARGET_LABELS)
                if label != identifier
                and (present := [each for each in mapping.candidates(label, of) if len(each) > 1 or each[0] in names])
            ]
            for of in ("gpu", "slice")
        }

        def read(original: Mapping[str, str]) -> Row:
            each = {"exporter": mapping.name, "vendor": mapping.vendor}
            of: QuantityOf = "slice" if mapping.slice_labels and identify(original, candidates["slice"]) else "gpu"
            identity = identify(original, candidates[of], identifier_prefix)
            if identity is not None:
                each[identifier], choice = identity
                if choice:
                    each[INDIRECT_IDENTITY] = "/".join(candidates[of][choice])
            for label, sources, prefix, separator in others[of]:
                value = _first_value(original, sources, separator)
                if value:
                    each[label] = prefix + value if prefix else value
            if cluster_label and (cluster := original.get(cluster_label)):
                each["cluster"] = cluster
            return each

        of_others = (candidate for parts in others.values() for _, sources, _, _ in parts for candidate in sources)
        is_read = {cluster_label, *chain.from_iterable(chain(*candidates.values(), of_others))}
        return _once_per_values(read, sorted(is_read & names))


def _once_per_values(read: _Reader, names: Sequence[str]) -> _Reader:
    """A reader that reads series with equal values of these labels once."""
    if not names:
        return read
    values_of = itemgetter(*names)
    known: dict[str | tuple[str, ...], Row] = {}

    def look_up(original: Mapping[str, str]) -> Row:
        values = values_of(original)
        row = known.get(values)
        if row is None:
            row = known[values] = read(original)
        return row

    return look_up


def _first_value(labels: Mapping[str, str], candidates: Iterable[Candidate], separator: str) -> str:
    for candidate in candidates:
        if len(candidate) == 1:  # nearly always, in fleets of thousands
            value = labels.get(candidate[0])
            if value and not is_placeholder(value):
                return value
        else:
            values = [labels.get(name, "") for name in candidate]
            if not any(map(is_placeholder, values)):
                return separator.join(values)
    return ""
