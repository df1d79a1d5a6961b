"""The running advisor: evaluates at its interval, remembers since when, and publishes one immutable view."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from gpu_advisor.continuity import Given, held_ids
from gpu_advisor.engine import Evaluation, evaluate
from gpu_advisor.publish import alerts
from gpu_advisor.publish.alertmanager import Alertmanagers
from gpu_advisor.publish.ledger import Ledger
from gpu_advisor.settings import Settings
from gpu_advisor.sources.base import Source, SourceError
from gpu_advisor.view import Issued, SourceState, View

log = logging.getLogger(__name__)


class Service:
    """Owns the loop. `view` is replaced as a whole after each round; readers need no lock."""

    def __init__(
        self,
        settings: Settings,
        source: Source,
        ledger: Ledger,
        alertmanagers: Alertmanagers,
        tidy: Callable[[float], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.alertmanagers = alertmanagers
        self._source = source
        self._ledger = ledger
        self._clock = clock
        self._tidy = tidy
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failures: Counter[str] = Counter()
        self._active = ledger.active()
        self._alerts = ledger.alerts()
        self.view = View(
            settings.cluster, SourceState(source.name, source.address, False, "not_yet", "not asked yet: wait a moment")
        )

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop, name="evaluate", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join(timeout=5)

    def _loop(self) -> None:
        interval, first = self.settings.evaluation.interval_seconds, time.monotonic()
        while not self._stop.is_set():
            begun = time.monotonic()
            self.attempt()
            young = time.monotonic() - first < 2 * interval
            pause = min(2.0, interval) if young else interval  # a new user should not look at an empty page
            self._stop.wait(max(0.1, pause - (time.monotonic() - begun)))

    def attempt(self) -> None:
        """The edge of the loop: a defect in one round must not end all rounds, nor make an answer look current."""
        try:
            self.round()
        except Exception:
            log.exception("the evaluation failed; the last good answer stays, and the next round tries again")
            self._go_on("internal", "an error within the advisor itself: see its log, and report it")
        try:
            self._tidy(self._clock())
        except Exception:
            log.exception("the old history could not be tidied up; the next round tries again")

    def round(self) -> View:
        """One evaluation, and its publication."""
        now, begun = round(self._clock(), 3), time.monotonic()
        try:
            evaluation = evaluate(self._source, self.settings, now)
        except SourceError as error:
            if self.view.source.error != error.kind.value:
                log.warning("source %s: %s", self._source.address, error)
            self._go_on(error.kind.value, str(error))
            return self.view
        issued, held = self._issue(evaluation, now)
        self.view = replace(
            self.view,
            source=SourceState(self._source.name, self._source.address, True, last_success=now),
            evaluation=evaluation,
            issued=issued,
            duration_seconds=time.monotonic() - begun,
            evaluations=self.view.evaluations + 1,
            failures=tuple(sorted(self._failures.items())),
        )
        self._tell([each for each in issued if not each.held], held)
        return self.view

    def _go_on(self, error: str, message: str) -> None:
        """Nothing new is known: the last good answer stays, marked stale, and all alerts go on as they are."""
        self._failures[error] += 1
        state = replace(self.view.source, up=False, error=error, message=message)
        self.view = replace(self.view, source=state, failures=tuple(sorted(self._failures.items())))
        self._tell((), frozenset(alert.id for alert in self._alerts))

    def _issue(self, evaluation: Evaluation, now: float) -> tuple[tuple[Issued, ...], frozenset[str]]:
        """This round's advice with its since, and the former advice that is held."""
        fresh = {advice.id(self.settings.cluster): advice for advice in evaluation.recommendations}
        before = self._active
        held = held_ids(before, frozenset(fresh), evaluation)
        given = {
            id_: Given(before[id_].since if id_ in before else now, advice.kind, advice.scope, frozenset(advice.gpus))
            for id_, advice in fresh.items()
        }
        self._active = {**{id_: before[id_] for id_ in held}, **given}
        issued = [Issued(id_, given[id_].since, advice) for id_, advice in fresh.items()]
        self._remember(lambda: self._ledger.record(now, given, held))
        issued += [replace(former, held=True) for former in self.view.issued if former.id in held]
        return tuple(issued), held

    def _tell(self, firing: Iterable[Issued], held: frozenset[str]) -> None:
        """Send what is true. By the clock of now: the evaluation may have taken its time, and alerts run out."""
        now, before = self._clock(), self._alerts
        fresh = [alerts.from_issued(each, self.settings.cluster, self.settings.web.external_url) for each in firing]
        self._alerts = alerts.updated(before, fresh, held, now)
        if self._alerts != before:
            self._remember(lambda: self._ledger.keep_alerts(self._alerts))
        self.alertmanagers.send(self._alerts, now)

    def _remember(self, write: Callable[[], object]) -> None:
        """A full disk costs the memory of a restart, never an answer or an alert."""
        try:
            write()
        except sqlite3.Error as error:
            self._failures["ledger"] += 1
            log.warning("the ledger cannot be written (%s): see to the disk of %s", error, self.settings.state_dir)
