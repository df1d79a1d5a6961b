"""One look at a Prometheus or at an advisor's own source, by the code that a running advisor has."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from gpu_advisor.commands.errors import AskError
from gpu_advisor.documents import document, shapes
from gpu_advisor.evaluation.what_if import WhatIfError, changed, compare
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.report.shapes import Report
from gpu_advisor.runtime.wiring import one_shot_source
from gpu_advisor.settings import ConfigError, Settings, SourceSettings
from gpu_advisor.sources.base import SourceError
from gpu_advisor.sources.prometheus.remembered import RememberedRanges
from gpu_advisor.state.view import Issued, SourceState, View
from gpu_advisor.web.api import chosen
from gpu_advisor.web.api.operations import OPERATIONS
from gpu_advisor.web.api.parameters import read
from gpu_advisor.web.api.problem import Problem

HISTORY_QUERY_SECONDS = 60.0


class Once:
    """An Asked. What it says is given since now."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        source, self._now = one_shot_source(settings), round(time.time(), 3)
        now = self._now
        try:
            evaluation = evaluate(source, settings, now)
        except SourceError as error:
            raise AskError(f"{source.address}: {error}") from error
        finally:
            source.close()
        issued = tuple(Issued(each.id(settings.cluster), now, each) for each in evaluation.recommendations)
        state = SourceState(source.name, source.address, True, last_success=now)
        self._view = View(settings.cluster, state, evaluation, issued)

    def recommendations(self, filters: Mapping[str, str]) -> shapes.Recommendations:
        found = chosen.recommendations(self._view, _read("recommendations", filters))
        return document.recommendations(self._view, found, 1, max(1, len(found)))

    def checks(self, filters: Mapping[str, str]) -> shapes.Checks:
        found = chosen.checks(self._view, _read("checks", filters))
        return document.checks(self._view, found, 1, max(1, len(found)))

    def what_if(self, changes: Mapping[str, Any]) -> shapes.WhatIf:
        if self._view.evaluation is None:  # cannot be: there is no view without one
            raise ConfigError("nothing is known")
        try:
            other = changed(self._settings, changes)
        except WhatIfError as error:
            raise AskError(str(error)) from error
        return document.what_if(self._view, compare(self._view.evaluation, self._settings, other))

    def report(self, since_seconds: int) -> Report:
        from gpu_advisor.report.making import make

        source = one_shot_source(_patient(self._settings))
        ask = source.of.range if isinstance(source, RememberedRanges) else source.range  # asked once, in few queries
        try:
            return make(ask, self._view, self._settings, since_seconds, self._now, remembers=False)
        except SourceError as error:
            raise AskError(f"{source.address}: {error}") from error
        finally:
            source.close()


def _patient(settings: Settings) -> Settings:
    """A query over weeks may take longer than one of an evaluation."""
    prometheus = settings.source.prometheus
    if prometheus is None:
        return settings
    patient = prometheus.model_copy(update={"timeout_seconds": max(prometheus.timeout_seconds, HISTORY_QUERY_SECONDS)})
    return settings.model_copy(update={"source": SourceSettings(prometheus=patient)})


def _read(operation: str, filters: Mapping[str, str]) -> dict[str, Any]:
    from werkzeug.datastructures import MultiDict

    try:
        return read(MultiDict(filters), OPERATIONS[operation].parameters)
    except Problem as problem:
        raise AskError(problem.detail) from problem
