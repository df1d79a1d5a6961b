"""A replica of an inference server: iteration-level continuous batching over a paged KV cache.

Each step takes one token of every running sequence and, within a token budget, parts of prompts (chunked prefill), or
whole prompts alone (without). A sequence that finds no KV cache preempts the youngest one, which is computed again.
Sources of the behaviour: https://arxiv.org/abs/2309.06180 (paging, preemption by recomputation),
https://www.usenix.org/conference/osdi22/presentation/yu (iteration-level batching),
https://arxiv.org/abs/2403.02310 (chunked prefill).

Steps in which nothing but decoding happens are taken at once, in closed form: a simulation costs some microseconds a
request and scrape, however long its sequences are.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from benchmarks.serving.server_model import Settings, StepCost

#: Bucket bounds of vLLM 0.32 (seconds): its page /metrics.
TTFT_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
                80.0, 160.0, 640.0, 2560.0)  # fmt: skip
ITL_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
               80.0)  # fmt: skip
QUEUE_BUCKETS = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
                 960.0, 1920.0, 7680.0)  # fmt: skip

#: The share of the KV cache that cached prefixes may take.
PREFIX_CACHE_RATIO = 0.3


@dataclass(slots=True)
class Request:
    """One request; times are in seconds since the start. `prefix_tokens` are common to a `prefix_group`."""

    arrival: float
    prompt: int
    output: int
    prefix_group: int = -1
    prefix_tokens: int = 0
    first_token: float = math.nan
    finish: float = math.nan
    scheduled: float = math.nan
    to_prefill: int = 0
    generated: int = 0
    start_step: int = 0
    version: int = 0
    held: int = 0

    def meets(self, ttft: float, itl: float) -> bool:
        """Whether it finished, its first token within `ttft` and the others within `itl` each on average (seconds)."""
        if math.isnan(self.finish) or self.first_token - self.arrival > ttft:
            return False
        return self.output < 2 or (self.finish - self.first_token) / (self.output - 1) <= itl


@dataclass(slots=True)
class Histogram:
    """Cumulative counts are made on reading, as on a page; `counts` has one bucket more than bounds."""

    bounds: tuple[float, ...]
    counts: list[float] = field(default_factory=list)
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0.0] * (len(self.bounds) + 1)

    def observe(self, value: float, weight: float = 1.0) -> None:
        self.counts[bisect_left(self.bounds, value)] += weight
        self.sum += value * weight


@dataclass(frozen=True, slots=True)
class Sample:
    """One scrape of a replica: gauges, counters, and histograms as (counts by bucket, sum)."""

    at: float
    values: dict[str, float]
    histograms: dict[str, tuple[tuple[float, ...], float]]


class Replica:
    """One server. `ready` is when it starts serving (seconds)."""

    def __init__(self, cost: StepCost, settings: Settings, ready: float = 0.0) -> None:
        self.cost, self.settings, self.ready = cost, settings, ready
        self.clock = ready
        self.waiting: deque[Request] = deque()
        self.prefilling: list[Request] = []
        self.running: OrderedDict[int, Request] = OrderedDict()
        self.ends: list[tuple[int, int, int]] = []
        self.steps = 0
        self.kv = 0
        self.stall = 0.0
        self.prefixes: OrderedDict[int, int] = OrderedDict()
        self.prefix_tokens = 0
        self.counters = dict.fromkeys(
            ("num_preemptions", "prompt_tokens", "generation_tokens", "prefix_cache_queries", "prefix_cache_hits",
             "request_success", "iterations", "iteration_tokens", "request_prompt_tokens",
             "request_generation_tokens"), 0.0)  # fmt: skip
        self.ttft, self.itl = Histogram(TTFT_BUCKETS), Histogram(ITL_BUCKETS)
        self.queue_time, self.prefill_time = Histogram(QUEUE_BUCKETS), Histogram(QUEUE_BUCKETS)

    @property
    def outstanding(self) -> int:
        return len(self.waiting) + len(self.prefilling) + len(self.running)

    def submit(self, request: Request) -> None:
        request.to_prefill = request.prompt
        self.waiting.append(request)

    def advance(self, until: float) -> None:
        """Take steps until the clock reaches a time; the last step may end after it."""
        while self.clock < until:
            self._admit()
            if self.prefilling:
                self._prefill_step()
            elif self.running:
                self._decode(until)
            else:
                self.clock = until

    def sample(self, at: float) -> Sample:
        """What its page shows."""
        gauges = {
            "num_requests_running": float(len(self.running) + len(self.prefilling)),
            "num_requests_waiting": float(len(self.waiting)),
            "kv_cache_usage_perc": min(1.0, self.kv / self.settings.kv_tokens),
        }
        histograms = {
            name: (tuple(each.counts), each.sum)
            for name, each in (
                ("time_to_first_token_seconds", self.ttft), ("inter_token_latency_seconds", self.itl),
                ("request_queue_time_seconds", self.queue_time), ("request_prefill_time_seconds", self.prefill_time),
            )
        }  # fmt: skip
        return Sample(at, {**gauges, **self.counters}, histograms)

    def _admit(self) -> None:
        settings = self.settings
        looked = 0
        while self.waiting and len(self.running) + len(self.prefilling) < settings.max_num_seqs:
            request = self.waiting[0]
            tokens = request.to_prefill + 1
            if self.kv + tokens > settings.kv_tokens and (self.running or self.prefilling):
                if not settings.skip_ahead or looked >= min(16, len(self.waiting) - 1):
                    break
                self.waiting.rotate(-1)
                looked += 1
                continue
            self.waiting.popleft()
            self._schedule(request, tokens)
        if looked:
            self.waiting.rotate(looked)

    def _schedule(self, request: Request, tokens: int) -> None:
        if math.isnan(request.scheduled):
            request.scheduled = self.clock
            self.queue_time.observe(self.clock - request.arrival)
        request.held = tokens - 1
        self.kv += request.held
        if self.settings.prefix_cache:
            self.counters["prefix_cache_queries"] += request.to_prefill
            hit = self._look_up(request)
            self.counters["prefix_cache_hits"] += hit
            request.to_prefill = max(1, request.to_prefill - hit)
        self.prefilling.append(request)

    def _look_up(self, request: Request) -> int:
        """Tokens of a prompt that are cached; its prefix is cached from now on."""
        group, size = request.prefix_group, request.prefix_tokens
        if group < 0:
            return 0
        if group in self.prefixes:
            self.prefixes.move_to_end(group)
            return size
        self.prefixes[group] = size
        self.prefix_tokens += size
        while self.prefix_tokens > PREFIX_CACHE_RATIO * self.settings.kv_tokens:
            self.prefix_tokens -= self.prefixes.popitem(last=False)[1]
        return 0

    def _prefill_step(self) -> None:
        """One step with parts of prompts, beside decoding if prefill is chunked, else alone."""
        chunked = self.settings.chunked_prefill
        if chunked and self.running:
            self._make_room(1)
        decoding = len(self.running) if chunked else 0
        budget = max(1, self.settings.max_num_batched_tokens - decoding)
        tokens, done = 0, []
        if self.settings.skip_ahead:
            self.prefilling.sort(key=lambda each: each.to_prefill)
        for request in self.prefilling:
            take = min(request.to_prefill, budget - tokens)
            if not chunked:
                if tokens and tokens + request.to_prefill > budget:
                    break
                take = request.to_prefill
            if take <= 0:
                break
            request.to_prefill -= take
            tokens += take
            if request.to_prefill == 0:
                done.append(request)
        seconds = self.cost.step(tokens, decoding, self.kv if decoding else 0)
        self.clock += seconds
        self.counters["iterations"] += 1
        self.counters["iteration_tokens"] += tokens + decoding
        if decoding:
            self._decoded(1, seconds)
        else:
            self.stall += seconds if self.running else 0.0
        for request in done:
            self.prefilling.remove(request)
            self._first_token(request)

    def _first_token(self, request: Request) -> None:
        self.counters["generation_tokens"] += 1
        if math.isnan(request.first_token):
            request.first_token = self.clock
            self.ttft.observe(self.clock - request.arrival)
            self.prefill_time.observe(self.clock - request.scheduled)
            self.counters["prompt_tokens"] += request.prompt
        request.generated += 1
        request.start_step = self.steps
        request.held += 1
        self.kv += 1
        if request.generated >= request.output:
            self._finish(request)
            return
        request.version += 1
        self.running[id(request)] = request
        heapq.heappush(self.ends, (self.steps + request.output - request.generated, id(request), request.version))

    def _make_room(self, steps: int) -> None:
        """Preempt the youngest sequences until each of the others has KV cache for some steps."""
        while len(self.running) > 1 and self.kv + steps * len(self.running) > self.settings.kv_tokens:
            _, request = self.running.popitem()
            done = self.steps - request.start_step
            request.generated += done
            self.kv -= request.held + done
            request.version += 1
            request.to_prefill = request.prompt + request.generated
            request.held = 0
            self.counters["num_preemptions"] += 1
            self.waiting.appendleft(request)

    def _next_end(self) -> int:
        """The step at which the next sequence ends."""
        while True:
            step, key, version = self.ends[0]
            request = self.running.get(key)
            if request is not None and request.version == version:
                return step
            heapq.heappop(self.ends)

    def _decode(self, until: float) -> None:
        """As many steps of decoding alone as nothing else happens in."""
        self._make_room(1)
        n = len(self.running)
        room = (self.settings.kv_tokens - self.kv) // n if n > 1 else 1 << 30
        steps = max(1, min(self._next_end() - self.steps, room))
        first = self.cost.step(0, n, self.kv)
        growth = self.cost.per_kv_token * n
        steps = min(steps, _steps_until(until - self.clock, first, growth))
        seconds = steps * first + growth * steps * (steps - 1) / 2
        self.clock += seconds
        self.counters["iterations"] += steps
        self.counters["iteration_tokens"] += steps * n
        self._decoded(steps, seconds)

    def _decoded(self, steps: int, seconds: float) -> None:
        """Each running sequence has these many tokens more."""
        n = len(self.running)
        self.steps += steps
        self.kv += n * steps
        self.counters["generation_tokens"] += n * steps
        if self.stall:
            self.itl.observe(seconds / steps + self.stall, n)
            self.itl.observe(seconds / steps, n * (steps - 1))
            self.stall = 0.0
        else:
            self.itl.observe(seconds / steps, n * steps)
        while self.ends and self.ends[0][0] <= self.steps:
            _, key, version = heapq.heappop(self.ends)
            request = self.running.get(key)
            if request is not None and request.version == version:
                del self.running[key]
                done = self.steps - request.start_step
                request.generated += done
                request.held += done
                self._finish(request)

    def _finish(self, request: Request) -> None:
        request.finish = self.clock
        self.kv -= request.held
        self.counters["request_success"] += 1
        self.counters["request_prompt_tokens"] += request.prompt
        self.counters["request_generation_tokens"] += request.generated


def _steps_until(seconds: float, first: float, growth: float) -> int:
    """How many steps it takes to use up a time, the first of which takes `first` and each next one `growth` more."""
    if growth <= 0:
        return max(1, math.ceil(seconds / first))
    half = first / growth - 0.5
    return max(1, math.ceil(math.sqrt(half * half + 2 * seconds / growth) - half))
