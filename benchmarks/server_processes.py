"""Start servers to measure, wait until they respond, read their resource usage, and stop them by pid."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.scraping import ScrapeError, scrape_once

READY_WITHIN_SECONDS = 30.0
STOP_WITHIN_SECONDS = 5.0
LOG_TAIL_LINES = 20

#: The kernel's number for the clock of all CPU time of a process (CPUCLOCK_SCHED), in nanoseconds: the fields of
#: /proc/PID/stat count in hundredths of a second, which is more than ten scrapes take.
_PROCESS_CLOCK = 2


class NotReadyError(Exception):
    """A server did not start; the message has the end of its log."""


@dataclass(frozen=True)
class ServerProcess:
    """A process that serves /metrics."""

    name: str
    address: tuple[str, int]
    process: subprocess.Popen[bytes] = field(repr=False)

    def cpu_seconds(self) -> float:
        """Return the CPU time of the process with its threads and descendants, including ended ones."""
        return sum(_cpu_seconds(pid) for pid in _with_descendants(self.process.pid))

    def rss_bytes(self) -> int:
        """Return the resident memory of the process and its descendants."""
        return sum(_rss_bytes(pid) for pid in _with_descendants(self.process.pid))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))


@contextmanager
def run_server(
    name: str, command: Sequence[str], port: int, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[ServerProcess]:
    """Run a server on this port of 127.0.0.1, from its first response until the end of the block.

    `environment` is added to our own. Raises NotReadyError.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
    server = ServerProcess(name, ("127.0.0.1", port), process)
    try:
        _wait_until_ready(server, log)
        yield server
    finally:
        _stop(process)


def free_port() -> int:
    """Return an unused TCP port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(server: ServerProcess, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    why = ""
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            scrape_once(server.address)
        except (OSError, ScrapeError) as error:
            why = str(error)
            time.sleep(0.05)
        else:
            return
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
    raise NotReadyError(f"{server.name} does not answer on {server.address}: {why}\n{tail}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_WITHIN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_WITHIN_SECONDS)


def _with_descendants(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            children = (task / "children").read_text().split()
        except FileNotFoundError:  # a thread that has just ended, or a kernel that does not list children
            continue
        for child in children:
            yield from _with_descendants(int(child))


def _cpu_seconds(pid: int) -> float:
    # Field 2 is the program's name in parentheses, which may hold anything. 16 and 17 are those of ended children.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ended_children = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime((~pid << 3) | _PROCESS_CLOCK) + ended_children


def _rss_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
