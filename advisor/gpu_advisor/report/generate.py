"""A report start to end, for a running advisor and for a one-shot evaluation."""

from __future__ import annotations

from gpu_advisor.report.build import build_report
from gpu_advisor.report.history_reader import RangeQuery, SamplesQuery, read_history
from gpu_advisor.report.period import report_period
from gpu_advisor.report.schema import Report
from gpu_advisor.settings import Settings
from gpu_advisor.state.view import View


def generate_report(
    query_range: RangeQuery,
    view: View,
    settings: Settings,
    since_seconds: float,
    now: float,
    *,
    samples: SamplesQuery | None = None,
    has_ledger: bool = True,
) -> Report:
    """The report of the last `since_seconds` before `now` (Unix time).

    `has_ledger`: whether the advisor keeps a ledger. Raises ValueError for a length out of range, and SourceError if
    the source does not respond.
    """
    gpus = len(view.evaluation.facts.gpus) if view.evaluation else 0
    past = read_history(query_range, report_period(now, since_seconds, gpus), samples, settings)
    return build_report(past, view, settings, has_ledger)
