"""False advice on healthy inference servers, hour after hour.

    python -m benchmarks.serving_healthy [--servers 100] [--hours 2] [--first-seed 0] [--workers 2]

Servers are drawn as the class `healthy` of benchmarks/serving, and kept if they keep their objectives and no cause is
true of them (causes.py). Each window of five minutes is diagnosed with the curve of the hours before, as by a live
advisor. Advice is counted in a single evaluation, and in two that follow each other.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from dataclasses import dataclass
from multiprocessing import Pool

from gpu_advisor.evaluation.serving.diagnosis import diagnose_group
from gpu_advisor.evaluation.serving.facts import CurvePoint
from gpu_advisor.evaluation.serving.groups import Objectives, make_group

from benchmarks import common
from benchmarks.serving.causes import SERVED_RATIO, causes_of
from benchmarks.serving.draw import healthy
from benchmarks.serving.facts_adapter import AT, points_of, replicas_of
from benchmarks.serving.simulator import Replica, Sample
from benchmarks.serving.situation import (
    SCRAPE_SECONDS,
    WARM_UP_SECONDS,
    WINDOW_SECONDS,
    Run,
    Situation,
    draw_requests,
    run,
)

#: Steps of the curve's history (seconds), and how many hours of it there are.
STEP_SECONDS, HISTORY_HOURS = 60.0, 6
SECONDS_PER_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Watched:
    """A server's windows: what was found in each."""

    seed: int
    replicas: int
    found: tuple[frozenset[str], ...]


def watch(key: tuple[int, float]) -> Watched | None:
    """The windows of one drawn server; None if it is not healthy."""
    seed, hours = key
    situation = healthy(seed)
    judged = run(situation)
    if judged.attainment < SERVED_RATIO or causes_of(situation, judged):
        return None
    windows = int(hours * 3600 / WINDOW_SECONDS)
    samples = simulate(situation, WARM_UP_SECONDS + windows * WINDOW_SECONDS)
    return Watched(seed, len(situation.delays), tuple(diagnose_windows(situation, samples, windows)))


def simulate(situation: Situation, end: float) -> list[list[Sample]]:
    """The scrapes of each replica from the end of the warm-up on, with requests to the least loaded."""
    replicas = [Replica(situation.cost, situation.settings, ready) for ready in situation.delays]
    samples: list[list[Sample]] = [[] for _ in replicas]
    scrape = WARM_UP_SECONDS
    for request in draw_requests(situation.load, random.Random(situation.seed).randrange(1 << 30), end):
        while scrape <= request.arrival:
            for replica, found in zip(replicas, samples, strict=True):
                replica.advance(scrape)
                found.append(replica.sample(scrape))
            scrape += SCRAPE_SECONDS
        for replica in replicas:
            replica.advance(request.arrival)
        min(replicas, key=lambda each: each.outstanding).submit(request)
    return samples


def diagnose_windows(situation: Situation, samples: list[list[Sample]], windows: int) -> list[frozenset[str]]:
    history: list[CurvePoint] = []
    found = []
    per_window, per_step = int(WINDOW_SECONDS / SCRAPE_SECONDS), int(STEP_SECONDS / SCRAPE_SECONDS)
    kept = int(HISTORY_HOURS * 3600 / STEP_SECONDS) * len(samples)
    for number in range(windows):
        first = number * per_window
        window = tuple(tuple(each[first : first + per_window + 1]) for each in samples)
        if min(map(len, window)) <= per_window:
            break
        history += points_of(Run(tuple(each[::per_step] for each in window), 0, 0, 0))
        del history[:-kept]
        group = make_group(replicas_of(situation, Run(window, 0, 0, 0)), history, AT, WINDOW_SECONDS)
        diagnosis = diagnose_group(group, Objectives(situation.ttft, situation.itl))
        found.append(frozenset(each.name for each in diagnosis.causes))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=100, help="servers drawn; those that are healthy are watched")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()

    servers = windows = single = twice = 0
    replica_seconds = 0.0
    named = Counter[str]()
    keys = [(options.first_seed + number, options.hours) for number in range(options.servers)]
    with Pool(options.workers) as pool:
        for watched in pool.imap_unordered(watch, keys):
            if watched is None:
                continue
            servers += 1
            windows += len(watched.found)
            replica_seconds += len(watched.found) * WINDOW_SECONDS * watched.replicas
            single += sum(bool(each) for each in watched.found)
            both = [one & other for one, other in zip(watched.found, watched.found[1:], strict=False)]
            twice += sum(bool(each) for each in both)
            for each in watched.found:
                named.update(each)
            if any(watched.found):
                print(f"seed {watched.seed}: {Counter(name for each in watched.found for name in each)}", flush=True)
    days = replica_seconds / SECONDS_PER_DAY
    print(f"{servers} healthy servers, {windows} windows, {days:.1f} replica-days")
    print(f"windows with advice: {single}; two that follow each other with the same: {twice}")
    print(f"by cause: {dict(named)}")
    if not twice:
        print(f"none in {days:.1f} replica-days: at most {3 / days:.2g} a replica-day (95 %, rule of three)")
    common.write("serving_healthy", {
        "servers": servers, "windows": windows, "replica_days": round(days, 2), "windows_with_advice": single,
        "two_windows_with_advice": twice, "causes": dict(named),
    })  # fmt: skip
    return 1 if twice else 0


if __name__ == "__main__":
    sys.exit(main())
