"""Documented operations of both servers by schemathesis: no 500, and no response that is not documented.

    python -m benchmarks.fuzz_api --minutes 10

The advisor describes itself at /openapi.json; it watches the exporter, which simulates GPUs, and has machines to lease.
The exporter's few paths are described here. Both have positive and negative cases, and sequences of operations
(stateful testing). Exits with 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, Goal, missed_goals, write
from benchmarks.server_processes import free_port
from benchmarks.soak.processes import NotReadyError, Program

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"

#: 503 is an answer: it is documented, and says when to retry.
CONFIGURATION = """[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "503"]
"""


def _text(*statuses: int) -> dict[str, Any]:
    kinds: dict[str, Any] = {"text/plain": {}, "text/html": {}}
    return {"responses": {str(status): {"description": "text", "content": kinds} for status in statuses}}


#: 405 is the exporter's answer to a method that a path does not have.
EXPORTER_API: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "gpu-exporter", "version": "1"},
    "paths": {
        **{path: {"get": _text(200), "head": {"responses": {"200": {"description": "as GET, without the body"}}}}
           for path in ("/", "/metrics", "/-/healthy", "/-/ready")},
        "/-/release": {"post": _text(200, 400, 403)},
        "/-/reload": {"post": _text(200, 400, 403)},
        "/{path}": {
            "get": {
                "parameters": [{"name": "path", "in": "path", "required": True, "schema": {"type": "string"}}],
                **_text(200, 400, 404, 431),
            }
        },
    },
}  # fmt: skip


@contextmanager
def servers(folder: Path) -> Iterator[dict[str, Program]]:
    """Both, on free ports, with their OpenAPI documents as files in the folder. Raises NotReadyError."""
    ports = free_port(), free_port()
    exporter = Program(
        [
            sys.executable, "-m", "gpu_exporter", "--simulate", "4xH100-80GB:training,2xT4-16GB:idle",
            "--web.enable-lifecycle", "--web.listen-address", f"127.0.0.1:{ports[0]}",
        ],
        ports[0], "/-/healthy", folder / "exporter.log",
    )  # fmt: skip
    (folder / "machines.yml").write_text("nodes: [{name: a, gpus: [{type: H100-80GB, count: 8}]}]\n")
    settings = {
        "state_dir": f"{folder}/state",
        "source": {"embedded": {"targets": [f"127.0.0.1:{ports[0]}"]}},
        "web": {"listen_address": f"127.0.0.1:{ports[1]}", "enable_lifecycle": True},
        "allocation": {"inventory_file": f"{folder}/machines.yml"},
    }
    (folder / "advisor.yml").write_text(json.dumps(settings))
    advisor = Program(
        [sys.executable, "-m", "gpu_advisor", "serve", "--config", f"{folder}/advisor.yml"],
        ports[1], "/-/healthy", folder / "advisor.log",
    )  # fmt: skip
    try:
        for program in (exporter, advisor):
            program.start()
        _wait_for_gpus(advisor)
        (folder / "schemathesis.toml").write_text(CONFIGURATION)
        (folder / "exporter.json").write_text(json.dumps(EXPORTER_API))
        (folder / "advisor.json").write_text(json.dumps(advisor.document("/openapi.json")))
        yield {"exporter": exporter, "advisor": advisor}
    finally:
        for program in (advisor, exporter):
            program.stop()


def _wait_for_gpus(advisor: Program) -> None:
    """Raises NotReadyError if there are none to lease within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError):
            if advisor.document("/api/v1/gpu/nodes"):
                return
        time.sleep(0.5)
    raise NotReadyError("the advisor knows no GPUs after a minute")


def fuzz(name: str, program: Program, folder: Path, minutes: float) -> subprocess.Popen[bytes]:
    """Schemathesis against a server, in the background; its findings become NAME.txt and NAME-report.json."""
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--no-color", "run", f"{folder}/{name}.json",
        "--url", f"http://{program.address[0]}:{program.address[1]}", "--max-time", str(round(60 * minutes)),
        "--checks", CHECKS, "--continue-on-failure", "--suppress-health-check", "all", "--request-timeout", "30",
        "--generation-database", "none", "--report", "json", "--report-json-path", f"{folder}/{name}-report.json",
    ]  # fmt: skip
    with (folder / f"{name}.txt").open("wb") as output:
        return subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz_api", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="of each server, both at once; default: %(default)s"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of fuzz_api.json; default: %(default)s")
    options = parser.parse_args(argv)
    found: dict[str, Any] = {}
    against = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            with servers(folder) as running:
                fuzzers = {name: fuzz(name, program, folder, options.minutes) for name, program in running.items()}
                codes = {name: fuzzer.wait() for name, fuzzer in fuzzers.items()}
                alive = {name: program.runs for name, program in running.items()}
        except NotReadyError as error:
            print(f"benchmarks.fuzz_api: {error}", file=sys.stderr)
            return 2
        for name in codes:
            text = (folder / f"{name}.txt").read_text(errors="replace")
            print(f"{name}\n{text[-6000:]}")
            report = json.loads((folder / f"{name}-report.json").read_text())
            cases, failures = report["test_cases"], report["failures"] + report["errors"]
            found[name] = {"cases": cases, "operations": report["operations"], "failures": failures}
            figure = f"{cases['generated']} cases, {report['operations']['tested']} operations"
            against.append(Goal(f"{name}: no 500, nothing undocumented", codes[name] == 0 and not failures, figure))
            log_bytes = (folder / f"{name}.log").stat().st_size
            against.append(Goal(f"{name}: runs in the end, log below 1 MiB", alive[name] and log_bytes < 1 << 20,
                                f"{log_bytes} bytes"))  # fmt: skip
    print("\n".join(map(str, against)))
    document = {"minutes": options.minutes, "servers": found, "goals": [vars(goal) for goal in against]}
    print(f"written: {write('fuzz_api', document, options.results)}")
    return 1 if missed_goals(against) else 0


if __name__ == "__main__":
    sys.exit(main())
