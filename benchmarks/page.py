"""The page with 10,000 GPUs, beside static responses of the same size from the same server.

    python -m benchmarks.page                     10,000 GPUs
    python -m benchmarks.page --smoke             a small size, for CI

The advisor's own server (web/http, Flask) runs in a separate process; the client is one keep-alive connection of the
standard library. The kinds of response alternate by round, so that other work on the machine affects all alike.
No filter is asked twice. The overview is asked for too rarely to be rendered in advance (MIN_HITS_TO_PRERENDER): the
first of a new evaluation derives and renders everything; its seconds are printed beside, and so are a filter's.
"""

from __future__ import annotations

import http.client
import multiprocessing
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.common import Goal, conclude, percentile, smoke_wanted, table

OVERVIEW, FIRST, FILTER = "overview", "overview, first of an evaluation", "filter"
FIRST_FILTER = "filter, first of an evaluation"
SAME_OVERVIEW, SAME_FILTER = "static, size of the overview", "static, size of a filter's response"
STATIC = {SAME_OVERVIEW: "/same-as-overview", SAME_FILTER: "/same-as-filter"}
KINDS = (OVERVIEW, SAME_OVERVIEW, FILTER, SAME_FILTER)
NEW_EVALUATION = "/new-evaluation"

GOAL_OVERVIEW_RATIO, GOAL_FILTER_RATIO = 5.0, 2.0
AIM_OVERVIEW_SECONDS, AIM_FILTER_SECONDS = 2.0, 0.1
AT = 1_800_000_000.0
GPUS_PER_NODE = 8


@dataclass(frozen=True)
class PageLoad:
    gpus: int
    requests: int  # of each kind in each round, except the first of an evaluation, which is one
    rounds: int


FULL = PageLoad(10_000, 9, 16)
SMOKE = PageLoad(160, 2, 1)


def view_of(gpus: int) -> Any:
    """Build a view of GPUs with owners, power and temperature, of which one in ten is idle."""
    from gpu_advisor.evaluation import signals
    from gpu_advisor.evaluation.engine import decide
    from gpu_advisor.evaluation.owners import GpuOwner
    from gpu_advisor.settings import Settings
    from gpu_advisor.state.view import PublishedRecommendation, SourceStatus, View

    from tests.unit.advisor.builders import GpuSpec, facts

    settings = Settings.model_validate({"cost": {"gpu_price_per_hour": {"NVIDIA H100": 2.5}}})
    cards = [
        GpuSpec(f"GPU-{n:05}", 0.0 if n % 10 == 0 else 0.4 + n % 50 / 100, node=f"node-{n // GPUS_PER_NODE}",
                index=str(n % GPUS_PER_NODE), up=n % 997 != 1)
        for n in range(gpus)
    ]  # fmt: skip
    nodes: dict[str, dict[str, float]] = {f"node-{n}": {} for n in range(gpus // GPUS_PER_NODE)}
    owners = {card.uuid: (GpuOwner(namespace=f"team-{n % 40}", pod=f"train-{n // 16}-{n % 7}", kind="kubernetes"),)
              for n, card in enumerate(cards) if n % 5}  # fmt: skip
    found = facts(cards, settings, nodes, owners=owners)
    values = dict(found.values)
    values[signals.POWER.name] = {card.uuid: 200.0 + n % 500 for n, card in enumerate(cards)}
    values[signals.TEMPERATURE.name] = {card.uuid: 40.0 + n % 45 for n, card in enumerate(cards)}
    values[signals.MEMORY_TOTAL.name] = {card.uuid: 80.0 * 2**30 for card in cards}
    values[signals.THROTTLE_SW_THERMAL.name] = {card.uuid: 0.3 for n, card in enumerate(cards) if n % 90 == 0}
    evaluation = decide(replace(found, values=values), settings)
    issued = tuple(PublishedRecommendation(each.id("bench"), AT, each) for each in evaluation.recommendations)
    return View("bench", SourceStatus("bench", "memory", True, last_success=AT), evaluation, issued)


def filters() -> Iterator[str]:
    """Different queries: searches, orders, groups and filters, as people combine them."""
    sorts, groups, shown = (
        ("power", "temperature", "owner", "advice", "gpu"),
        ("none", "node", "owner"),
        ("all", "advice"),
    )
    for number in range(10_000):
        for sort, group, show in product(sorts, groups, shown):
            yield f"/page/gpus?q=team-{number % 40}+train-{number}&sort={sort}&group={group}&show={show}"
            yield f"/page/gpus?q=node-{1 + number % 9}&sort={sort}&group={group}&show={show}&page={2 + number}"


def serve(load: PageLoad, ready: Connection) -> None:
    """Run the server: send its port, and stop when the pipe closes."""
    from flask import Response
    from gpu_advisor.web.api.app import ApiContext, create_app
    from gpu_advisor.web.http.lanes import Lane
    from gpu_advisor.web.http.server import HttpServer

    held = [view_of(load.gpus)]
    app = create_app(ApiContext(lambda: held[0], lambda: (), lambda _id, _snooze: None))
    bodies: dict[str, bytes] = {}

    def new_evaluation() -> Response:
        held[0] = replace(held[0], evaluation=replace(held[0].evaluation), evaluations=held[0].evaluations + 1)
        return Response(b"ok")

    app.add_url_rule(NEW_EVALUATION, "new", new_evaluation)
    for kind, path in STATIC.items():
        app.add_url_rule(path, path, lambda kind=kind: Response(bodies[kind], content_type="text/html; charset=utf-8"))
    client = app.test_client()
    bodies |= {SAME_OVERVIEW: client.get("/").data, SAME_FILTER: client.get("/page/gpus?q=node-1&sort=power").data}
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    server = HttpServer(
        listener, app, server_name="bench", lanes={"page": Lane(threads=4, waiting=100)}, choose_lane=lambda _: "page"
    )
    server.start()
    ready.send((listener.getsockname()[1], {kind: len(body) for kind, body in bodies.items()}))
    ready.poll(None)
    server.stop()


def measure(load: PageLoad) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(load, there), daemon=True)
    process.start()
    there.close()  # so that a server that exits at its start is noticed here
    try:
        port, sizes = here.recv()
        seconds = _ask(http.client.HTTPConnection("127.0.0.1", port, timeout=60), load)
        here.send(None)
    finally:
        process.join(10)
        process.kill()
    p50 = {kind: percentile(values, 0.5) for kind, values in seconds.items()}
    return {
        "load": load.__dict__,
        "bytes": sizes,
        "answers": {
            kind: {"p50_seconds": p50[kind], "p95_seconds": percentile(values, 0.95)}
            for kind, values in seconds.items()
        },
        "overview_ratio_to_static": p50[OVERVIEW] / p50[SAME_OVERVIEW],
        "filter_ratio_to_static": p50[FILTER] / p50[SAME_FILTER],
    }


def _ask(connection: http.client.HTTPConnection, load: PageLoad) -> dict[str, list[float]]:
    """Seconds of each request, by kind."""
    queries = filters()
    seconds: dict[str, list[float]] = {kind: [] for kind in (*KINDS, FIRST, FIRST_FILTER)}
    for round_ in range(load.rounds + 1):
        _get(connection, NEW_EVALUATION)
        found = {FIRST: [_get(connection, "/")], FIRST_FILTER: [_get(connection, next(queries))]}
        for kind in KINDS:
            paths = [next(queries) if kind == FILTER else STATIC.get(kind, "/") for _ in range(load.requests)]
            found[kind] = [_get(connection, path) for path in paths]
        if round_:  # the first round warms up
            for kind, values in found.items():
                seconds[kind] += values
    return seconds


def _get(connection: http.client.HTTPConnection, path: str) -> float:
    begun = time.perf_counter()
    connection.request("GET", path, headers={"Accept": "text/html"})
    answer = connection.getresponse()
    answer.read()
    if answer.status != http.client.OK:
        raise SystemExit(f"{path} answered {answer.status}")
    return time.perf_counter() - begun


def goals(results: dict[str, Any]) -> list[Goal]:
    overview, filter_ = results["overview_ratio_to_static"], results["filter_ratio_to_static"]
    first = results["answers"][FIRST]["p50_seconds"]
    filter_seconds = results["answers"][FILTER]["p50_seconds"]
    return [
        Goal(f"overview at most {GOAL_OVERVIEW_RATIO:g}x a static page of its size", overview <= GOAL_OVERVIEW_RATIO,
             f"{overview:.2f}x"),
        Goal(f"a filter's response at most {GOAL_FILTER_RATIO:g}x a static page of its size",
             filter_ <= GOAL_FILTER_RATIO, f"{filter_:.2f}x"),
        Goal(f"first overview of an evaluation within {AIM_OVERVIEW_SECONDS:g} s", first <= AIM_OVERVIEW_SECONDS,
             f"{first:.2f} s", stretch=True),
        Goal(f"a filter's response within {AIM_FILTER_SECONDS:g} s", filter_seconds <= AIM_FILTER_SECONDS,
             f"{filter_seconds:.3f} s", stretch=True),
    ]  # fmt: skip


def main() -> int:
    smoke = smoke_wanted(__doc__)
    load = SMOKE if smoke else FULL
    results = measure(load)
    rows = [("answer", "p50 s", "p95 s")]
    rows += [(kind, *(f"{value:.4f}" for value in each.values())) for kind, each in results["answers"].items()]
    print(
        f"{load.gpus} GPUs; " + ", ".join(f"{kind}: {size / 1024:.0f} KiB" for kind, size in results["bytes"].items())
    )
    print(table(rows))
    return conclude("page", results, goals(results), smoke)


if __name__ == "__main__":
    sys.exit(main())
