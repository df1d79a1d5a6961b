"""One evaluation on a Prometheus, without a running advisor."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from gpu_advisor.commands.errors import CommandError, as_option
from gpu_advisor.documents import schema, serialize
from gpu_advisor.evaluation.what_if import WhatIfError, apply_changes, compare_settings
from gpu_advisor.observation.evaluate import HistoryCaches, evaluate
from gpu_advisor.report.schema import Report
from gpu_advisor.runtime.wiring import one_shot_source
from gpu_advisor.settings import ConfigError, Settings, SourceSettings
from gpu_advisor.sources.base import SourceError
from gpu_advisor.state.view import PublishedRecommendation, SourceStatus, View
from gpu_advisor.web.api import known_names, query_filters
from gpu_advisor.web.api.operations import OPERATIONS
from gpu_advisor.web.api.problem_details import ProblemError
from gpu_advisor.web.api.query_parameters import parse_query

HISTORY_QUERY_TIMEOUT_SECONDS = 60.0


class OneShotAdvisor:
    """An AdvisorClient over the evaluation of the last `refresh`: all recommendations start then.

    The source is kept, with what it knows of the server and its histories.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._source = one_shot_source(settings)
        self._caches = HistoryCaches()
        self._now = 0.0
        self._view = View(settings.cluster, SourceStatus(self._source.name, self._source.address, False, "not_yet"))

    def refresh(self) -> None:
        settings, source, now = self._settings, self._source, round(time.time(), 3)
        try:
            evaluation = evaluate(source, settings, now, self._caches)
        except SourceError as error:
            raise CommandError(str(error)) from error
        issued = tuple(
            PublishedRecommendation(each.id(settings.cluster), now, each) for each in evaluation.recommendations
        )
        state = SourceStatus(source.name, source.address, True, last_success=now)
        self._now, self._view = now, View(settings.cluster, state, evaluation, issued)

    def close(self) -> None:
        self._source.close()

    def recommendations(self, filters: Mapping[str, str]) -> schema.Recommendations:
        found = query_filters.filter_recommendations(self._view, self._parse("recommendations", filters))
        return serialize.recommendations(self._view, found, 1, max(1, len(found)))

    def checks(self, filters: Mapping[str, str]) -> schema.Checks:
        found = query_filters.filter_checks(self._view, self._parse("checks", filters))
        return serialize.checks(self._view, found, 1, max(1, len(found)))

    def _parse(self, operation: str, filters: Mapping[str, str]) -> dict[str, Any]:
        """As the API does: a name that is not known is an error."""
        from werkzeug.datastructures import MultiDict

        try:
            query = parse_query(MultiDict(filters), OPERATIONS[operation].parameters)
            known_names.require_known(self._view, query)
        except ProblemError as problem:
            raise CommandError(as_option(problem.detail)) from problem
        return query

    def what_if(self, changes: Mapping[str, Any]) -> schema.WhatIf:
        if self._view.evaluation is None:  # before the first refresh
            raise ConfigError("no evaluation")
        try:
            other = apply_changes(self._settings, changes)
        except WhatIfError as error:
            raise CommandError(str(error)) from error
        return serialize.what_if(self._view, compare_settings(self._view.evaluation, self._settings, other))

    def report(self, since_seconds: int) -> Report:
        from gpu_advisor.report.generate import generate_report

        source = one_shot_source(_with_history_timeout(self._settings))
        try:
            return generate_report(
                source.range,
                self._view,
                self._settings,
                since_seconds,
                self._now,
                samples=source.samples,
                has_ledger=False,
            )
        except SourceError as error:
            raise CommandError(str(error)) from error
        finally:
            source.close()


def _with_history_timeout(settings: Settings) -> Settings:
    """Raise the query timeout: queries over weeks take longer than those of an evaluation."""
    prometheus = settings.source.prometheus
    if prometheus is None:
        return settings
    patient = prometheus.model_copy(
        update={"timeout_seconds": max(prometheus.timeout_seconds, HISTORY_QUERY_TIMEOUT_SECONDS)}
    )
    return settings.model_copy(update={"source": SourceSettings(prometheus=patient)})
