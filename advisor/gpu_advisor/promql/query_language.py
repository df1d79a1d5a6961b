"""What engines write differently: PromQL of Prometheus 2 and 3, and MetricsQL of VictoriaMetrics.

An expression has Prometheus' results in each of them. Sources: promql/functions.go of Prometheus, and
app/vmselect/promql/rollup.go of VictoriaMetrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gpu_advisor.promql.expressions import Function


@dataclass(frozen=True, slots=True, eq=False)  # hashable by identity: there is one of each
class QueryLanguage:
    """How a query is written.

    `calls` have the placeholders {series} (the selector with its window), {q}, {seconds} (the window's length) and
    {at} (its end). `definitions` precede a query with one of the functions in `defined`. `time_digits` follow the
    milliseconds of a time, for engines that cut them off a floating-point number, which may be just below them.
    """

    name: str
    calls: Mapping[Function, str]
    dot_matches_newline: bool = True  # in the regular expressions of matchers
    window_of_last: str = ""
    time_digits: str = ""
    defined: frozenset[Function] = frozenset()
    definitions: str = ""


_CALLS: Final[dict[Function, str]] = {
    "last": "{series}",
    "mean": "avg_over_time({series})",
    "min": "min_over_time({series})",
    "max": "max_over_time({series})",
    "quantile": "quantile_over_time({q}, {series})",
    "sum": "sum_over_time({series})",
    "rate": "rate({series})",
    "increase": "increase({series})",
    "count": "count_over_time({series})",
}

PROMQL: Final = QueryLanguage("PromQL", _CALLS)
PROMQL_2: Final = QueryLanguage("PromQL of Prometheus 2", _CALLS, dot_matches_newline=False)

#: MetricsQL's own `increase` counts from the sample before the window, or from zero; its `rate` divides by the time
#: between the samples. These extrapolate as Prometheus 3 does. All is counted in average distances between samples: `n`
#: of them lie between the first and the last sample, and `steps` is how much of a gap at the window's edge counts.
_EXTRAPOLATION: Final = (
    "WITH (extrapolated_increase(s, w, at) = WITH (n = count_over_time(s) - 1, first = tfirst_over_time(s), "
    "last = tlast_over_time(s), grown = increase_prometheus(s), "
    "steps(gap) = ((gap / (last - first) * n) < 1.1) default 0.5) "
    "grown + grown / n * (min(steps(first - at + w), n * (first_over_time(s) >= 0) / (grown > 0)) without () + "
    "steps(at - last)), "
    "extrapolated_rate(s, w, at) = extrapolated_increase(s, w, at) / w) "
)

METRICSQL: Final = QueryLanguage(
    "MetricsQL",
    {
        **_CALLS,
        "last": "default_rollup({series})",  # without a window, it looks back for a step of the query
        "rate": "extrapolated_rate({series}, {seconds}, {at})",
        "increase": "extrapolated_increase({series}, {seconds}, {at})",
    },
    dot_matches_newline=False,  # depends on the version
    window_of_last="[5m]",
    time_digits="2",
    defined=frozenset({"rate", "increase"}),
    definitions=_EXTRAPOLATION,
)
