"""Many and slow clients: how soon do health and metrics answer meanwhile, and what does it cost?

    python -m benchmarks.connections                 1,000 idle, 300 that read slowly, 300 that send a byte at a time
    python -m benchmarks.connections --smoke         a small size, for CI
    python -m benchmarks.connections --servers advisor,cheroot

The advisor's application runs behind its own server, and behind others that speak TLS: cheroot, gunicorn with
threads, uvicorn and hypercorn with a WSGI bridge, granian. Each is tried without and with TLS. Clients that the server
disconnects come back at once, so that their number stays. They run in a process of their own; the prober opens a new
connection for each request.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import Goal, missed_goals, percentile, table, write
from benchmarks.compared_servers import SERVERS, serve
from benchmarks.server_processes import free_port
from benchmarks.slow_clients import Load, attack, client_context

GOAL_SECONDS = 1.0
PATHS = ("/-/healthy", "/metrics")
FULL = Load(1000, 300, 300, 20.0)
SMOKE = Load(20, 10, 10, 3.0)


@dataclass
class Figures:
    server: str
    tls: bool
    connected: int = 0
    open_at_end: int = 0
    reopened: int = 0
    seconds: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    rss_before: int = 0
    rss_most: int = 0
    log_bytes: int = 0

    def document(self) -> dict[str, Any]:
        taken = self.seconds or [float("inf")]
        return {
            "server": self.server, "tls": self.tls, "clients_connected": self.connected,
            "clients_open_at_end": self.open_at_end, "reconnected": self.reopened,
            "probes": len(self.seconds) + self.failures.total(), "failures": dict(self.failures),
            "p50_seconds": round(median(taken), 4), "p99_seconds": round(percentile(taken, 0.99), 4),
            "max_seconds": round(max(taken), 4), "rss_before_bytes": self.rss_before, "rss_most_bytes": self.rss_most,
            "log_bytes": self.log_bytes,
        }  # fmt: skip


def probe(port: int, path: str, context: ssl.SSLContext | None) -> float | str:
    """Seconds to the whole response of a new connection, or what failed; nothing may take longer than 5 s."""
    begun = time.perf_counter()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            client = context.wrap_socket(plain) if context else plain
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while data := client.recv(65536):
                answer += data
            client.close()
    except OSError as error:
        return f"{type(error).__name__} after {time.perf_counter() - begun:.1f} s"
    return time.perf_counter() - begun if answer.startswith(b"HTTP/1.1 200") else f"answered {answer[:30]!r}"


def _rss(pid: int) -> int:
    """Resident bytes of a process and its children."""
    total = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(folder.name) == pid or int(stat[1]) == pid:
                    pages = int((folder / "statm").read_text().split()[1])
                    total += pages * os.sysconf("SC_PAGE_SIZE")
    return total


@contextmanager
def running(name: str, port: int, certificate: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "benchmarks.connections", "--serve", name, str(port), certificate]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True) as process:
        try:
            context = client_context() if certificate else None
            deadline = time.monotonic() + 60
            while isinstance(probe(port, PATHS[0], context), str):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{name} did not start:\n{log.read_text()[-2000:]}")
                time.sleep(0.1)
            yield process
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(process.pid, number)
                    process.wait(5)


def measure(name: str, load: Load, certificate: str, folder: Path) -> Figures:
    figures, port = Figures(name, bool(certificate)), free_port()
    context = client_context() if certificate else None
    log = folder / f"{name}{'-tls' if certificate else ''}.log"
    with running(name, port, certificate, log) as process:
        for path in PATHS:
            probe(port, path, context)
        figures.rss_before = _rss(process.pid)
        here, there = multiprocessing.Pipe()
        attackers = multiprocessing.get_context("fork").Process(
            target=attack, args=(port, load, bool(certificate), there), daemon=True
        )
        attackers.start()
        try:
            here.poll(300)
            figures.connected = here.recv()
            end = time.monotonic() + load.seconds
            while time.monotonic() < end:
                for path in PATHS:
                    taken = probe(port, path, context)
                    if isinstance(taken, str):
                        figures.failures[taken] += 1
                    else:
                        figures.seconds.append(taken)
                figures.rss_most = max(figures.rss_most, _rss(process.pid))
                time.sleep(0.05)
            here.send("count")
            if here.poll(30):
                figures.open_at_end, figures.reopened = here.recv()
        finally:
            attackers.kill()
            attackers.join()
    figures.log_bytes = log.stat().st_size
    return figures


def _make_certificate(folder: Path) -> str:
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
            "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return str(folder)


def goals(found: list[Figures]) -> list[Goal]:
    """Of the advisor's own server."""
    return [
        Goal(
            f"health and metrics within {GOAL_SECONDS:g} s{' over TLS' if each.tls else ''}",
            not each.failures and max(each.seconds, default=9.0) < GOAL_SECONDS,
            f"slowest {max(each.seconds, default=float('inf')):.3f} s, {each.failures.total()} failed",
        )
        for each in found
        if each.server == "advisor"
    ]


def main(argv: list[str] | None = None) -> int:
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.connections", description=about)
    parser.add_argument("--smoke", action="store_true", help="a small size, for CI; writes no results")
    parser.add_argument("--servers", default=",".join(SERVERS), help="default: %(default)s")
    parser.add_argument("--serve", nargs=3, metavar=("NAME", "PORT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.serve:
        serve(options.serve[0], int(options.serve[1]), options.serve[2])
        return 0
    _raise_descriptor_limit()
    load = SMOKE if options.smoke else FULL
    wanted = [name for name in options.servers.split(",") if name == "advisor" or find_spec(name)]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        certificate = _make_certificate(Path(folder))
        for name in wanted:
            for secure in ("", certificate):
                found.append(measure(name, load, secure, Path(folder)))
                print(found[-1].document(), flush=True)
    rows = [["server", "TLS", "p50 ms", "p99 ms", "slowest ms", "failed", "RSS before, MiB", "most", "log bytes"]]
    for each in found:
        of = each.document()
        rows.append(
            [
                each.server, "yes" if each.tls else "no", f"{1e3 * of['p50_seconds']:.1f}",
                f"{1e3 * of['p99_seconds']:.1f}", f"{1e3 * of['max_seconds']:.1f}",
                f"{each.failures.total()} of {of['probes']}", f"{each.rss_before / 2**20:.0f}",
                f"{each.rss_most / 2**20:.0f}", str(each.log_bytes),
            ]
        )  # fmt: skip
    print(table(rows))
    against = goals(found)
    print("\n".join(map(str, against)))
    if not options.smoke:
        path = write(
            "connections",
            {
                "load": vars(load), "servers": [each.document() for each in found],
                "goals": [vars(goal) for goal in against],
            },
        )  # fmt: skip
        print(f"\nwritten: {path}")
    return 1 if missed_goals(against) else 0


def _raise_descriptor_limit() -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
