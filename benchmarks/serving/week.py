"""A week of requests to one model, and a fleet of replicas that serves it: written before it was run against a policy.

Replicas are a fluid: all run the same number of requests, and a step's time is the simulated server's. Requests beyond
what may run at a time wait. A new replica serves after a delay; one that goes leaves at once.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.serving.draw import interval
from benchmarks.serving.server_model import GPUS, MODELS, Settings, kv_tokens_of, step_cost
from benchmarks.serving.situation import Load

DAY_SECONDS, STEP_SECONDS, WINDOW_SECONDS = 86_400, 15, 300
DAYS = 7

#: Parts of a step, much shorter than a request.
SUB_STEPS = 10

HARDWARE, MODEL = GPUS[0], MODELS[0]
LOAD = Load(0.0, 900.0, 250.0)
COST = step_cost(HARDWARE, MODEL, Settings(256, 2048, 1))
KV_TOKENS = kv_tokens_of(HARDWARE, MODEL, 0.9)
#: As its operator set it: at this limit the inter-token latency is just within its objective.
MAX_NUM_SEQS = 86

#: Objectives (seconds), requests per second at the peak of an ordinary day, and limits of the fleet.
TTFT, ITL = 1.0, 0.05
PEAK_RATE = 120.0
MIN_REPLICAS, MAX_REPLICAS, START_DELAY_SECONDS = 4, 80, 180


def request_rates(seed: int) -> list[float]:
    """Requests per second in each step: days with a morning and an evening, quiet weekends, drift, and rushes.

    The ratio of a day's least to its most, and the noise between minutes, are of the order of the hours published by
    https://github.com/Azure/AzurePublicDataset (LLM inference, 2023).
    """
    draw = random.Random(seed)
    rushes = [
        (draw.uniform(0, DAYS * DAY_SECONDS), draw.uniform(300, 1800), draw.uniform(0.15, 0.45))
        for _ in range(4 * DAYS)
    ]
    rates, drift = [], 0.0
    for step in range(DAYS * DAY_SECONDS // STEP_SECONDS):
        at = step * STEP_SECONDS
        hour = at % DAY_SECONDS / 3600
        day = 0.2 + 0.8 * max(0.0, math.sin(math.pi * (hour - 6) / 16)) ** 1.3 if 6 <= hour <= 22 else 0.2
        weekend = 0.6 if at // DAY_SECONDS >= 5 else 1.0
        drift = 0.98 * drift + draw.gauss(0, 0.012)
        rush = sum(size * min(1.0, (at - start) / 60) for start, length, size in rushes if start <= at < start + length)
        rates.append(PEAK_RATE * weekend * day * math.exp(drift) * (1 + rush))
    return rates


@dataclass(frozen=True, slots=True)
class Scrape:
    """What the fleet's pages show together at `at` (seconds): replicas that serve, requests that run and wait, the KV
    cache used (0..1), and over the last step tokens generated per second and seconds between tokens."""

    at: float
    replicas: int
    running: float
    waiting: float
    kv_usage: float
    tokens_per_second: float
    itl: float


@dataclass(slots=True)
class Fleet:
    """`pending` are the times at which replicas begin to serve."""

    serving: int
    pending: list[float] = field(default_factory=list)
    running: float = 0.0
    waiting: float = 0.0
    seconds_used: float = 0.0

    @property
    def total(self) -> int:
        return self.serving + len(self.pending)

    def scale(self, at: float, replicas: int) -> None:
        wanted = min(MAX_REPLICAS, max(MIN_REPLICAS, replicas))
        while self.total < wanted:
            self.pending.append(at + START_DELAY_SECONDS)
        while self.total > wanted and self.pending:
            self.pending.pop()
        self.serving = min(self.serving, wanted)

    def advance(self, at: float, arrivals: int) -> tuple[Scrape, float]:
        """One step; returns what its pages show at its end, and the time to first token of its requests (seconds)."""
        self.serving += sum(1 for ready in self.pending if ready <= at)
        self.pending = [ready for ready in self.pending if ready > at]
        self.seconds_used += self.total * STEP_SECONDS
        room = self.serving * MAX_NUM_SEQS
        running = finished = seconds = queue = 0.0
        for _ in range(SUB_STEPS):
            before = self.waiting
            self.waiting += arrivals / SUB_STEPS
            admitted = min(self.waiting, max(0.0, room - self.running))
            self.waiting -= admitted
            self.running += admitted
            itl = interval(COST, LOAD, max(1.0, self.running / self.serving))
            done = min(self.running, self.running / itl / LOAD.output * STEP_SECONDS / SUB_STEPS)
            queue = max(queue, before / (done * SUB_STEPS / STEP_SECONDS) if done else 0.0)
            running += self.running / SUB_STEPS
            finished, seconds = finished + done, seconds + done * itl
            self.running -= done
        itl = seconds / finished if finished else 0.0
        tokens = finished * LOAD.output / STEP_SECONDS
        ttft = queue + 2 * LOAD.prompt * COST.per_prefill_token + itl
        context = LOAD.prompt + LOAD.output / 2
        used = min(1.0, running * context / (self.serving * KV_TOKENS))
        return Scrape(at + STEP_SECONDS, self.serving, running, self.waiting, used, tokens, itl), ttft


def poisson(draw: random.Random, mean: float) -> int:
    """By the normal distribution above 30, which is close enough for counts of a step."""
    if mean > 30:
        return max(0, round(draw.gauss(mean, math.sqrt(mean))))
    limit, product, count = math.exp(-mean), draw.random(), 0
    while product > limit:
        product *= draw.random()
        count += 1
    return count


def arrivals(seed: int, rates: Sequence[float] | None = None) -> Iterator[int]:
    """Requests in each step, of the week or of other rates."""
    draw = random.Random(seed + 1)
    for rate in request_rates(seed) if rates is None else rates:
        yield poisson(draw, rate * STEP_SECONDS)
