"""/recommendations under load: pages of 100 out of 10,000, beside static responses from the same server.

    python -m benchmarks.api                      10,000 recommendations, 50 clients
    python -m benchmarks.api --smoke              a small size, for CI

The advisor's own server (web/http, Flask) runs in a separate process, over a view that a new evaluation replaces every
`--interval` seconds, so that some requests wait for a page to be rendered. The clients are processes with keep-alive
connections of the standard library. The kinds of response alternate by round, so that other work on the machine
affects all alike.

The two static responses: the page's style sheet (a few kB), and the bytes of a page of recommendations (what network
and clients cost, without any work of the advisor).
"""

from __future__ import annotations

import http.client
import multiprocessing
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.common import Goal, conclude, percentile, smoke_wanted, table

PAGE = "/recommendations?per_page=100&page={page}"
STATIC_PATH = "/static/page.css"
STATIC_BODY = "/same-bytes"
GOAL_RATIO = 3.0
AT = 1_800_000_000.0


@dataclass(frozen=True)
class ApiLoad:
    recommendations: int
    clients: int
    requests: int  # a client, of each kind, in each round
    rounds: int
    interval_seconds: float
    pages: int  # different pages that are asked for


FULL = ApiLoad(10_000, 50, 40, 6, 15.0, 20)
SMOKE = ApiLoad(1_000, 4, 60, 3, 4.0, 2)


def view_of(count: int) -> Any:
    """Build a view of `count` recommendations in a hundred pools, with evidence."""
    from gpu_advisor.evaluation.engine import decide
    from gpu_advisor.settings import Settings
    from gpu_advisor.state.view import PublishedRecommendation, SourceStatus, View

    from tests.unit.advisor.builders import GpuSpec, facts

    pools = [{"name": f"pool-{n}", "kind": "training", "match": {"node": f"node-{n}"}} for n in range(100)]
    settings = Settings.model_validate({"pools": pools, "cost": {"gpu_price_per_hour": {"NVIDIA H100": 2.5}}})
    cards = [
        GpuSpec(f"GPU-{n}-{i}", 0.0 if i < 4 else 0.7, node=f"node-{n}", index=str(i))
        for n in range(100)
        for i in range(8)
    ]
    evaluation = decide(facts(cards, settings), settings)
    advice = [each for each in evaluation.recommendations if each.scope.kind == "pool"]
    issued = tuple(
        PublishedRecommendation(
            f"{number:016x}", AT - number, replace(advice[number % len(advice)], summary=f"Advice {number}")
        )
        for number in range(count)
    )
    return View("bench", SourceStatus("bench", "memory", True, last_success=AT), evaluation, issued)


def serve(load: ApiLoad, ready: Connection) -> None:
    """Run the server: send its port, and stop when the pipe closes."""
    from flask import Response
    from gpu_advisor.web.api.app import ApiContext, create_app
    from gpu_advisor.web.http.lanes import Lane
    from gpu_advisor.web.http.server import HttpServer

    from tests.unit.advisor.builders import FakeClock

    held = [view_of(load.recommendations)]
    app = create_app(ApiContext(lambda: held[0], lambda: (), lambda _id, _snooze: None, clock=FakeClock()))
    body: list[bytes] = []
    app.add_url_rule(STATIC_BODY, view_func=lambda: Response(body[0], content_type="application/json"))
    body.append(app.test_client().get(PAGE.format(page=1)).data)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    server = HttpServer(
        listener, app, server_name="bench", lanes={"api": Lane(threads=8, waiting=1000)}, choose_lane=lambda _: "api"
    )
    server.start()
    ready.send((listener.getsockname()[1], len(body[0])))

    def evaluate() -> None:
        while True:
            time.sleep(load.interval_seconds)
            held[0] = replace(held[0], evaluations=held[0].evaluations + 1)

    threading.Thread(target=evaluate, daemon=True).start()
    ready.poll(None)
    server.stop()


def client(port: int, load: ApiLoad, number: int, tasks: Connection) -> None:
    """Run a client with one connection: for each kind received, send the requests and return their seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while (kind := tasks.recv()) is not None:
        seconds = []
        for request in range(load.requests):
            path = PAGE.format(page=1 + (number + request) % load.pages) if kind == "page" else kind
            begun = time.perf_counter()
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            seconds.append(time.perf_counter() - begun)
            if answer.status != http.client.OK:
                raise SystemExit(f"{path} answered {answer.status}")
        tasks.send(seconds)


@contextmanager
def start_server_and_clients(load: ApiLoad) -> Iterator[tuple[int, int, list[Connection]]]:
    """Run server and clients as processes; yield the port, the bytes of a page, and the clients' pipes."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    processes = [context.Process(target=serve, args=(load, there), daemon=True)]
    processes[0].start()
    there.close()  # so that a server that exits at its start is noticed here
    port, size = here.recv()
    ends = []
    for number in range(load.clients):
        end, other = context.Pipe()
        processes.append(context.Process(target=client, args=(port, load, number, other), daemon=True))
        processes[-1].start()
        other.close()
        ends.append(end)
    try:
        yield port, size, ends
    finally:
        for end in ends:
            end.send(None)
        here.send(None)
        for process in processes:
            process.join(10)
            if process.is_alive():
                process.kill()


def measure(load: ApiLoad) -> dict[str, Any]:
    kinds = {"page of 100": "page", "static file": STATIC_PATH, "static, same bytes": STATIC_BODY}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    walls: dict[str, float] = dict.fromkeys(kinds, 0.0)
    with start_server_and_clients(load) as (_, size, ends):
        for round_ in range(load.rounds + 1):
            for name, kind in kinds.items():
                begun = time.perf_counter()
                for end in ends:
                    end.send(kind)
                found = [value for end in ends for value in end.recv()]
                if round_:  # the first round warms up
                    seconds[name] += found
                    walls[name] += time.perf_counter() - begun
    rows = {
        name: {
            "p50_milliseconds": percentile(values, 0.5) * 1000,
            "p99_milliseconds": percentile(values, 0.99) * 1000,
            "requests_per_second": len(values) / walls[name],
        }
        for name, values in seconds.items()
    }
    page = rows["page of 100"]["p99_milliseconds"]
    return {
        "load": load.__dict__,
        "page_bytes": size,
        "answers": rows,
        "p99_ratio_to_static_file": page / rows["static file"]["p99_milliseconds"],
        "p99_ratio_to_same_bytes": page / rows["static, same bytes"]["p99_milliseconds"],
    }


def goals(results: dict[str, Any]) -> list[Goal]:
    file, same = results["p99_ratio_to_static_file"], results["p99_ratio_to_same_bytes"]
    return [
        Goal(f"p99 of a page at most {GOAL_RATIO:g}x that of a static file", file <= GOAL_RATIO, f"{file:.2f}x"),
        Goal(f"p99 of a page at most {GOAL_RATIO:g}x that of the same bytes", same <= GOAL_RATIO, f"{same:.2f}x"),
    ]


def main() -> int:
    smoke = smoke_wanted(__doc__)
    load = SMOKE if smoke else FULL
    results = measure(load)
    rows = [("answer", "p50 ms", "p99 ms", "requests/s")]
    rows += [(name, *(f"{value:.1f}" for value in each.values())) for name, each in results["answers"].items()]
    print(
        f"{load.recommendations} recommendations, {load.clients} clients, {results['page_bytes'] / 1024:.0f} KiB a page"
    )
    print(table(rows))
    return conclude("api", results, goals(results), smoke)


if __name__ == "__main__":
    sys.exit(main())
