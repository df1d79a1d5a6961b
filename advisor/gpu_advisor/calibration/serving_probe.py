"""A load ladder on a live inference server: throughput and latencies at several concurrencies, through its API of
completions (https://platform.openai.com/docs/api-reference/completions), which vLLM, SGLang, TGI and others serve.

It is real load. It ends at the first error, at the first objective that is missed, and at its caps on time and tokens.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import requests

from gpu_advisor.calibration.errors import CalibrationError
from gpu_advisor.loopback import proxies_for
from gpu_advisor.rendering.error_causes import causes, system_messages
from gpu_advisor.rendering.escaping import one_line

#: Requests that a level needs for a percentile. On a slow server it lasts until it has them, or to the cap on time: a
#: level without a percentile would miss no objective, and the next would load the server even more.
MIN_REQUESTS = 3

#: Most bytes of a list of models, of an error, and of an event of a stream.
MAX_DOCUMENT_BYTES, MAX_ERROR_BYTES, MAX_EVENT_BYTES = 1 << 20, 1 << 12, 1 << 14

_NO_URL = (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema)


@dataclass(frozen=True, slots=True)
class ServingProbe:
    """`url` is the server's root. Caps are of the whole ladder; objectives are in seconds, None for none."""

    url: str
    model: str | None = None
    levels: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    level_seconds: float = 10.0
    max_seconds: float = 120.0
    max_tokens: int = 100_000
    ttft: float | None = None
    itl: float | None = None
    prompt_words: int = 100
    answer_tokens: int = 64
    timeout_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Level:
    """One concurrency. Latencies (seconds) are 95th percentiles, None if too few requests ended. `stop` says why the
    ladder ends here; empty: it goes on."""

    concurrency: int
    requests: int
    tokens_per_second: float
    ttft: float | None
    itl: float | None
    stop: str = ""


@dataclass(slots=True)
class _Meter:
    """What the clients of a level measured. `left` are the tokens that may still be generated."""

    left: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)
    first: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    tokens: int = 0
    error: str = ""

    def reserve(self, tokens: int) -> bool:
        with self.lock:
            if self.left < tokens:
                return False
            self.left -= tokens
            return True

    def add(self, first: float, gaps: Sequence[float], unused: int) -> None:
        with self.lock:
            self.first.append(first)
            self.gaps += gaps
            self.tokens += 1 + len(gaps)
            self.left += unused

    def fail(self, message: str) -> None:
        with self.lock:
            self.error = self.error or message
        self.stop.set()


def run_serving_probe(probe: ServingProbe) -> Iterator[Level]:
    """The levels, one after the other. Raises CalibrationError if the server does not answer at all."""
    url, model = probe.url.rstrip("/"), probe.model or _only_model(probe)
    began, left = time.monotonic(), probe.max_tokens
    for concurrency in probe.levels:
        remaining = probe.max_seconds - (time.monotonic() - began)
        if remaining <= 0:
            return
        meter = _Meter(left)
        level = _measure(probe, url, model, concurrency, remaining, meter)
        left = meter.left
        yield level
        if level.stop:
            return


def _only_model(probe: ServingProbe) -> str:
    address = f"{probe.url.rstrip('/')}/v1/models"
    try:
        names = [str(each["id"]) for each in json.loads(_get(address, probe.timeout_seconds))["data"]]
    except (requests.RequestException, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CalibrationError(f"{address}: {_explain(error, 'no list of models', 'name --model')}") from None
    if len(names) != 1:
        listed = one_line(", ".join(each[:100] for each in names[:20])) or "no model"
        raise CalibrationError(f"{address} serves {listed}: name one with --model")
    return names[0]


def _explain(error: Exception, otherwise: str = "", remedy: str = "") -> str:
    """Why there is no answer, and what to do. An answer that is not as expected has `otherwise` and `remedy`."""
    if isinstance(error, _NO_URL):
        return "not the URL of a server: give --serving as http://HOST:PORT"
    if isinstance(error, requests.Timeout):
        return "no answer in time: check that the server is ready, and --serving"
    if isinstance(error, requests.RequestException):
        *_, last = causes(error)
        words = one_line(next(system_messages(error), "") or str(last))
        return f"{words}: start the server, or correct --serving"
    words = one_line(str(error))
    return f"{otherwise} ({words}): check --serving, or {remedy}" if otherwise else words


def _get(address: str, timeout: float) -> bytes:
    """Raises requests.RequestException; ValueError for what `_pieces` refuses, and for another status than 200."""
    deadline = time.monotonic() + timeout
    with requests.get(
        address, stream=True, timeout=timeout, allow_redirects=False, proxies=proxies_for(address)
    ) as response:
        if response.status_code != requests.codes.ok:
            raise ValueError(f"HTTP {response.status_code}")
        return b"".join(_pieces(response, deadline, MAX_DOCUMENT_BYTES))


def _measure(probe: ServingProbe, url: str, model: str, concurrency: int, remaining: float, meter: _Meter) -> Level:
    began = time.monotonic()
    usual_end, last_end = began + min(probe.level_seconds, remaining), began + remaining

    def goes_on() -> bool:
        return time.monotonic() < (usual_end if len(meter.first) >= MIN_REQUESTS else last_end)

    clients = [
        threading.Thread(target=_client, args=(probe, url, model, goes_on, meter), daemon=True)
        for _ in range(concurrency)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    took = time.monotonic() - began
    enough = len(meter.first) >= MIN_REQUESTS
    ttft = _percentile_95(meter.first) if enough else None
    itl = _percentile_95(meter.gaps) if enough and meter.gaps else None
    rate = meter.tokens / took if took > 0 else 0.0
    return Level(concurrency, len(meter.first), rate, ttft, itl, _why_stop(probe, meter, ttft, itl))


def _why_stop(probe: ServingProbe, meter: _Meter, ttft: float | None, itl: float | None) -> str:
    if meter.error:
        return f"error: {meter.error}"
    for name, value, objective in (("time to first token", ttft, probe.ttft), ("inter-token latency", itl, probe.itl)):
        if value is not None and objective is not None and value > objective:
            return f"{name} {value:.3g} s is above its objective of {objective:g} s"
    return "cap on tokens" if meter.left < probe.answer_tokens else ""


def _client(probe: ServingProbe, url: str, model: str, goes_on: Callable[[], bool], meter: _Meter) -> None:
    prompt = " ".join(["word"] * probe.prompt_words)
    body = {"model": model, "prompt": prompt, "max_tokens": probe.answer_tokens, "stream": True, "ignore_eos": True}
    with requests.Session() as session:
        while goes_on() and not meter.stop.is_set() and meter.reserve(probe.answer_tokens):
            try:
                times = _ask(session, f"{url}/v1/completions", body, probe.answer_tokens, probe.timeout_seconds)
            except (requests.RequestException, ValueError, RecursionError) as error:
                meter.fail(_explain(error))
                return
            gaps = [later - earlier for earlier, later in itertools.pairwise(times[1:])]
            meter.add(times[1] - times[0], gaps, max(0, probe.answer_tokens - len(times) + 1))


def _ask(session: requests.Session, url: str, body: object, tokens: int, timeout: float) -> list[float]:
    """When the request was sent, and when each part of its answer came, of which there are at most `tokens`.

    Raises ValueError for an answer that is empty, too long or too slow.
    """
    times = [time.monotonic()]
    with session.post(
        url, json=body, stream=True, timeout=timeout, allow_redirects=False, proxies=proxies_for(url)
    ) as response:
        if response.status_code != requests.codes.ok:
            start = response.raw.read(MAX_ERROR_BYTES, decode_content=True)
            raise ValueError(f"HTTP {response.status_code}: {start[:200].decode('utf-8', 'replace')}")
        for line in _lines(response, times[0] + timeout, (tokens + 1) * MAX_EVENT_BYTES):
            if line.startswith(b"data: ") and line != b"data: [DONE]" and _has_text(line[6:]):
                times.append(time.monotonic())
            if len(times) > tokens + 1:  # it sends more than it was asked for, perhaps without end
                times.pop()
                break
    if len(times) < 2:
        raise ValueError("an answer without a token")
    return times


def _lines(response: requests.Response, deadline: float, limit: int) -> Iterator[bytes]:
    """Lines of a body as they come. Raises ValueError as `_pieces` does, and for a line without end."""
    line = bytearray()
    for piece in _pieces(response, deadline, limit, size=1):
        line += piece
        if piece in (b"\n", b"\r"):
            yield bytes(line).rstrip(b"\r\n")
            line.clear()
        elif len(line) > MAX_EVENT_BYTES:
            raise ValueError(f"a line of its answer exceeds {MAX_EVENT_BYTES} bytes")
    yield bytes(line)


def _pieces(response: requests.Response, deadline: float, limit: int, size: int = 1 << 14) -> Iterator[bytes]:
    """A body as it comes. Raises ValueError after the deadline (monotonic clock), or beyond `limit` bytes."""
    left = limit
    for piece in response.iter_content(size):
        left -= len(piece)
        if left < 0:
            raise ValueError(f"its answer exceeds {limit} bytes")
        if time.monotonic() > deadline:
            raise ValueError("its answer took too long")
        yield piece


def _has_text(data: bytes) -> bool:
    found = json.loads(data)
    return isinstance(found, dict) and bool(found.get("choices"))


def _percentile_95(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
