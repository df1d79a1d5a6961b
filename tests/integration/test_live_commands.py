"""The live commands on a terminal of their own, against a real exporter and a real advisor."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.doc_blocks import all_blocks
from tests.own_processes import Program, exporter, up
from tests.polling import wait_until
from tests.servers import free_port, require_binary

COMMAND = (sys.executable, "-m", "gpu_advisor")
FLEET = "1xH100-80GB:throttled,2xT4-16GB:idle-hoarder,1xL40S-48GB:lost"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Program, str]]:
    """A running advisor with advice, and its exporter's URL."""
    address = f"127.0.0.1:{free_port()}"
    with up(tmp_path_factory.mktemp("node"), address, f"127.0.0.1:{free_port()}", FLEET) as program:
        wait_until(lambda: len(program.get("/recommendations")["recommendations"]) >= 2, "advice", program)
        yield program, f"http://{address}"


def restore_sigint() -> None:
    """In a child: a shell lets what it starts in the background ignore Ctrl-C, and that is handed down."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run_on_terminal(
    arguments: Sequence[str], until: str, end: int | bytes, environment: Mapping[str, str] = {}
) -> tuple[str, int]:
    """What a command shows on a terminal until there is this text and a signal or keys end it, and its exit code."""
    master, slave = pty.openpty()
    settings = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "160", "LINES": "50", **environment}
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdin=slave, stdout=slave, stderr=slave, env=settings, preexec_fn=restore_sigint
    )
    os.close(slave)
    shown = ""
    try:
        for part in read_terminal(master, 60):
            shown += part
            if until in shown:
                break
        else:
            pytest.fail(f"{until!r} was not shown: {shown!r}")
        if isinstance(end, bytes):
            os.write(master, end)
        else:
            process.send_signal(end)
        shown += "".join(read_terminal(master, 20))
        return shown, process.wait(60)
    finally:
        process.kill()
        process.wait(60)
        os.close(master)


def read_terminal(master: int, seconds: float) -> Iterator[str]:
    """What comes from a terminal, until the other end is closed or the time is over."""
    deadline = time.monotonic() + seconds
    while select.select([master], [], [], max(0.0, deadline - time.monotonic()))[0]:
        try:
            part = os.read(master, 65536).decode(errors="replace")
        except OSError:  # the other end is closed
            return
        if not part:
            return
        yield part


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_on_a_terminal(node: tuple[Program, str], number: int) -> None:
    program, _ = node
    shown, code = run_on_terminal(["watch", "--advisor", program.url], "Release", number)
    assert code == 0
    assert "\x1b[?1049h" in shown
    assert shown.rstrip().endswith(("\x1b[?25h", "\x1b[?1049l"))  # the terminal is as it was
    assert "\x1b[33m" in shown
    assert "Traceback" not in shown


def test_no_colours_where_nobody_wants_them(node: tuple[Program, str]) -> None:
    program, _ = node
    shown, _ = run_on_terminal(["watch", "--advisor", program.url], "Release", signal.SIGINT, {"NO_COLOR": "1"})
    assert "\x1b[33m" not in shown
    assert "\x1b[31m" not in shown


def test_top_on_a_terminal(node: tuple[Program, str]) -> None:
    shown, code = run_on_terminal(["top", node[1]], "HISTORY", signal.SIGINT)
    assert (code, "down: lost" in shown, "hw thermal" in shown) == (0, True, True)


def test_top_by_keys(node: tuple[Program, str]) -> None:
    shown, code = run_on_terminal(["top", node[1]], "HISTORY", b"t/lost\rq")
    assert code == 0
    assert "no known owner: 1 GPU" in shown
    assert "filter 'lost': 1 of" in shown
    assert shown.rstrip().endswith(("\x1b[?25h", "\x1b[?1049l"))  # the terminal is as it was


def test_in_a_pipe_plain_lines_come_at_once(node: tuple[Program, str]) -> None:
    program, _ = node
    command = [*COMMAND, "watch", "--advisor", program.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=restore_sigint) as process:
        assert process.stdout
        line = next(line for line in process.stdout if "Release" in line)
        assert line.isprintable() or line[:-1].isprintable()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_who_reads_no_more_is_no_error(node: tuple[Program, str]) -> None:
    command = f"{sys.executable} -m gpu_advisor check --gpus --advisor {node[0].url} --format csv | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_top_once_shows_what_the_exporter_publishes(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with exporter(tmp_path, address, "--simulate", FLEET):
        done = subprocess.run(
            [*COMMAND, "top", address, "--format", "json"], capture_output=True, text=True, timeout=60, check=True
        )
    found = json.loads(done.stdout)
    hot, first, second, lost = found["gpus"]
    assert found["simulated"] is True
    assert 0.8 < hot["utilization_ratio"] <= 1
    assert hot["held_back_by"] == ["hw_thermal"]
    assert {each["utilization_ratio"] for each in (first, second)} == {0.0}
    assert first["memory_used_bytes"] > 0.5 * first["memory_total_bytes"]
    assert (lost["up"], lost["why_down"], lost["utilization_ratio"]) == (False, "lost", None)
    assert 0 <= found["host"]["cpu_ratio"] <= 1


def test_bash_completes(tmp_path: Path) -> None:
    program = tmp_path / "gpu-advisor"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom gpu_advisor.cli import main\nsys.exit(main())\n")
    program.chmod(0o755)
    script = """
        eval "$(gpu-advisor completion bash)"
        COMP_WORDS=(gpu-advisor check --status m) COMP_CWORD=3
        _gpu_advisor_completion gpu-advisor
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    settings = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [require_binary("bash"), "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=settings)
    assert (done.stdout.split(), done.stderr) == (["met", "missed"], "")


def requests_in_pages() -> list[Any]:
    """Requests of the pages to a running exporter or advisor; those of allocation.md run in test_allocation.py."""
    found: dict[str, str] = {}
    for block in all_blocks("sh"):
        if block.page != "docs/allocation.md":
            for line in block.text.replace("\\\n", " ").splitlines():
                if re.match(r"curl .*(?:ADVISOR|NODE|127\.0\.0\.1):98\d\d", line):
                    found.setdefault(line.split("#")[0].split("|")[0].strip(), str(block))
    return [pytest.param(line, id=where) for line, where in found.items()]


@pytest.mark.parametrize("line", requests_in_pages())
def test_requests_in_the_pages_succeed(node: tuple[Program, str], line: str) -> None:
    require_binary("curl")
    program, exporter_url = node
    for port, url in (("9817", program.url), ("9816", exporter_url)):
        line = re.sub(rf"http://[\w.]+:{port}", url, line)
    line = line.replace("curl ", "curl --show-error --fail ", 1)
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
