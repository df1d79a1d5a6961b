"""Leases under load and under kill -9, and what they cost beside bare SQLite commits.

    python -m benchmarks.allocation             64 clients, 10,000 requests, 20 kills: about three minutes
    python -m benchmarks.allocation --smoke     a small size, without a results file

First the service is killed repeatedly while clients allocate, validate, renew and release; lease_history_checker.py
then checks their history. Then the same requests are timed without kills. The baselines on the same disk: as many bare
SQLite commits with the same settings (WAL, synchronous FULL) in sequence, and leases decided in this process by as many
threads, without HTTP.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.allocation_clients import PATH, ClientWorkload, list_allocations, run_client_threads
from benchmarks.common import Goal, conclude, percentile, smoke_wanted, table
from benchmarks.lease_history_checker import ClusterGpu, Operation, violations

READY_SECONDS = 60.0
ROUNDS = 4


@dataclass(frozen=True)
class LeaseLoad:
    work: ClientWorkload
    kills: int
    nodes: int  # with 8 A100, and as many with 4 T4
    processes: int  # of clients

    @property
    def requests(self) -> int:
        return self.work.clients * self.work.requests


FULL = LeaseLoad(ClientWorkload(64, 157, 1.5, 60.0, ("A100", "T4"), 4), 20, 8, 2)
SMOKE = LeaseLoad(ClientWorkload(8, 63, 1.0, 60.0, ("A100", "T4"), 4), 2, 1, 1)


def gpus_by_uuid(load: LeaseLoad) -> dict[str, ClusterGpu]:
    """The GPUs that there are, by uuid."""
    sizes = (("A100", 8), ("T4", 4))
    return {
        f"{kind}-{n}/{i}": ClusterGpu(f"{kind}-{n}", kind)
        for kind, count in sizes
        for n in range(load.nodes)
        for i in range(count)
    }


class ServiceProcess:
    """`gpu-advisor serve` over a file of machines: started, killed and started again on one port and database."""

    def __init__(self, folder: Path, load: LeaseLoad) -> None:
        sizes = (("A100-80GB", "A100", 8), ("T4", "T4", 4))
        nodes = [
            {"name": f"{short}-{n}", "gpus": [{"type": kind, "count": count}]}
            for kind, short, count in sizes
            for n in range(load.nodes)
        ]
        (folder / "machines.yml").write_text(yaml.safe_dump({"nodes": nodes}))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        settings = {
            "state_dir": str(folder / "state"),
            "source": {"embedded": {"targets": []}},
            "web": {"listen_address": f"127.0.0.1:{self.port}"},
            "allocation": {"inventory_file": str(folder / "machines.yml")},
        }
        self._config = folder / "advisor.yml"
        self._config.write_text(yaml.safe_dump(settings))
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it leases GPUs."""
        command = [sys.executable, "-m", "gpu_advisor", "serve", "--config", str(self._config)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise SystemExit(f"the service ended at its start:\n{self._log.read_text()[-2000:]}")
            try:
                if self.request("GET", f"{PATH}/status")[0] == http.client.OK:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise SystemExit("the service does not start in time")

    def kill(self) -> None:
        """Kill the process, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def request(self, method: str, path: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()


@contextmanager
def serving(load: LeaseLoad) -> Iterator[ServiceProcess]:
    with tempfile.TemporaryDirectory() as folder:
        server = ServiceProcess(Path(folder), load)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def run_clients(server: ServiceProcess, load: LeaseLoad, kills: int) -> tuple[list[Operation], list[float], float, int]:
    """Let all clients do their work, and kill the service so often meanwhile, evenly: what they saw, seconds of each
    answer, seconds in all, and how often it was killed."""
    context = multiprocessing.get_context("spawn")
    answered = context.Value("l", 0)
    ends, processes = [], []
    begun = time.perf_counter()
    for part in range(load.processes):
        here, there = context.Pipe(duplex=False)
        numbers = range(load.work.clients)[part :: load.processes]
        processes.append(
            context.Process(
                target=run_client_threads, args=(server.port, numbers, load.work, answered, there), daemon=True
            )
        )
        processes[-1].start()
        there.close()
        ends.append(here)
    killed = 0
    while killed < kills and any(process.is_alive() for process in processes):
        if answered.value >= load.requests * (killed + 1) / (kills + 1):
            server.kill()
            server.start()
            killed += 1
        time.sleep(0.005)
    events: list[Operation] = []
    seconds: list[float] = []
    for end in ends:
        seen, took = end.recv()
        events += seen
        seconds += took
    wall = time.perf_counter() - begun
    for process in processes:
        process.join(10)
    return events, seconds, wall, killed


def run_with_kills(load: LeaseLoad) -> dict[str, Any]:
    """The history of clients while the service dies under them, and all that is wrong with it."""
    known = gpus_by_uuid(load)
    with serving(load) as server:
        events, _, wall, killed = run_clients(server, load, load.kills)
        time.sleep(load.work.short_lease_seconds + 0.5)
        events.append(list_allocations(server.request))
        status = server.request("GET", f"{PATH}/status")[1]
    free = sum(row["available_gpus"] for row in status["available_nodes"])
    wrong = violations(events, known)
    still = [event for event in events if event.op == "list"][-1].listed_leases
    if free != len(known) and not still:
        wrong.append(f"leaked: {len(known) - free} GPUs are not free in the end, and no lease is listed")
    counted = {
        f"{op} {outcome}": sum(event.op == op and event.outcome == outcome for event in events)
        for op in ("allocate", "validate", "renew", "release", "list")
        for outcome in ("ok", "refused", "ended", "unknown")
    }
    return {
        "requests": len(events), "kills": killed, "seconds": wall, "gpus": len(known), "violations": wrong,
        "leases_in_the_end": len(still), "free_in_the_end": free,
        "answers": {name: count for name, count in counted.items() if count},
    }  # fmt: skip


def time_without_kills(load: LeaseLoad) -> tuple[list[float], float]:
    """Seconds of each answer without kills, and in all."""
    with serving(load) as server:
        _, seconds, wall, _ = run_clients(server, load, 0)
    return seconds, wall


def time_bare_commits(count: int) -> tuple[list[float], float]:
    """One row a commit, with what the leases' database is set to."""
    with tempfile.TemporaryDirectory() as folder:
        db = sqlite3.connect(Path(folder) / "bare.db", isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE t (id TEXT PRIMARY KEY, text TEXT) WITHOUT ROWID")
        seconds, text, begun = [], "x" * 600, time.perf_counter()  # as long as a lease is
        for number in range(count):
            start = time.perf_counter()
            db.execute("INSERT INTO t VALUES (?, ?)", (f"{number:032x}", text))
            seconds.append(time.perf_counter() - start)
        wall = time.perf_counter() - begun
        db.close()
    return seconds, wall


def in_process(load: LeaseLoad, requests: int) -> tuple[list[float], float, int]:
    """Leases made and released by as many threads as there are clients, so many requests each, without HTTP; seconds of
    each, seconds in all, and commits to the disk."""
    from gpu_advisor.allocation.allocator import Allocator
    from gpu_advisor.allocation.gpu_request import GpuRequest
    from gpu_advisor.allocation.lease_manager import LeaseManager
    from gpu_advisor.allocation.lease_store import LeaseStore
    from gpu_advisor.allocation.model import Inventory, InventoryGpu, InventoryNode

    gpus = tuple(InventoryGpu(i, f"n/{i}", "T4", 16.0) for i in range(2 * load.work.clients))
    machines = Inventory((InventoryNode("n", gpus),), time.time())
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "leases.db"
        allocator = Allocator(LeaseManager(LeaseStore(database)), lambda: machines)

        def client(_: int) -> list[float]:
            seconds = []
            for _ in range(requests // 2):
                start = time.perf_counter()
                made = allocator.allocate(GpuRequest(gpu_type="T4"))
                middle = time.perf_counter()
                allocator.release(made.id)
                seconds += [middle - start, time.perf_counter() - middle]
            return seconds

        begun = time.perf_counter()
        with ThreadPoolExecutor(load.work.clients) as pool:
            found = [value for part in pool.map(client, range(load.work.clients)) for value in part]
        wall = time.perf_counter() - begun
        allocator.close()
        with closing(sqlite3.connect(database)) as connection:
            (commits,) = connection.execute("SELECT number FROM commits").fetchone()
    return found, wall, commits


def measure(load: LeaseLoad) -> dict[str, Any]:
    chaos = run_with_kills(load)
    over_http = time_without_kills(load)
    bare: list[float] = []
    seconds: list[float] = []
    bare_wall, wall, commits = 0.0, 0.0, 0
    for _ in range(ROUNDS):  # in turns, so that the machine's other work falls on both alike
        found, took = time_bare_commits(load.requests // ROUNDS)
        bare, bare_wall = bare + found, bare_wall + took
        found, took, written = in_process(load, load.work.requests // ROUNDS)
        seconds, wall, commits = seconds + found, wall + took, commits + written
    rows = {
        "bare SQLite commits, one after the other": _figures(bare, bare_wall),
        f"leases in the process, {load.work.clients} threads": {
            **_figures(seconds, wall), "answers_per_commit": len(seconds) / max(1, commits),
        },
        f"REST, {load.work.clients} clients": _figures(*over_http),
    }  # fmt: skip
    ratio = (
        rows[f"leases in the process, {load.work.clients} threads"]["per_second"]
        / _figures(bare, bare_wall)["per_second"]
    )
    return {
        "load": {**asdict(load), "requests": load.requests}, "under_kills": chaos, "speed": rows,
        "filesystem": _filesystem(), "leases_per_bare_commit": ratio,
    }  # fmt: skip


def _figures(seconds: Sequence[float], wall: float) -> dict[str, float]:
    return {
        "count": len(seconds),
        "per_second": len(seconds) / wall,
        "p50_milliseconds": percentile(seconds, 0.5) * 1000,
        "p99_milliseconds": percentile(seconds, 0.99) * 1000,
    }


def _filesystem() -> str:
    """What the temporary files lie on: a commit costs what its disk takes."""
    where, kind, longest = os.path.realpath(tempfile.gettempdir()), "", ""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, type_, *_ = line.split(" ")
        if (where == mount or where.startswith(mount.rstrip("/") + "/")) and len(mount) >= len(longest):
            longest, kind = mount, type_
    return kind


def _format_value(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def goals(results: dict[str, Any]) -> list[Goal]:
    chaos, load = results["under_kills"], results["load"]
    wrong, free = len(chaos["violations"]), chaos["free_in_the_end"]
    return [
        Goal("no GPU given twice, no lease lost, none leaked", not wrong, f"{wrong} in {chaos['requests']} requests"),
        Goal("the service was killed as often as meant", chaos["kills"] == load["kills"], f"{chaos['kills']} times"),
        Goal("all GPUs free in the end", free == chaos["gpus"], f"{free}"),
        Goal(
            "group commit: at least as many leases a second as bare commits", results["leases_per_bare_commit"] >= 1,
            f"{results['leases_per_bare_commit']:.2f}x", stretch=True,
        ),
    ]  # fmt: skip


def main() -> int:
    smoke = smoke_wanted(__doc__)
    load = SMOKE if smoke else FULL
    results = measure(load)
    chaos = results["under_kills"]
    print(f"{load.work.clients} clients, {chaos['requests']} requests, {chaos['kills']} kills: {chaos['answers']}")
    print("\n".join(chaos["violations"][:20]))
    rows = [("", "count", "a second", "p50 ms", "p99 ms", "a commit")]
    for name, each in results["speed"].items():
        rows.append(
            (name, f"{each['count']}", f"{each['per_second']:.0f}", f"{each['p50_milliseconds']:.1f}",
             f"{each['p99_milliseconds']:.1f}", _format_value(each.get('answers_per_commit')))
        )  # fmt: skip
    print(table(rows))
    reached = goals(results)
    return conclude("allocation", {**results, "goals": [vars(goal) for goal in reached]}, reached, smoke)


if __name__ == "__main__":
    sys.exit(main())
