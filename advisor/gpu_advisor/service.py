"""The running advisor: evaluates at its interval, remembers since when, and publishes one immutable view."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from gpu_advisor.continuity import held_ids
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
            try:
                self.round()
                self._tidy(self._clock())
            except Exception:
                # The edge of the loop: a defect in one round must not end all rounds; the metric tells.
                log.exception("the evaluation failed; the last good answer stays, and the next round tries again")
                self._failures["internal"] += 1
            young = time.monotonic() - first < 2 * interval
            pause = min(2.0, interval) if young else interval  # a new user should not look at an empty page
            self._stop.wait(max(0.1, pause - (time.monotonic() - begun)))

    def round(self) -> View:
        """One evaluation, and its publication."""
        now, begun = round(self._clock(), 3), time.monotonic()
        before = self.view
        try:
            evaluation = evaluate(self._source, self.settings, now)
        except SourceError as error:
            self.view = self._failed(before, error)
            self._tell(now, firing=None, held=frozenset())
            return self.view
        issued, held = self._issue(evaluation, now)
        self.view = replace(
            before,
            source=SourceState(self._source.name, self._source.address, True, last_success=now),
            evaluation=evaluation,
            issued=issued,
            duration_seconds=time.monotonic() - begun,
            evaluations=before.evaluations + 1,
            failures=tuple(sorted(self._failures.items())),
        )
        self._tell(now, firing=issued, held=held)
        return self.view

    def _failed(self, before: View, error: SourceError) -> View:
        self._failures[error.kind.value] += 1
        if before.source.error != error.kind.value:
            log.warning("source %s: %s", self._source.address, error)
        state = replace(before.source, up=False, error=error.kind.value, message=str(error))
        return replace(before, source=state, failures=tuple(sorted(self._failures.items())))

    def _issue(self, evaluation: Evaluation, now: float) -> tuple[tuple[Issued, ...], frozenset[str]]:
        """This round's advice with its since, and the former advice that is held."""
        fresh = {advice.id(self.settings.cluster): advice for advice in evaluation.recommendations}
        active = {id_: scope for id_, (_, scope) in self._ledger.active().items()}
        held = held_ids(active.items(), frozenset(fresh), evaluation)
        since = self._ledger.record(now, {id_: (advice.kind, advice.scope) for id_, advice in fresh.items()}, held)
        issued = [Issued(id_, since[id_], advice) for id_, advice in fresh.items()]
        issued += [replace(former, held=True) for former in self.view.issued if former.id in held]
        return tuple(issued), held

    def _tell(self, now: float, firing: tuple[Issued, ...] | None, held: frozenset[str]) -> None:
        """Send what is true; with `firing` None nothing is known, and all alerts go on as they are."""
        if firing is None:
            held = frozenset(alert.id for alert in self._alerts)
        fresh = [
            alerts.from_issued(each, self.settings.cluster, self.settings.web.external_url)
            for each in firing or ()
            if not each.held
        ]
        self._alerts = alerts.updated(self._alerts, fresh, held, now)
        self._ledger.keep_alerts(self._alerts)
        self.alertmanagers.send(self._alerts, now)
