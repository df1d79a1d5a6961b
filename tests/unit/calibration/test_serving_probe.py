"""The load ladder against a server that streams tokens: its caps, and what ends it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner
from gpu_advisor.calibration.errors import CalibrationError
from gpu_advisor.calibration.serving_probe import ServingProbe, run_serving_probe
from gpu_advisor.commands.probe import command


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

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_levels_rise_and_never_generate_more_than_the_cap() -> None:
    model = Model()
    with served(model) as url:
        levels = list(run_serving_probe(ServingProbe(url, levels=(1, 3, 9), level_seconds=0.1, max_tokens=4000)))
    assert [each.concurrency for each in levels] == [1, 3, 9][: len(levels)]
    assert sum(int(str(each["max_tokens"])) for each in model.asked) <= 4000
    assert all(each.tokens_per_second > 0 for each in levels)
    assert levels[-1].stop in ("", "cap on tokens")


def test_the_first_missed_objective_ends_it() -> None:
    with served(Model()) as url:
        levels = list(run_serving_probe(ServingProbe(url, levels=(1, 2, 4), level_seconds=0.2, ttft=1e-9)))
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
