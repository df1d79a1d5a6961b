"""Send alerts through Alertmanager's v2 API, with one thread per Alertmanager so that a down one delays no other.

A failed request is retried with exponential backoff. Only the newest batch is kept, since each batch has all alerts:
an Alertmanager that was down misses nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import requests

from gpu_advisor.notify.alerts import ALERT_TTL_EVALUATIONS, postable_alerts
from gpu_advisor.settings import AlertmanagerSettings
from gpu_advisor.sources.prometheus.http_client import BodyTooLargeError, DeadlineClient, DeadlineExceededError
from gpu_advisor.state.alert import Alert

log = logging.getLogger(__name__)

#: Alerts in one request, as Prometheus itself sends them.
MAX_ALERTS_PER_REQUEST = 256

FIRST_RETRY_SECONDS = 1.0
MAX_RESPONSE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class AlertmanagerStatus:
    """Delivery status of one Alertmanager. `up` is None until the first request."""

    url: str
    up: bool | None = None
    sent: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class _AlertBatch:
    """All alerts at one time. At `expires` (monotonic clock) the firing ones' `endsAt` passes: not sent after that."""

    body: list[dict[str, Any]]
    expires: float


class AlertDispatcher:
    """`interval_seconds` is the longest time between two calls of `send` in normal operation."""

    def __init__(self, configured: Iterable[AlertmanagerSettings], interval_seconds: float) -> None:
        self._interval = interval_seconds
        self._status_lock = threading.Lock()
        self._senders = [
            _Sender(each, interval_seconds, partial(self._set_status, index)) for index, each in enumerate(configured)
        ]
        self.states = tuple(AlertmanagerStatus(sender.url) for sender in self._senders)

    def send(self, alerts: Iterable[Alert], now: float) -> None:
        """Queue all alerts for every Alertmanager without blocking. An empty batch is sent too: it checks reachability.

        Failures are in `states`, and logged when they change.
        """
        message = _AlertBatch(
            postable_alerts(alerts, now, self._interval), time.monotonic() + ALERT_TTL_EVALUATIONS * self._interval
        )
        for sender in self._senders:
            sender.enqueue(message)

    def close(self) -> None:
        for sender in self._senders:
            sender.stop()

    def _set_status(self, index: int, state: AlertmanagerStatus) -> None:
        with self._status_lock:
            self.states = (*self.states[:index], state, *self.states[index + 1 :])


class _Sender:
    """The thread that posts to one Alertmanager."""

    def __init__(
        self,
        settings: AlertmanagerSettings,
        max_retry_seconds: float,
        on_status_change: Callable[[AlertmanagerStatus], None],
    ) -> None:
        self.url = settings.url
        self._settings = settings
        self._max_retry_seconds = max_retry_seconds  # an alert's TTL is several of these, so no backoff resolves it
        self._on_status_change = on_status_change
        self._client = DeadlineClient()
        self._condition = threading.Condition()
        self._message: _AlertBatch | None = None
        self._stopped = False
        self._thread: threading.Thread | None = None

    def enqueue(self, message: _AlertBatch) -> None:
        with self._condition:
            self._message = message
            self._condition.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"alertmanager {self.url}", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        with self._condition:
            self._stopped = True
            self._condition.notify()
        if self._thread:
            self._thread.join(timeout=2)
        self._client.close()

    def _run(self) -> None:
        state, pause = AlertmanagerStatus(self.url), FIRST_RETRY_SECONDS
        while (message := self._next_message()) is not None:
            problem = self._deliver(message.body)
            if problem and problem != state.message:
                log.warning("alertmanager %s: %s", self.url, problem)
            sent = state.sent if problem else state.sent + len(message.body)
            state = replace(state, up=not problem, message=problem, sent=sent)
            self._on_status_change(state)
            if problem:
                self._retry_later(message, pause)
            pause = min(2 * pause, self._max_retry_seconds) if problem else FIRST_RETRY_SECONDS

    def _next_message(self) -> _AlertBatch | None:
        """Wait for the newest unexpired batch; None after `stop`."""
        with self._condition:
            while not self._stopped:
                message, self._message = self._message, None
                if message is not None and time.monotonic() < message.expires:
                    return message
                self._condition.wait()
        return None

    def _retry_later(self, message: _AlertBatch, pause: float) -> None:
        """After the backoff, queue the failed batch again unless a newer one is waiting."""
        with self._condition:
            self._condition.wait_for(lambda: self._stopped, pause)
            self._message = self._message or message

    def _deliver(self, body: list[dict[str, Any]]) -> str:
        """Post all alerts. Returns the problem, or an empty string."""
        for first in range(0, max(1, len(body)), MAX_ALERTS_PER_REQUEST):
            problem = self._post(body[first : first + MAX_ALERTS_PER_REQUEST])
            if problem:
                return problem
        return ""

    def _post(self, batch: list[dict[str, Any]]) -> str:
        each = self._settings
        login = {"auth": (each.username, each.password.get_secret_value())} if each.username else {}
        try:
            answer = self._client.fetch(
                "POST",
                f"{each.url.rstrip('/')}/api/v2/alerts",
                seconds=each.timeout_seconds,
                max_bytes=MAX_RESPONSE_BYTES,
                json=batch,
                **login,
            )
        except DeadlineExceededError as error:
            return f"{error}: check the Alertmanager's load, or raise timeout_seconds"
        except (requests.RequestException, BodyTooLargeError, OSError) as error:
            return f"unreachable ({type(error).__name__}): check that it is running and that the URL is right"
        if answer.status != 200:  # redirects too: a redirected POST becomes a GET, which succeeds and posts nothing
            return f"HTTP {answer.status}: {answer.body[:200].decode('utf-8', 'replace')!r}"
        return ""
