"""Parse raw samples: the response to an instant query of a range selector.

A response may have a million samples. Its series are parsed one by one from the bytes into arrays, so that little more
memory is needed than for the response and the arrays; json.loads takes ten times as much. Responses of another shape
are left to response_parser.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from gpu_advisor.promql.expressions import Labels
from gpu_advisor.sources.base import Samples
from gpu_advisor.sources.prometheus.http_client import HttpResponse
from gpu_advisor.sources.prometheus.response_parser import (
    bad_response_error,
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
    position = start
    try:
        while True:
            labels, samples, position = _parse_series(body, position)
            if labels in found:
                raise bad_response_error(server, "two results have the same labels")
            found[labels] = samples
            if not body.startswith(b",", position):
                break
            position += 1
    except (ValueError, TypeError, AttributeError):
        return None
    # What surrounds the series is a response without any: it has the status, the type and the warnings.
    rest = replace(response, body=body[:start] + body[position:])
    parse_results(response_data(rest, server), "matrix", _samples, server)
    return {labels: samples for labels, samples in found.items() if samples[0].size}


def _parse_series(body: bytes, start: int) -> tuple[Labels, Samples, int]:
    """Labels, samples, and the position after the series. Raises ValueError, TypeError, AttributeError."""
    if not body.startswith(_METRIC, start):
        raise ValueError("not a series")
    values = body.index(_VALUES, start)
    end = body.index(_VALUES_END, values)
    labels = parse_labels(json.loads(body[start + len(_METRIC) : values]))
    return labels, _parse_values(body[values + len(_VALUES) : end]), end + len(_VALUES_END)


def _parse_values(text: bytes) -> Samples:
    """Parse `1700000000.123,"1"],[1700000015.123,"NaN"`. Raises ValueError for any other text."""
    numbers = text.translate(None, b'[]"').split(b",")
    if len(numbers) != 2 * (text.count(b"],[") + 1):
        raise ValueError("not pairs of a time and a value")
    pairs = np.fromiter(map(float, numbers), np.float64, len(numbers)).reshape(-1, 2)
    return _in_order(pairs[:, 0], pairs[:, 1])


def _samples(item: Mapping[str, Any]) -> Samples | None:
    pairs = [(float(time), float(value)) for time, value in item["values"]]
    table = np.array(pairs, np.float64).reshape(-1, 2)
    return _in_order(table[:, 0], table[:, 1]) if pairs else None


def _in_order(seconds: np.ndarray[Any, np.dtype[np.float64]], values: np.ndarray[Any, np.dtype[np.float64]]) -> Samples:
    """The samples with increasing times; of several at one time, which VictoriaMetrics may store, the last."""
    times = np.rint(seconds * 1000).astype(np.int64)
    values = np.ascontiguousarray(values)
    if (times[1:] > times[:-1]).all():
        return times, values
    order = np.argsort(times, kind="stable")
    times, values = times[order], values[order]
    newest = np.r_[times[1:] != times[:-1], True]
    return times[newest], values[newest]
