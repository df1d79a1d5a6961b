"""A report start to end, for a running advisor and for a one-shot evaluation."""

from __future__ import annotations

from gpu_advisor.report.build import build_report
from gpu_advisor.report.fleet_history import FleetHistory
from gpu_advisor.report.history_reader import SamplesQuery, read_history
from gpu_advisor.report.period import ReportPeriod, report_period
from gpu_advisor.report.range_reader import RangeQuery
from gpu_advisor.report.schema import Report
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import SourceError
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
    period = report_period(now, since_seconds, gpus)
    past = read_history(query_range, period, samples, settings)
    before = _read_before(query_range, period.before(), samples, settings) if past.gpus else None
    return build_report(past, view, settings, has_ledger, before)


def _read_before(
    query_range: RangeQuery, period: ReportPeriod, samples: SamplesQuery | None, settings: Settings
) -> FleetHistory:
    """The period before. Where it cannot be read, the report is useful without it."""
    try:
        return read_history(query_range, period, samples, settings, with_cpu=False)
    except SourceError as error:
        return FleetHistory(period, unavailable=(f"The period before could not be read: {error}",))
