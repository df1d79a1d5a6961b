"""The load ladder against a server that streams tokens: its caps, and what ends it."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

import pytest
from click.testing import CliRunner
from gpu_advisor.calibration.errors import CalibrationError
from gpu_advisor.calibration.serving_probe import ServingProbe, run_serving_probe
from gpu_advisor.commands.probe import command

from tests.local_http import serve


@dataclass
class Model:
    """A fake server; it fails from its `fails_from`-th request on."""

    names: tuple[str, ...] = ("tiny",)
    fails_from: int = 10**9
    asked: list[dict[str, object]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def served(model: Model) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(json.dumps({"data": [{"id": name} for name in model.names]}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with model.lock:
                model.asked.append(body)
                failed = len(model.asked) >= model.fails_from
            if failed:
                self.send_error(503, "overloaded")
                return
            part = b'data: {"choices": [{"text": "a"}]}\n\n'
            self._send(part * body["max_tokens"] + b"data: [DONE]\n\n")

        def _send(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with serve(Handler) as url:
        yield url


def test_levels_rise_and_never_generate_more_than_the_cap() -> None:
    model = Model()
    with served(model) as url:
        levels = list(run_serving_probe(ServingProbe(url, levels=(1, 3, 9), level_seconds=0.1, max_tokens=4000)))
    assert [each.concurrency for each in levels] == [1, 3, 9][: len(levels)]
    assert sum(int(str(each["max_tokens"])) for each in model.asked) <= 4000
    assert all(each.tokens_per_second > 0 for each in levels)
    assert levels[-1].stop in ("", "cap on tokens")


@pytest.mark.parametrize("level_seconds", [1e-9, 0.2], ids=["answers take longer than a level", "several a level"])
def test_the_first_missed_objective_ends_it(level_seconds: float) -> None:
    with served(Model()) as url:
        levels = list(run_serving_probe(ServingProbe(url, levels=(1, 2, 4), level_seconds=level_seconds, ttft=1e-9)))
    assert len(levels) == 1
    assert "time to first token" in levels[0].stop


def test_the_first_error_ends_it() -> None:
    with served(Model(fails_from=2)) as url:
        levels = list(run_serving_probe(ServingProbe(url, levels=(1, 2, 4), level_seconds=5.0)))
    assert len(levels) == 1
    assert "503" in levels[0].stop


@pytest.mark.parametrize(("names", "message"), [((), "no model"), (("a", "b"), "a, b")])
def test_a_model_must_be_certain(names: tuple[str, ...], message: str) -> None:
    with served(Model(names)) as url, pytest.raises(CalibrationError, match=f"{message}.*--model"):
        list(run_serving_probe(ServingProbe(url)))


def test_the_command_prints_levels_and_refuses_a_bare_number() -> None:
    with served(Model()) as url:
        arguments = ["--serving", url, "--concurrency", "1,2", "--max-tokens", "500", "--slo-itl", "10s"]
        found = CliRunner().invoke(command, arguments)
        assert found.exit_code == 0, found.output
        assert "cap on tokens" in found.output
        assert CliRunner().invoke(command, ["--serving", url, "--slo-itl", "50"]).exit_code == 2


@pytest.mark.parametrize("model", [(), ("--model", "m")], ids=["asked for its models", "asked for an answer"])
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:{port}", "Connection refused: start the server, or correct --serving"),
        ("localhost:{port}", "not the URL of a server: give --serving as http://HOST:PORT"),
    ],
)
def test_a_server_that_does_not_answer_is_a_sentence_and_no_table(
    model: tuple[str, ...], url: str, message: str
) -> None:
    with socket.socket() as bound:  # refuses: it does not listen
        bound.bind(("127.0.0.1", 0))
        address = url.format(port=bound.getsockname()[1])
        found = CliRunner().invoke(command, ["--serving", address, *model])
    assert found.exit_code == 1
    assert message in found.output
    assert not any(words in found.output for words in ("at a time", "HTTPConnection", "retries", "adapters"))


@contextmanager
def hostile(models: Iterator[bytes] | bytes, answer: Iterator[bytes] | bytes, status: int = 200) -> Iterator[str]:
    """A server that sends these bodies, whatever it is asked for, until the client disconnects."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, models)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._send(status, answer)

        def _send(self, status: int, body: Iterator[bytes] | bytes) -> None:
            self.send_response(status)
            self.send_header("Location", f"{self.path}/again")
            self.end_headers()
            with suppress(OSError):
                for part in [body] if isinstance(body, bytes) else body:
                    self.wfile.write(part)

        def log_message(self, format: str, *args: object) -> None: ...

    with serve(Handler) as url:
        yield url


ONE_MODEL = b'{"data": [{"id": "tiny"}]}'
TOKEN = b'data: {"choices": [{"text": "a"}]}\n\n'


@pytest.mark.parametrize(
    ("answer", "status", "stop"),
    [
        (itertools.repeat(TOKEN), 200, ""),  # tokens without end: as many count as were asked for
        (itertools.repeat(b"x" * 4096), 200, "a line of its answer exceeds"),
        (itertools.repeat(b": ping\n\n" * 500), 200, "its answer exceeds"),
        (b"data: " + b"[" * 10_000 + b"\n", 200, "error"),
        (b"data: {}\n", 200, "without a token"),
        (b"", 307, "HTTP 307"),  # is not followed
        (itertools.repeat(b"x" * 4096), 500, "HTTP 500"),
        (b"\x1b]0;title\x07\x1b[2J", 500, "HTTP 500: ?]0;title??[2J"),
    ],
)
def test_a_hostile_server_ends_the_probe(answer: Iterator[bytes] | bytes, status: int, stop: str) -> None:
    with hostile(ONE_MODEL, answer, status) as url:
        probe = ServingProbe(url, levels=(1,), level_seconds=0.05, answer_tokens=4, timeout_seconds=20)
        (level,) = run_serving_probe(probe)
    assert stop in level.stop
    assert level.stop.isprintable()


def test_an_answer_that_trickles_ends_at_its_time() -> None:
    def drops() -> Iterator[bytes]:
        while True:
            yield b":"
            time.sleep(0.02)

    with hostile(ONE_MODEL, drops()) as url:
        (level,) = run_serving_probe(ServingProbe(url, levels=(1,), level_seconds=0.05, timeout_seconds=0.3))
    assert level.stop == "error: its answer took too long"


@pytest.mark.parametrize(
    "models",
    [
        itertools.repeat(b" " * 65536),
        b"[" * 100_000,
        b'{"data": [{"id": "\\u001b[2J"}, {"id": "b"}]}',
        b'{"data": 7}',
        b"\xff",
    ],
)
def test_a_hostile_list_of_models_is_an_error(models: Iterator[bytes] | bytes) -> None:
    with hostile(models, b"") as url, pytest.raises(CalibrationError) as error:
        list(run_serving_probe(ServingProbe(url, timeout_seconds=20)))
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500
