"""A situation: replicas of a server, their load, and what its users expect; and what happens in it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.serving.server_model import Hardware, Model, Settings, StepCost, step_cost
from benchmarks.serving.simulator import Replica, Request, Sample

Routing = Literal["least_outstanding", "skewed"]

#: Simulated time: before the window, the window, and the scrape interval (seconds).
WARM_UP_SECONDS, WINDOW_SECONDS, SCRAPE_SECONDS = 90.0, 300.0, 15.0


@dataclass(frozen=True, slots=True)
class Load:
    """Requests: Poisson arrivals per second, token counts (log-normal around their means), and shared prefixes.

    A share of `long_ratio` of the prompts has `long_prompt` tokens. `step_ratio` is how much of the rate there is
    before the window's first third: less than 1 for a rise in it.
    """

    rate: float
    prompt: float
    output: float
    sigma: float = 0.4
    long_ratio: float = 0.0
    long_prompt: float = 0.0
    prefix_groups: int = 0
    prefix_ratio: float = 0.0
    step_ratio: float = 1.0

    @property
    def mean_prompt(self) -> float:
        return (1 - self.long_ratio) * self.prompt + self.long_ratio * self.long_prompt


@dataclass(frozen=True, slots=True)
class Situation:
    """`delays` are when replicas are ready (seconds), `skew` is what share of requests the first one has beyond its
    part. `ttft` and `itl` are the users' objectives (seconds)."""

    name: str
    hardware: Hardware
    model: Model
    settings: Settings
    load: Load
    ttft: float
    itl: float
    delays: tuple[float, ...] = (0.0,)
    skew: float = 0.0
    tensor_parallel: int = 1
    seed: int = 0

    @property
    def cost(self) -> StepCost:
        return step_cost(self.hardware, self.model, self.settings, self.tensor_parallel)


@dataclass(frozen=True, slots=True)
class Run:
    """What was scraped of each replica, and the users' view of the window."""

    samples: tuple[tuple[Sample, ...], ...]
    offered: float
    goodput: float
    prefilled: float
    requests: tuple[Request, ...] = field(repr=False, default=())

    @property
    def attainment(self) -> float:
        """The share of the offered requests that met their objectives."""
        return self.goodput / self.offered if self.offered else 1.0


def draw_requests(load: Load, seed: int, end: float) -> list[Request]:
    """The requests up to a time, by arrival."""
    draw = random.Random(seed)
    rise = WARM_UP_SECONDS + WINDOW_SECONDS / 3
    found: list[Request] = []
    at = 0.0
    while True:
        rate = load.rate * (load.step_ratio if at < rise else 1.0)
        at += draw.expovariate(rate) if rate > 0 else math.inf
        if at >= end:
            return found
        long = draw.random() < load.long_ratio
        prompt = load.long_prompt if long else load.prompt
        correction = -(load.sigma**2) / 2
        prompt_tokens = max(8, round(prompt * math.exp(draw.gauss(correction, 0.1 if long else load.sigma))))
        output = max(2, round(load.output * math.exp(draw.gauss(correction, load.sigma))))
        group = draw.randrange(load.prefix_groups) if load.prefix_groups else -1
        found.append(Request(at, prompt_tokens, output, group, int(load.prefix_ratio * load.prompt * 0.8)))
        found[-1].prefix_tokens = min(found[-1].prefix_tokens, prompt_tokens - 1)


def run(situation: Situation) -> Run:
    """Simulate the warm-up and the window. The same for equal situations."""
    end = WARM_UP_SECONDS + WINDOW_SECONDS
    requests = draw_requests(situation.load, situation.seed, end)
    route = random.Random(situation.seed + 1)
    replicas = [Replica(situation.cost, situation.settings, ready) for ready in situation.delays]
    samples: list[list[Sample]] = [[] for _ in replicas]
    scrape = WARM_UP_SECONDS
    for request in [*requests, Request(end, 1, 1)]:
        while scrape <= min(request.arrival, end):
            for replica, found in zip(replicas, samples, strict=True):
                if replica.ready <= scrape:
                    replica.advance(scrape)
                    found.append(replica.sample(scrape))
            scrape += SCRAPE_SECONDS
        if request.arrival >= end:
            break
        _route(replicas, request, situation.skew, route).submit(request)
    window = [each for each in requests if each.arrival >= WARM_UP_SECONDS]
    # The youngest have no time to finish: they count in neither.
    judged = [each for each in window if each.arrival < end - 20 * situation.itl - min(situation.ttft, 30.0)]
    met = [each for each in judged if _meets(each, situation, end)]
    prefilled = sum(replica.counters["iteration_tokens"] for replica in replicas)
    seconds = WINDOW_SECONDS
    return Run(tuple(map(tuple, samples)), len(judged) / seconds, len(met) / seconds, prefilled, tuple(judged))


def _meets(request: Request, situation: Situation, end: float) -> bool:
    """As Request.meets; a request that still runs at the end is judged by its tokens so far."""
    if not math.isnan(request.finish):
        return request.meets(situation.ttft, situation.itl)
    if math.isnan(request.first_token) or request.first_token - request.arrival > situation.ttft:
        return False
    done = request.generated
    return done < 2 or (end - request.first_token) / done <= 1.5 * situation.itl


def _route(replicas: Sequence[Replica], request: Request, skew: float, draw: random.Random) -> Replica:
    """The replica that gets a request: the first with a probability of `skew`, else the least loaded that serves."""
    ready = [each for each in replicas if each.ready <= request.arrival] or [min(replicas, key=lambda each: each.ready)]
    for each in ready:
        if each.ready <= request.arrival:
            each.advance(request.arrival)
    if skew and draw.random() < skew:
        return ready[0]
    return min(ready, key=lambda each: each.outstanding)
