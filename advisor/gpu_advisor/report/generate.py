"""A report start to end: the one entry, for a running advisor and for a single look alike."""

from __future__ import annotations

from gpu_advisor.report.build import report
from gpu_advisor.report.history_reader import RangeQuery, read_history
from gpu_advisor.report.period import period
from gpu_advisor.report.schema import Report
from gpu_advisor.settings import Settings
from gpu_advisor.state.view import View


def make(
    query_range: RangeQuery,
    view: View,
    settings: Settings,
    since_seconds: float,
    now: float,
    *,
    has_ledger: bool = True,
) -> Report:
    """The report of the last `since_seconds` before `now` (seconds since 1970).

    `has_ledger`: the view is of an advisor that has a ledger. Raises ValueError where the length cannot be, and
    SourceError where the source does not answer.
    """
    gpus = len(view.evaluation.facts.gpus) if view.evaluation else 0
    return report(read_history(query_range, period(now, since_seconds, gpus)), view, settings, has_ledger)
