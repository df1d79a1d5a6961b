"""Samples from Prometheus, or from a compatible server (Thanos, Mimir, VictoriaMetrics)."""

from __future__ import annotations

import concurrent.futures
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import requests

from gpu_advisor.promql.compiler import range_selector, to_promql
from gpu_advisor.promql.expressions import Expression, Labels, Selector, TimeSeries, Vector
from gpu_advisor.promql.query_language import QueryLanguage
from gpu_advisor.sources.algebra import MutableVector
from gpu_advisor.sources.base import Samples, SourceError, SourceErrorKind
from gpu_advisor.sources.prometheus.combined_queries import (
    CombinedQuery,
    combined_expressions,
    results_in_order,
    split_results,
)
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig, open_client, unreachable_error
from gpu_advisor.sources.prometheus.engine import (
    NAN_PROBE,
    WINDOW_PROBE,
    WINDOW_PROBE_SECONDS,
    Engine,
    identify_engine,
)
from gpu_advisor.sources.prometheus.fast_response_parser import parse_combined_response
from gpu_advisor.sources.prometheus.http_client import (
    BodyTooLargeError,
    DeadlineClient,
    DeadlineExceededError,
    HttpResponse,
)
from gpu_advisor.sources.prometheus.label_cache import LabelCache
from gpu_advisor.sources.prometheus.response_parser import bad_response_error, read_matrix, read_vector, response_data
from gpu_advisor.sources.prometheus.samples_parser import parse_samples

MAX_CONCURRENT_QUERIES = 2
MAX_RESPONSE_BYTES = 96 << 20  # 10,000 GPUs take some 4 MiB per query
_INITIAL_BACKOFF_SECONDS = 0.2
_RETRYABLE_STATUSES = (502, 503, 504)

log = logging.getLogger(__name__)

T = TypeVar("T")
E = TypeVar("E", bound=Expression)


class PrometheusSource:
    """A Source over HTTP, with at most two concurrent queries.

    The server's engine is detected before the first query, and again after the server was unreachable, unless `engine`
    is given.
    """

    name = "prometheus"

    def __init__(self, settings: PrometheusClientConfig, engine: Engine | None = None) -> None:
        self.address = settings.url.rstrip("/")
        self._settings = settings
        self._server = f"Prometheus at {self.address}"
        self._clients: queue.SimpleQueue[DeadlineClient] = queue.SimpleQueue()
        for _ in range(MAX_CONCURRENT_QUERIES):
            self._clients.put(open_client(settings))
        self._pool = concurrent.futures.ThreadPoolExecutor(MAX_CONCURRENT_QUERIES, thread_name_prefix="prometheus")
        self._closed = threading.Event()
        self._given_engine = self._engine = engine
        self._engine_lock = threading.Lock()

    def __repr__(self) -> str:
        return f"PrometheusSource({self.address!r})"

    def instant(self, expressions: Mapping[str, Expression], at: float) -> dict[str, Vector]:
        """As Source.instant. Raises SourceError."""
        return self._query("/api/v1/query", self._forms(expressions, at, _instant_text), self._vector)

    def read_combined(self, combined: Sequence[CombinedQuery], at: float) -> list[tuple[MutableVector, ...]]:
        """As CombinedQuerySource.read_combined. Raises SourceError."""
        known = LabelCache()

        def parts(response: HttpResponse) -> dict[str, MutableVector]:
            quick = parse_combined_response(response.body, known) if response.status == 200 else None
            return split_results(self._vector(response)) if quick is None else quick

        forms = self._forms(combined_expressions(combined), at, _instant_text)
        results = self._query("/api/v1/query", forms, parts)
        return [results_in_order(query, results[str(number)]) for number, query in enumerate(combined)]

    def _vector(self, response: HttpResponse) -> dict[Labels, float]:
        return read_vector(response, self._server)

    def range(self, expression: Expression, start: float, end: float, step: float) -> dict[Labels, TimeSeries]:
        """As Source.range. Raises SourceError."""
        return self.range_promql(self._text(expression, _instant_text), start, end, step)

    def range_promql(self, promql: str, start: float, end: float, step: float) -> dict[Labels, TimeSeries]:
        """As `range`, for PromQL written by a user. Raises SourceError."""
        form = {
            "query": promql,
            "start": self._time(start),
            "end": self._time(end),
            "step": self._step(step),
        }
        return self._query("/api/v1/query_range", {"": form}, lambda response: read_matrix(response, self._server))[""]

    def samples(self, selectors: Mapping[str, Selector], at: float) -> dict[str, dict[Labels, Samples]]:
        """As Source.samples. Raises SourceError."""
        if unlimited := [each.metric for each in selectors.values() if each.window_seconds is None]:
            raise ValueError(f"raw samples of {', '.join(unlimited)} need a window")
        drop_nan = self.engine().behavior.nan_marks_staleness
        return self._query(
            "/api/v1/query",
            self._forms(selectors, at, range_selector),
            lambda response: parse_samples(response, self._server, drop_nan=drop_nan),
        )

    def query_language(self) -> QueryLanguage:
        """As PromqlSource.query_language. Raises SourceError."""
        return self.engine().behavior.language

    def engine(self) -> Engine:
        """The server's query engine. Raises SourceError where the server does not answer at all."""
        with self._engine_lock:
            if self._engine is None:
                self._engine = self._detect_engine()
                log.info("%s: engine %s, evaluates as %s", self._server, self._engine, self._engine.kind.value)
            return self._engine

    def _detect_engine(self) -> Engine:
        at = _rfc3339(time.time() // WINDOW_PROBE_SECONDS * WINDOW_PROBE_SECONDS)
        submitted = {
            "build": self._pool.submit(self._request_with_retries, "GET", "/api/v1/status/buildinfo", None),
            **{
                probe: self._pool.submit(
                    self._request_with_retries, "POST", "/api/v1/query", {"query": probe, "time": at}
                )
                for probe in (WINDOW_PROBE, NAN_PROBE)
            },
        }
        responses = self._collect(submitted, lambda response: response)
        return identify_engine(
            self._unless_refused(lambda: response_data(responses["build"], self._server), *SourceErrorKind),
            self._unless_refused(lambda: self._vector(responses[WINDOW_PROBE])),
            self._unless_refused(lambda: self._vector(responses[NAN_PROBE])),
        )

    @staticmethod
    def _unless_refused(
        read: Callable[[], T],
        *refusals: SourceErrorKind,
    ) -> T | None:
        """What a response holds; None if the server refuses the request, but not if it refuses any."""
        try:
            return read()
        except SourceError as error:
            if error.kind in (refusals or (SourceErrorKind.BAD_RESPONSE, SourceErrorKind.QUERY_ERROR)):
                return None
            raise

    def close(self) -> None:
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        while not self._clients.empty():
            self._clients.get().close()

    def _query(
        self, path: str, forms: Mapping[str, Mapping[str, str]], read: Callable[[HttpResponse], T]
    ) -> dict[str, T]:
        limit = f"{round(self._settings.timeout_seconds * 1000)}ms"  # so that the server gives up when we do
        parameters = {"timeout": limit, **self.engine().behavior.parameters}
        submitted = {
            key: self._pool.submit(self._request_with_retries, "POST", path, {**form, **parameters})
            for key, form in forms.items()
        }
        try:
            return self._collect(submitted, read)
        except SourceError as error:
            if error.kind is SourceErrorKind.UNREACHABLE:
                self._engine = self._given_engine  # another server may answer next
            raise

    def _forms(
        self, expressions: Mapping[str, E], at: float, write: Callable[[E, QueryLanguage], str]
    ) -> dict[str, dict[str, str]]:
        return {
            key: {"query": self._text(expression, write), "time": self._time(at)}
            for key, expression in expressions.items()
        }

    def _step(self, seconds: float) -> str:
        digits = self.query_language().time_digits
        return f"{seconds:.3f}{digits}" if digits else f"{round(seconds * 1000)}ms"

    def _time(self, at: float) -> str:
        return _rfc3339(at, self.query_language().time_digits)

    def _text(self, expression: E, write: Callable[[E, QueryLanguage], str]) -> str:
        language = self.query_language()
        try:
            return write(expression, language)
        except ValueError as error:
            raise SourceError(SourceErrorKind.QUERY_ERROR, f"Not expressible in PromQL: {error}.") from error

    def _collect(
        self, submitted: Mapping[str, concurrent.futures.Future[HttpResponse]], read: Callable[[HttpResponse], T]
    ) -> dict[str, T]:
        """The parsed responses: each is parsed on arrival, while the server works on the next ones."""
        rounds = -(-len(submitted) // MAX_CONCURRENT_QUERIES)
        limit = self._settings.timeout_seconds * rounds + 1  # a query times out by itself, but a DNS lookup may hang
        keys = {future: key for key, future in submitted.items()}
        found: dict[str, T] = {}
        try:
            for future in concurrent.futures.as_completed(keys, limit):
                found[keys.pop(future)] = read(future.result())
                del future  # frees the response's bytes
        except concurrent.futures.TimeoutError as error:
            raise self._timeout() from error
        finally:
            for future in submitted.values():  # those waiting, if another one failed or timed out
                future.cancel()
        return {key: found[key] for key in submitted}

    def _request_with_retries(self, method: str, path: str, form: Mapping[str, str] | None) -> HttpResponse:
        """One request with its retries, all before the deadline. Raises SourceError."""
        deadline = time.monotonic() + self._settings.timeout_seconds
        pauses = self._backoff(deadline)
        while True:
            try:
                response = self._fetch(method, path, form, deadline)
            except requests.ConnectionError as error:
                if isinstance(error, requests.exceptions.SSLError) or not next(pauses, False):
                    raise unreachable_error(self._server, error) from error
                continue
            if not _is_retryable(response) or not next(pauses, False):
                return response

    def _backoff(self, deadline: float) -> Iterator[bool]:
        """Exponential backoff, once per remaining retry; ends if the deadline would pass."""
        pause = _INITIAL_BACKOFF_SECONDS
        for _ in range(self._settings.retries):
            if time.monotonic() + pause >= deadline or self._closed.wait(pause):
                return
            yield True
            pause *= 2

    def _fetch(self, method: str, path: str, form: Mapping[str, str] | None, deadline: float) -> HttpResponse:
        client = self._clients.get()
        try:
            return client.fetch(
                method,
                self.address + path,
                data=form,
                seconds=max(deadline - time.monotonic(), 0.001),
                max_bytes=MAX_RESPONSE_BYTES,
                verify=not self._settings.insecure_skip_verify and (self._settings.ca_file or True),
            )
        except (DeadlineExceededError, requests.Timeout) as error:
            raise self._timeout() from error
        except BodyTooLargeError as error:
            raise bad_response_error(self._server, str(error)) from error
        except requests.ConnectionError:
            raise
        except requests.RequestException as error:
            raise bad_response_error(self._server, f"the request failed ({type(error).__name__})") from error
        except OSError as error:
            raise SourceError(
                SourceErrorKind.UNREACHABLE,
                f"{self._server}: cannot read the TLS files. Check ca_file, cert_file and key_file.",
            ) from error
        finally:
            self._clients.put(client)

    def _timeout(self) -> SourceError:
        return SourceError(
            SourceErrorKind.TIMEOUT,
            f"{self._server} sent no complete response within {self._settings.timeout_seconds:g} s."
            " Raise timeout_seconds, or check what keeps that server busy.",
        )


def _instant_text(expression: Expression, language: QueryLanguage) -> str:
    return to_promql(expression, language=language)


def _rfc3339(seconds: float, more_digits: str = "") -> str:
    """RFC 3339 with milliseconds: a server that parses 1700000000.567 as a float may truncate it to .566."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{milliseconds:03d}{more_digits}Z"


def _is_retryable(response: HttpResponse) -> bool:
    # A 503 with an API error means that this query took too long: retrying would make it worse.
    return response.status in _RETRYABLE_STATUSES and b'"errorType"' not in response.body[:4096]
