"""A server over several windows that follow each other: a situation for as long as an advisor would watch it."""

from __future__ import annotations

import random

from benchmarks.serving.simulator import Replica, Sample
from benchmarks.serving.situation import (
    SCRAPE_SECONDS,
    WARM_UP_SECONDS,
    WINDOW_SECONDS,
    Run,
    Situation,
    draw_requests,
)

#: Scrapes from a window's begin to its end.
SCRAPES_PER_WINDOW = int(WINDOW_SECONDS / SCRAPE_SECONDS)


def watch(situation: Situation, windows: int) -> Run:
    """Simulate the warm-up and the windows, with requests to the least loaded replica. The users' view is left out."""
    end = WARM_UP_SECONDS + windows * WINDOW_SECONDS
    replicas = [Replica(situation.cost, situation.settings, ready) for ready in situation.delays]
    samples: list[list[Sample]] = [[] for _ in replicas]
    scrapes = (WARM_UP_SECONDS + number * SCRAPE_SECONDS for number in range(windows * SCRAPES_PER_WINDOW + 1))
    requests = draw_requests(situation.load, random.Random(situation.seed).randrange(1 << 30), end)
    submitted = 0
    for scrape in scrapes:
        while submitted < len(requests) and requests[submitted].arrival < scrape:
            request = requests[submitted]
            for replica in replicas:
                replica.advance(request.arrival)
            min(replicas, key=lambda each: each.outstanding).submit(request)
            submitted += 1
        for replica, found in zip(replicas, samples, strict=True):
            replica.advance(scrape)
            found.append(replica.sample(scrape))
    return Run(tuple(map(tuple, samples)), 0.0, 0.0, 0.0)


def window_of(run: Run, number: int) -> Run:
    """One window of a watched run, both its ends included."""
    first = number * SCRAPES_PER_WINDOW
    return Run(tuple(each[first : first + SCRAPES_PER_WINDOW + 1] for each in run.samples), 0.0, 0.0, 0.0)
