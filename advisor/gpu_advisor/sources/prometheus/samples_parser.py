"""Parse raw samples: the response to an instant query of a range selector.

A response may have a million samples. Its series are parsed some at a time from the bytes into arrays, so that little
more memory is needed than for the response and the arrays; json.loads takes ten times as much. Where pods come and go,
series are many and short: one array for some thousand samples takes two thirds of the time of one per series. Responses
of another shape are left to response_parser.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_advisor.promql.expressions import Labels
from gpu_advisor.sources.base import Samples
from gpu_advisor.sources.prometheus.http_client import HttpResponse
from gpu_advisor.sources.prometheus.label_cache import LabelCache
from gpu_advisor.sources.prometheus.response_parser import (
    bad_response_error,
    is_histogram,
    parse_labels,
    parse_results,
    response_data,
    streamed_data,
)

_RESULTS = b'"result":['
_METRIC = b'{"metric":'
# Neither can be part of a label value, where quotes are escaped.
_VALUES = b',"values":[['
_VALUES_END = b"]]}"
_BATCH_NUMBERS = 20_000  # some MiB as text


def parse_samples(response: HttpResponse, server: str, *, drop_nan: bool = False) -> dict[Labels, Samples]:
    """The samples of each series; NaN is a staleness marker with `drop_nan`. Raises SourceError."""
    found = _parse_quickly(response, server) if response.status == 200 else None
    if found is None:
        found = parse_results(streamed_data(response, server), "matrix", _samples, server)
    if not drop_nan:
        return found
    measured = {labels: (times, values, ~np.isnan(values)) for labels, (times, values) in found.items()}
    return {labels: (times[known], values[known]) for labels, (times, values, known) in measured.items() if known.any()}


def _parse_quickly(response: HttpResponse, server: str) -> dict[Labels, Samples] | None:
    """None if the response does not have the shape that Prometheus writes. Raises SourceError."""
    body = response.body
    start = body.find(_RESULTS) + len(_RESULTS)
    if not body.startswith(_METRIC, start):
        return None
    found: dict[Labels, Samples] = {}
    label_cache = LabelCache()
    batch = _Batch(label_cache)
    position = start
    try:
        while True:
            position = batch.add(body, position)
            more = body.startswith(b",", position)
            if not more or len(batch.numbers) >= _BATCH_NUMBERS:
                for labels, samples in batch.parse():
                    if labels in found:
                        raise bad_response_error(server, "two results have the same labels")
                    found[labels] = samples
                batch = _Batch(label_cache)
            if not more:
                break
            position += 1
    except (ValueError, TypeError, AttributeError):
        return None
    # What surrounds the series is a response without any: it has the status, the type and the warnings.
    rest = replace(response, body=body[:start] + body[position:])
    parse_results(response_data(rest, server), "matrix", _samples, server)
    return {labels: samples for labels, samples in found.items() if samples[0].size}


@dataclass(slots=True)
class _Batch:
    """Series whose samples become one array: labels, numbers of samples, and all times and values as text."""

    label_cache: LabelCache
    labels: list[Labels] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    numbers: list[bytes] = field(default_factory=list)

    def add(self, body: bytes, start: int) -> int:
        """Add the series at `start`, and return the position after it. Raises ValueError, TypeError, AttributeError."""
        if not body.startswith(_METRIC, start):
            raise ValueError("not a series")
        values = body.index(_VALUES, start)
        end = body.index(_VALUES_END, values)
        text = body[values + len(_VALUES) : end]  # 1700000000.123,"1"],[1700000015.123,"NaN"
        numbers = text.translate(None, b'[]"').split(b",")
        size = text.count(b"],[") + 1
        if len(numbers) != 2 * size:
            raise ValueError("not pairs of a time and a value")
        self.labels.append(_labels(body[start + len(_METRIC) : values], self.label_cache))
        self.sizes.append(size)
        self.numbers += numbers
        return end + len(_VALUES_END)

    def parse(self) -> Iterator[tuple[Labels, Samples]]:
        """Raises ValueError where a text is no number."""
        pairs = np.fromiter(map(float, self.numbers), np.float64, len(self.numbers)).reshape(-1, 2)
        times, values = np.rint(pairs[:, 0] * 1000).astype(np.int64), np.ascontiguousarray(pairs[:, 1])
        increases = np.r_[True, times[1:] > times[:-1]]
        ends = np.cumsum(np.array(self.sizes, np.int64))
        increases[ends - self.sizes] = True  # the first of each series
        in_order = np.logical_and.reduceat(increases, ends - self.sizes)
        for labels, size, end, is_in_order in zip(
            self.labels, self.sizes, ends.tolist(), in_order.tolist(), strict=True
        ):
            samples = times[end - size : end], values[end - size : end]
            yield labels, samples if is_in_order else _in_order(*samples)


def _labels(metric: bytes, label_cache: LabelCache) -> Labels:
    """The labels of a series. Raises ValueError, TypeError, AttributeError for another shape."""
    if b"\\" not in metric and metric.startswith(b'{"') and metric.endswith(b'"}'):
        try:
            return label_cache["," + metric[1:-1].decode()]
        except ValueError:
            pass  # in another order, or with an empty value
    return parse_labels(json.loads(metric))


def _samples(item: Mapping[str, Any]) -> Samples | None:
    if is_histogram(item, "values"):
        return None
    pairs = [(float(time), float(value)) for time, value in item["values"]]
    table = np.array(pairs, np.float64).reshape(-1, 2)
    return _in_order(np.rint(table[:, 0] * 1000).astype(np.int64), table[:, 1]) if pairs else None


def _in_order(times: NDArray[np.int64], values: NDArray[np.float64]) -> Samples:
    """The samples with increasing times; of several at one time, which VictoriaMetrics may store, the last."""
    order = np.argsort(times, kind="stable")
    times, values = times[order], values[order]
    newest = np.r_[times[1:] != times[:-1], True]
    return times[newest], values[newest]
