"""False advice on healthy inference servers, hour after hour.

    python -m benchmarks.serving_healthy [--servers 100] [--hours 2] [--first-seed 0] [--workers 2] [--minutes 30]

Servers are drawn as the class `healthy` of benchmarks/serving, and kept if they keep their objectives and no cause is
true of them (causes.py). Every five minutes the advisor decides as it does live: on the last window and the one before,
with the step times and the demand of the hours before, for a pool with the server's objectives. Advice on a cause is
false here; a number of replicas with headroom for the demand to come is not, and is counted apart, by the growth of
load that the server bears as it is.

The simulated server takes nearly all of the time. Compiled it is three times as fast, and gives the same numbers: in a
copy of this repository, mypyc benchmarks/serving/{server_model,simulator,situation,windows}.py
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing import Pool

from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.recommendation import Recommendation
from gpu_advisor.evaluation.serving.facts import CurvePoint, DemandSample, ServingFacts
from gpu_advisor.observation.serving import HISTORY_WINDOW_STEPS, with_window_before
from gpu_advisor.settings import Settings

from benchmarks import common
from benchmarks.serving.causes import SERVED_RATIO, causes_of
from benchmarks.serving.draw import healthy
from benchmarks.serving.facts_adapter import points_of, replicas_of
from benchmarks.serving.situation import SCRAPE_SECONDS, WINDOW_SECONDS, Run, Situation, run
from benchmarks.serving.windows import SCRAPES_PER_WINDOW, watch, window_of

#: Steps of the history (seconds).
STEP_SECONDS = 60.0
SECONDS_PER_DAY = 86_400

#: Advice on a number of replicas by demand, not by a cause.
SIZE_KINDS = ("scale_up", "scale_down")

#: Growths of the load that are tried, up to where headroom for what is to come ends.
GROWTHS = (1.1, 1.2, 1.3, 1.4, 1.5)


@dataclass(frozen=True, slots=True)
class Watched:
    """A server's windows: what was recommended in each, as pairs of kind and cause. `bears`, of a server whose replicas
    are to change, is the growth of its load with which it still keeps its objectives."""

    seed: int
    replicas: int
    found: tuple[frozenset[tuple[str, str]], ...]
    bears: float | None

    @property
    def sized(self) -> int:
        """The windows with another number of replicas for the demand."""
        return sum(any(kind in SIZE_KINDS for kind, _ in each) for each in self.found)


def watch_healthy(key: tuple[int, float]) -> Watched | None:
    """The windows of one drawn server; None if it is not healthy."""
    seed, hours = key
    situation = healthy(seed)
    judged = run(situation)
    if judged.attainment < SERVED_RATIO or causes_of(situation, judged):
        return None
    windows = int(hours * 3600 / WINDOW_SECONDS)
    advice = decide_windows(situation, watch(situation, windows), windows)
    found = tuple(frozenset((each.kind, each.diagnosis) for each in one) for one in advice)
    sized = any(kind in SIZE_KINDS for each in found for kind, _ in each)
    return Watched(seed, len(situation.delays), found, growth_borne(situation) if sized else None)


def growth_borne(situation: Situation) -> float:
    """The largest of GROWTHS with which a server keeps its objectives as it is; 1 if none."""
    borne = 1.0
    for growth in GROWTHS:
        load = replace(situation.load, rate=growth * situation.load.rate)
        if run(replace(situation, load=load)).attainment < SERVED_RATIO:
            break
        borne = growth
    return borne


def decide_windows(situation: Situation, watched: Run, windows: int) -> Iterator[tuple[Recommendation, ...]]:
    """The recommendations at the end of each window but the first, before which nothing was read."""
    slo = {"ttft_p95": f"{situation.ttft}s", "itl_p95": f"{situation.itl}s"}
    pool = {"name": situation.model.name, "kind": "serving", "slo": slo}
    settings = Settings.model_validate({"pools": [pool]})
    key = ("vllm", situation.model.name)
    points: list[CurvePoint] = []
    demand: list[DemandSample] = []
    steps = int(settings.evaluation.history_seconds / STEP_SECONDS)
    for number in range(windows):
        window = window_of(watched, number)
        points += points_of(Run(tuple(each[:: int(STEP_SECONDS / SCRAPE_SECONDS)] for each in window.samples), 0, 0, 0))
        demand += demand_of(watched, number)
        del points[: -steps * len(situation.delays)], demand[:-steps]
        if not number:
            continue
        now, before = replicas_of(situation, window), replicas_of(situation, window_of(watched, number - 1))
        serving = ServingFacts(
            with_window_before(now, before), histories={key: tuple(points)}, demand={key: tuple(demand)}
        )
        at = demand[-1].at
        yield decide(Facts(at, (), (), {}, {}, settings.evaluation, serving=serving), settings).recommendations


def demand_of(watched: Run, number: int) -> Iterator[DemandSample]:
    """All replicas together, by the steps of a window; tokens over as long as the advisor reads them for."""
    size = int(STEP_SECONDS / SCRAPE_SECONDS)
    columns = list(zip(*watched.samples, strict=True))
    for end in range(number * SCRAPES_PER_WINDOW + size, (number + 1) * SCRAPES_PER_WINDOW + 1, size):
        first, last = columns[max(0, end - HISTORY_WINDOW_STEPS * size)], columns[end]
        tokens = sum(
            b.values["generation_tokens"] - a.values["generation_tokens"] for a, b in zip(first, last, strict=True)
        )
        waiting = sum(each.values["num_requests_waiting"] for each in last)
        yield DemandSample(last[0].at, len(last), tokens / (last[0].at - first[0].at), waiting)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=100, help="servers drawn; those that are healthy are watched")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=math.inf, help="count no server that is done after as many")
    options = parser.parse_args()

    began = time.monotonic()
    servers = windows = advised = 0
    sized = Counter[float]()
    replica_seconds = 0.0
    named = Counter[str]()
    keys = [(options.first_seed + number, options.hours) for number in range(options.servers)]
    with Pool(options.workers) as pool:
        for watched in pool.imap_unordered(watch_healthy, keys):
            if watched is None:
                continue
            if time.monotonic() > began + 60 * options.minutes:
                break
            servers += 1
            windows += len(watched.found)
            replica_seconds += len(watched.found) * WINDOW_SECONDS * watched.replicas
            if watched.bears is not None:
                sized[watched.bears] += watched.sized
            advised += sum(any(kind not in SIZE_KINDS for kind, _ in each) for each in watched.found)
            found = Counter(f"{kind}: {cause}" for each in watched.found for kind, cause in each)
            named.update(found)
            if found:
                bears = "" if watched.bears is None else f", bears {watched.bears:g} times its load"
                print(f"seed {watched.seed}, {watched.replicas} replicas{bears}: {dict(found)}", flush=True)
    days = replica_seconds / SECONDS_PER_DAY
    print(f"{servers} healthy servers, {windows} windows, {days:.1f} replica-days: {advised} windows with advice")
    print(f"by kind and cause: {dict(named)}; {sized.total()} windows with a number of replicas for the demand")
    print(f"of these, by how many times its load the server bears: {dict(sorted(sized.items()))}")
    if not advised:
        print(f"none in {days:.1f} replica-days: at most {3 / days:.2g} a replica-day (95 %, rule of three)")
    common.write("serving_healthy", {
        "servers": servers, "windows": windows, "replica_days": round(days, 2), "windows_with_advice": advised,
        "windows_with_replicas_for_demand": sized.total(),
        "windows_by_growth_borne": {f"{growth:g}": count for growth, count in sorted(sized.items())},
        "advice": dict(named),
    })  # fmt: skip
    return 1 if advised else 0


if __name__ == "__main__":
    sys.exit(main())
