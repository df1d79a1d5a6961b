"""GPUs that work in turns, through a real Alertmanager: at most one alert in two hours, and one for who forgot theirs.

Eight hours pass on the evaluations' clock. Alertmanager's clock is the machine's: the times of alerts are mapped to it
600 times faster, so two hours are twelve seconds there, and all of them lie in its past.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from gpu_advisor.notify.alertmanager import AlertDispatcher
from gpu_advisor.runtime.service import AdvisorService
from gpu_advisor.settings import AlertmanagerSettings, Settings
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.source import EmbeddedSource
from gpu_advisor.state.alert import Alert
from gpu_advisor.state.ledger import Ledger

from tests.alternation import HOUR, most_within
from tests.owner_histories import Owner, OwnerDay
from tests.polling import wait_until
from tests.servers import Alertmanager, alertmanager
from tests.unit.advisor.builders import FakeClock

START, HOURS, ROUND, FASTER = 1_795_000_000.0, 8.0, 300.0, 600.0
#: Minutes of a period, half of it work, by owner; the last works for the first hour only.
PERIODS = {"turns-20": 20.0, "turns-75": 75.0, "turns-120": 120.0}
FORGOTTEN = "forgotten"


class FasterClock(AlertDispatcher):
    """Sends alerts with their times on Alertmanager's clock."""

    def __init__(self, url: str) -> None:
        super().__init__([AlertmanagerSettings(url=url)], 15)
        self._end = time.time()
        self.firing: set[str] = set()

    def _mapped(self, at: float) -> float:
        return self._end - (START + HOURS * HOUR - at) / FASTER

    def send(self, alerts: Iterable[Alert], now: float) -> None:
        mapped = [
            replace(
                each,
                started=self._mapped(each.started),
                resolved=None if each.resolved is None else self._mapped(each.resolved),
            )
            for each in alerts
        ]
        self.firing = {each.labels["owner"] for each in mapped if each.resolved is None}
        super().send(mapped, time.time())


def day(number: int, name: str) -> OwnerDay:
    end = START + HOURS * HOUR
    period = PERIODS.get(name, 2 * HOURS * 60) * 60
    work = HOUR if name == FORGOTTEN else period / 2
    busy = tuple((START + n * period, START + n * period + work, 0.9) for n in range(int((end - START) / period) + 1))
    owner = Owner("pod", {"owner_namespace": "ml", "owner_pod": name}, START, end + 1, START - 60)
    return OwnerDay(number, name, "leave", START, end, busy, (), (owner,), ((START, 0.5),))


def shown_by(server: Alertmanager) -> dict[str, str]:
    """When each owner's alert began."""
    return {each["labels"]["owner"]: each["startsAt"] for each in server.alerts()}


@pytest.mark.servers
def test_an_alert_on_work_in_turns_begins_at_most_once_in_two_hours(tmp_path: Path) -> None:
    history, clock = History(tmp_path / "history.db"), FakeClock(START)
    samples = (sample for number, name in enumerate((*PERIODS, FORGOTTEN)) for sample in day(number, name).samples())
    rows = (
        (name, tuple(sorted((label, text) for label, text in labels.items() if text)), value, at)
        for name, labels, value, at in samples
    )
    history.import_samples("gpu-exporter", rows)
    settings = Settings.model_validate({"resources": {"gpu": {"min": 0, "max": 8}}})
    began: dict[str, dict[str, float]] = {}
    ended: dict[str, float] = {}
    with alertmanager(tmp_path) as server:
        dispatcher, ledger = FasterClock(server.url), Ledger(tmp_path / "ledger.db")
        service = AdvisorService(settings, EmbeddedSource(history), ledger, dispatcher, clock=clock)
        while clock.now < START + HOURS * HOUR:
            clock.now += ROUND
            service.evaluate_once()
            wait_until(lambda: shown_by(server).keys() == dispatcher.firing, "Alertmanager shows the same alerts")
            shown = shown_by(server)
            for owner, starts_at in shown.items():
                began.setdefault(owner, {}).setdefault(starts_at, clock.now)
            ended |= {owner: clock.now for owner in began if owner not in shown and owner not in ended}
        dispatcher.close()
        ledger.close()
    history.close()
    most = {owner: most_within(list(times.values()), 2 * HOUR) for owner, times in began.items()}
    assert most == {"pod/turns-75": 1, "pod/turns-120": 1, f"pod/{FORGOTTEN}": 1}  # ten minutes are no pause at all
    (lasting,) = began[f"pod/{FORGOTTEN}"].values()
    assert lasting <= START + HOUR + settings.evaluation.idle_window_seconds + 600 + ROUND
    assert f"pod/{FORGOTTEN}" not in ended
    assert {"pod/turns-75", "pod/turns-120"} <= ended.keys()  # each ended when it worked again
