"""The evaluation loop: evaluates at an interval, updates ledger and alerts, and publishes one immutable view."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from gpu_advisor.documents.savings import by_urgency
from gpu_advisor.evaluation.agreement import contradicts
from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.owners import Lease
from gpu_advisor.notify import alerts
from gpu_advisor.notify.alertmanager import AlertDispatcher
from gpu_advisor.observation.evaluate import HistoryCaches, evaluate
from gpu_advisor.promql.expressions import Expression, Labels, Selector, TimeSeries
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import SamplesByLabels, Source, SourceError
from gpu_advisor.state import outcomes
from gpu_advisor.state.active import ActiveRecommendation, Snooze, active_snoozes, missing_data, update_active
from gpu_advisor.state.feedback import MAX_RECENT_FEEDBACK, Feedback, latest_by_id, suggest
from gpu_advisor.state.ledger import Ledger
from gpu_advisor.state.view import PublishedRecommendation, SourceStatus, View
from gpu_advisor.storage.damage import DamagedFile

log = logging.getLogger(__name__)

#: A view older than so many intervals is stale.
OVERDUE_INTERVALS = 4
AGE_CHECK_SECONDS = 15.0


class AdvisorService:
    """Owns the evaluation loop. `view` is replaced as a whole after each evaluation, so readers need no lock."""

    def __init__(
        self,
        settings: Settings,
        source: Source,
        ledger: Ledger,
        alertmanagers: AlertDispatcher,
        clean_up: Callable[[float], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.alertmanagers = alertmanagers
        self._source = source
        self._ledger = ledger
        self._clock = clock
        self._clean_up = clean_up
        #: the leases of this advisor by GPU; set before the start
        self.leases: Callable[[], Mapping[str, Lease]] = dict
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failures: Counter[str] = Counter()
        self._publishing = threading.Lock()  # the loop, the age check and requests replace the view
        stored = ledger.active_recommendations()
        started = clock()
        self._active: Mapping[str, ActiveRecommendation] = {
            id_: replace(active, seen=started) for id_, (active, _) in stored.items()
        }
        self._caches = HistoryCaches()
        self._alerts = ledger.alerts()
        self._snoozes = ledger.snoozes()
        self._feedback = ledger.feedback()
        self._tracked, self._settling = ledger.tracked_recommendations()
        # Stored recommendations are stale until the first evaluation.
        former = [
            PublishedRecommendation(id_, active.since, advice, stale=True).without_commands()
            for id_, (active, advice) in stored.items()
            if advice
        ]
        self.view = View(
            settings.cluster,
            SourceStatus(
                source.name,
                source.address,
                False,
                "not_yet",
                "the first evaluation has not finished yet",
                browser_url=settings.source.browser_url,
            ),
            issued=self._with_marks(by_urgency(former)),
            interval_seconds=settings.evaluation.interval_seconds,
            outcomes=outcomes.Outcomes().with_added(ledger.outcomes()),
            feedback=self._feedback,
            suggestions=tuple(suggest(self._feedback, settings.evaluation)),
        )

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop, name="evaluate", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch_age, name="age", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=5)

    def _loop(self) -> None:
        interval, first = self.settings.evaluation.interval_seconds, time.monotonic()
        while not self._stop.is_set():
            started = time.monotonic()
            self.evaluate_safely()
            just_started = time.monotonic() - first < 2 * interval
            pause = min(2.0, interval) if just_started else interval  # fill the page soon after the start
            self._stop.wait(max(0.1, pause - (time.monotonic() - started)))

    def _watch_age(self) -> None:
        interval = self.settings.evaluation.interval_seconds
        while not self._stop.wait(min(interval, AGE_CHECK_SECONDS)):
            self.mark_overdue()

    def mark_overdue(self) -> None:
        """Mark the view stale by its own age: a slow evaluation, or one that hangs, says nothing of itself."""
        with self._publishing:  # an evaluation may finish at this moment
            evaluation = self.view.evaluation
            limit = OVERDUE_INTERVALS * self.settings.evaluation.interval_seconds + (self.view.duration_seconds or 0.0)
            if evaluation is None or self.view.overdue or self._clock() - evaluation.at <= limit:
                return
            self._replace_view(overdue=True)
        log.warning("no evaluation has finished for %.0f s: the last one is shown as stale", limit)

    def evaluate_safely(self) -> None:
        """Evaluate; an unexpected error is logged and marks the view stale, but does not end the loop."""
        try:
            self.evaluate_once()
        except Exception:
            log.exception("evaluation failed; serving the last successful one, retrying at the next interval")
            self._record_failure("internal", "internal error of the advisor: see its log, and report it")
        try:
            self._clean_up(self._clock())
        except Exception:
            log.exception("retention failed: old rows were not deleted; retrying at the next interval")

    def evaluate_once(self) -> View:
        """Evaluate, publish the view and send alerts. Returns the view, unchanged but for its status on failure."""
        now, started = round(self._clock(), 3), time.monotonic()
        try:
            evaluation = evaluate(self._source, self.settings, now, self._caches, self.leases())
        except SourceError as error:
            if self.view.source.error != error.kind.value:
                log.warning("source %s: %s", self._source.address, error)
            self._record_failure(error.kind.value, str(error))
            return self.view
        issued, unconfirmed = self._update_recommendations(evaluation, now)
        judged = self._judge_outcomes(evaluation, issued, unconfirmed)
        self._publish(
            source=replace(self.view.source, up=True, error="", message="", last_success=now),
            evaluation=evaluation,
            overdue=False,
            issued=issued,
            duration_seconds=time.monotonic() - started,
            evaluations=self.view.evaluations + 1,
            outcomes=self.view.outcomes.with_added(judged) if judged else self.view.outcomes,
        )
        self._send_alerts([each for each in self.view.issued if each.id not in unconfirmed], unconfirmed)
        return self.view

    def _record_failure(self, error: str, message: str) -> None:
        """Mark the view stale and keep all alerts as they are."""
        self._failures[error] += 1
        issued = [each.without_commands() for each in self.view.issued]
        self._publish(issued, source=replace(self.view.source, up=False, error=error, message=message))
        self._send_alerts((), frozenset(alert.recommendation_id for alert in self._alerts))

    def _update_recommendations(
        self, evaluation: Evaluation, now: float
    ) -> tuple[tuple[PublishedRecommendation, ...], frozenset[str]]:
        """The recommendations with their start times; and the ids of those that this evaluation did not make."""
        fresh = {advice.id(self.settings.cluster): advice for advice in evaluation.recommendations}
        found = update_active(self._active, fresh, evaluation)
        # The present wins: what lingers may rest on what a new recommendation changes.
        lingering = [each for each in self.view.issued if each.id in found.lingering]
        found = found.without(
            frozenset(each.id for each in lingering if contradicts(each.recommendation, evaluation.recommendations))
        )
        self._active, unconfirmed = found.active, found.stale | found.lingering
        issued = [PublishedRecommendation(id_, found.active[id_].since, advice) for id_, advice in fresh.items()]
        self._write_ledger(lambda: self._ledger.record_recommendations(now, issued, unconfirmed))
        former = [
            replace(each, stale=True).without_commands()
            if each.id in found.stale
            else replace(each, stale=False, last_seen=found.active[each.id].seen)
            for each in self.view.issued
            if each.id in unconfirmed
        ]
        return tuple(by_urgency((*issued, *former))), unconfirmed

    def _judge_outcomes(
        self, evaluation: Evaluation, issued: Iterable[PublishedRecommendation], unconfirmed: frozenset[str]
    ) -> tuple[outcomes.Outcome, ...]:
        """The outcomes of closed recommendations that have settled."""
        snapshot = outcomes.take_snapshot(evaluation)
        current = [
            outcomes.track(each.id, each.since, each.recommendation, snapshot)
            for each in issued
            if each.id not in unconfirmed
        ]
        self._tracked, closed = outcomes.close_ended(self._tracked, current, unconfirmed, snapshot)
        settle = self.settings.outcomes.settle_seconds
        self._settling, judged = outcomes.judge_settled((*self._settling, *closed), snapshot, settle)
        self._write_ledger(lambda: self._ledger.save_tracked(self._tracked, self._settling, judged))
        return judged

    def _publish(self, issued: Iterable[PublishedRecommendation] | None = None, **changes: Any) -> None:
        """Replace the view by one with these changes, which do not depend on what another thread publishes."""
        with self._publishing:
            self._replace_view(issued, **changes)

    def _replace_view(self, issued: Iterable[PublishedRecommendation] | None = None, **changes: Any) -> None:
        """Replace the view, with the current snoozes and failure counts. The caller has locked `_publishing`."""
        self.view = replace(
            self.view,
            issued=self._with_marks(self.view.issued if issued is None else issued),
            failures=tuple(sorted(self._failures.items())),
            **changes,
        )

    def _with_marks(self, issued: Iterable[PublishedRecommendation]) -> tuple[PublishedRecommendation, ...]:
        """With the snoozes and the feedback of people."""
        snoozes, feedback = active_snoozes(self._snoozes, self._clock()), latest_by_id(self._feedback)
        return tuple(
            replace(each, snoozed=snoozes.get(each.id), feedback=feedback.get(each.id))
            if (each.snoozed, each.feedback) != (snoozes.get(each.id), feedback.get(each.id))
            else each
            for each in issued
        )

    def query_range(self, expression: Expression, start: float, end: float, step: float) -> Mapping[Labels, TimeSeries]:
        """A range query for charts and reports. Raises SourceError."""
        return self._source.range(expression, start, end, step)

    def samples(self, selectors: Mapping[str, Selector], at: float) -> Mapping[str, SamplesByLabels]:
        """Raw samples for reports. Raises SourceError."""
        return self._source.samples(selectors, at)

    def report_damage(self, damaged: DamagedFile) -> None:
        """Show on page and metrics that a state file was moved aside."""
        with self._publishing:
            self._replace_view(damaged=(*self.view.damaged, damaged))

    def snooze(self, id_: str, snooze: Snooze | None) -> None:
        """Snooze a recommendation, or end its snooze (None). Raises sqlite3.Error; then nothing has changed."""
        self._ledger.save_snooze(id_, snooze)
        with self._publishing:
            now = self._clock()
            others = {key: each for key, each in self._snoozes.items() if key != id_ and each.until > now}
            self._snoozes = {**others, id_: snooze} if snooze else others
            self._replace_view()

    def give_feedback(self, feedback: Feedback) -> None:
        """Record feedback on a recommendation. Raises sqlite3.Error; then nothing has changed."""
        self._ledger.add_feedback(feedback)
        with self._publishing:
            self._feedback = (*self._feedback, feedback)[-MAX_RECENT_FEEDBACK:]
            suggestions = tuple(suggest(self._feedback, self.settings.evaluation))
            self._replace_view(feedback=self._feedback, suggestions=suggestions)

    def _send_alerts(self, firing: Iterable[PublishedRecommendation], unconfirmed: frozenset[str]) -> None:
        """Update and send all alerts. Not with the evaluation's time: a slow evaluation would shorten their TTL."""
        now, before = self._clock(), self._alerts
        snoozed = active_snoozes(self._snoozes, now).keys()
        evaluation, by_id = self.view.evaluation, {alert.id: alert for alert in before}
        owners, prices = (evaluation.facts.owners, evaluation.prices) if evaluation else ({}, None)
        fresh = [
            alert
            for each in firing
            if each.id not in snoozed
            for alert in alerts.build_alerts(
                each, owners, by_id, self.settings.cluster, self.settings.web.external_url, now, prices
            )
        ]
        missing = missing_data(evaluation) if evaluation else ()
        self._alerts = alerts.update_alerts(before, fresh, unconfirmed - snoozed, now, missing)
        self._write_ledger(lambda: self._ledger.save_alerts(self._alerts))
        self.alertmanagers.send(self._alerts, now)

    def _write_ledger(self, write: Callable[[], object]) -> None:
        """A full disk loses state at the next restart, never a response or an alert."""
        try:
            write()
        except sqlite3.Error as error:
            self._failures["ledger"] += 1
            log.warning("cannot write the ledger (%s): check the disk of %s", error, self.settings.state_dir)
