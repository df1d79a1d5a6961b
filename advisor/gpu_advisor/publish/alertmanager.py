"""Sends alerts to Alertmanagers through their v2 API. Each is told on its own; one that is away misses nothing:
the next round tells it everything again."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import requests

from gpu_advisor.publish.alerts import Alert, payload
from gpu_advisor.settings import AlertmanagerSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AlertmanagerState:
    """How one Alertmanager fares. `up` is None before anything was sent to it."""

    url: str
    up: bool | None = None
    sent: int = 0
    message: str = ""


class Alertmanagers:
    """`interval_seconds` is the longest time that passes between two calls of `send` while all is well."""

    def __init__(self, configured: Iterable[AlertmanagerSettings], interval_seconds: float) -> None:
        self._configured = tuple(configured)
        self._interval = interval_seconds
        self._session = requests.Session()
        self.states = tuple(AlertmanagerState(each.url) for each in self._configured)

    def send(self, alerts: Iterable[Alert], now: float) -> None:
        """Tell all of them all alerts, also that there are none: so it is known whether they answer.

        What goes wrong is in `states`, and logged when it changes.
        """
        body = payload(alerts, now, self._interval)
        if not self._configured:
            return
        with ThreadPoolExecutor(len(self._configured)) as pool:
            told = list(pool.map(lambda each: self._tell(each, body), self._configured))
        after = []
        for state, problem in zip(self.states, told, strict=True):
            if problem and problem != state.message:
                log.warning("alertmanager %s: %s", state.url, problem)
            count = state.sent if problem else state.sent + len(body)
            after.append(replace(state, up=not problem, message=problem, sent=count))
        self.states = tuple(after)

    def _tell(self, each: AlertmanagerSettings, body: list[dict[str, object]]) -> str:
        """The problem, or empty text."""
        login = (each.username, each.password.get_secret_value()) if each.username else None
        try:
            answer = self._session.post(
                f"{each.url.rstrip('/')}/api/v2/alerts",
                json=body,
                timeout=each.timeout_seconds,
                auth=login,
                allow_redirects=False,  # followed as a GET, which would succeed and tell nothing
            )
        except requests.RequestException as error:
            return f"does not answer ({type(error).__name__}): see if it runs and if the address is right"
        if answer.status_code != 200:
            return f"answers {answer.status_code}: {answer.text[:200]!r}"
        return ""

    def close(self) -> None:
        self._session.close()
