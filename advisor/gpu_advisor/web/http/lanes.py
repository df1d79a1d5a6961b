"""Lanes: kinds of requests with workers of their own, so that slow work in one delays no request of another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from gpu_advisor.web.http.connection import INTERNAL_ERROR, HttpResponse, text_response
from gpu_advisor.web.http.workers import WorkerPool
from gpu_advisor.web.http.wsgi import Environ, WsgiApplication, run_application

log = logging.getLogger(__name__)

T = TypeVar("T")

OVERLOADED = text_response(503, "overloaded: retry in a moment", [("Retry-After", "1")])


@dataclass(frozen=True, slots=True)
class Lane:
    """A kind of request with its own workers. `refusal` answers requests beyond `waiting`."""

    threads: int
    waiting: int
    refusal: HttpResponse = OVERLOADED
    #: Prepares a request in this lane, and names the lane that then serves it. None: this lane serves it.
    prepare: Callable[[Environ], str] | None = None
    #: Its responses are small, and sent before all others.
    urgent: bool = False


class LaneWorkers(Generic[T]):
    """The workers of all lanes. `respond` gets each request's client, its response, and the lane that has it, in any
    thread; before work that is not urgent, workers call `wait`.
    """

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        application: WsgiApplication,
        respond: Callable[[T, HttpResponse, Lane], None],
        wait: Callable[[], object],
    ) -> None:
        self._lanes = lanes
        self._application = application
        self._respond = respond
        self._wait = wait
        self._pools = {name: WorkerPool(f"web {name}", lane.threads, lane.waiting) for name, lane in lanes.items()}

    def enqueue(self, client: T, environ: Environ, name: str) -> None:
        """From any thread."""
        lane = self._lanes[name]
        if not self._pools[name].submit(lambda: self._work(client, environ, lane)):
            self._respond(client, lane.refusal, lane)

    def stop(self) -> None:
        """Requests that wait are dropped."""
        for pool in self._pools.values():
            pool.stop()

    def _work(self, client: T, environ: Environ, lane: Lane) -> None:
        """In a worker's thread."""
        if not lane.urgent:
            self._wait()
        if lane.prepare is None:
            self._respond(client, run_application(self._application, environ), lane)
            return
        try:
            then = lane.prepare(environ)
        except Exception:
            log.exception("preparing %s %s failed", environ["REQUEST_METHOD"], environ["PATH_INFO"])
            self._respond(client, INTERNAL_ERROR, lane)
            return
        self.enqueue(client, environ, then)
