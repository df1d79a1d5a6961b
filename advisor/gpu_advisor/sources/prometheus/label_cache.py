"""Labels of results, parsed from their JSON text without a JSON parser: a fleet's answers name each GPU very often."""

from __future__ import annotations

from gpu_advisor.promql.expressions import Labels
from gpu_advisor.sources.prometheus.combined_queries import INDEX_LABEL

_NAME = ',"__name__":"'  # where the metric's name comes first


class LabelCache(dict[str, Labels]):
    """Labels by their text, `,"name":"value","name":"value"`, parsed once; ValueError for any other text.

    Equal labels are one object, and so are equal pairs: each GPU is named some fifty times, each job by each series.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []  # of the results read last, and their labels
        self._labels: list[Labels] = []
        self._pairs: dict[str, tuple[str, str]] = {}
        self._same: dict[Labels, Labels] = {}
        self._name_places: dict[tuple[str, ...], int | None] = {}  # of the metric's name, by names in order

    def of_results(self, texts: list[str], at: int) -> list[Labels]:
        """The labels of the results `at`, `at` + 1, ... of a leaf. Raises ValueError.

        Nearly all leaves list the same GPUs in the same order: comparing texts takes a sixth of looking them up.
        """
        end = at + len(texts)
        if self._texts[at:end] == texts:
            return self._labels[at:end]
        found = [self[each] for each in texts]
        self._texts[at:end], self._labels[at:end] = texts, found
        return found

    def __missing__(self, text: str) -> Labels:
        labels = self._without_name(text) if text.startswith(_NAME) else self._parse(text)
        labels = self[text] = self._same.setdefault(labels, labels)
        return labels

    def _without_name(self, text: str) -> Labels:
        """Of an instant vector: results of windows have the other labels only."""
        return self[text[text.index('"', len(_NAME)) + 1 :]]

    def _parse(self, text: str) -> Labels:
        """Without the metric's name."""
        if not text:
            return ()
        if not (text.startswith(',"') and text.endswith('"')):
            raise ValueError(text)
        known = self._pairs
        pairs = [known.get(each) or self._pair(each) for each in text[2:-1].split('","')]
        names = tuple([name for name, _ in pairs])  # a list first takes half of the time
        if names not in self._name_places:
            if names != tuple(sorted({*names})) or names[0] <= INDEX_LABEL:
                raise ValueError(text)
            self._name_places[names] = names.index("__name__") if "__name__" in names else None
        place = self._name_places[names]
        if place is not None:
            del pairs[place]
        return tuple(pairs)

    def _pair(self, text: str) -> tuple[str, str]:
        name, _, value = text.partition('":"')
        if '"' in name or '"' in value or not value:
            raise ValueError(text)
        pair = self._pairs[text] = name, value
        return pair
