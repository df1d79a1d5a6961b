"""Situations drawn around each cause. What is wrong in one is found by relaxing it (causes.py), not by its class."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from benchmarks.serving.server_model import GPUS, MODELS, Hardware, Model, Settings, StepCost, kv_tokens_of, step_cost
from benchmarks.serving.situation import WARM_UP_SECONDS, Load, Situation

MIN_KV_TOKENS = 20_000
TTFT_OBJECTIVES = (0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
ITL_OBJECTIVES = (0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2)


def interval(cost: StepCost, load: Load, sequences: float) -> float:
    """The mean time between two tokens of a sequence (seconds), with as many in a batch, prompts between included."""
    context = load.mean_prompt + load.output / 2
    decode = cost.step(0, sequences, sequences * context)
    return decode + sequences * load.mean_prompt / load.output * cost.per_prefill_token


def request_rate(cost: StepCost, load: Load, sequences: float) -> float:
    """Requests per second with as many sequences in a batch: Little's law."""
    return sequences / (load.output * interval(cost, load, sequences))


def most_sequences(cost: StepCost, load: Load, itl: float) -> int:
    """The largest batch within an inter-token latency."""
    sequences = 1
    while sequences < 512 and interval(cost, load, sequences + 1) <= itl:
        sequences += 1
    return sequences


class Draw:
    """One server at rest, to be changed by a class; `n` is the largest batch within its objective."""

    def __init__(self, seed: int, prompt: tuple[float, float] = (200, 2000), output: tuple[float, float] = (150, 500)):
        self.seed = seed
        self.random = random.Random(seed)
        while True:
            self.hardware: Hardware = self.random.choice(GPUS)
            self.model: Model = self.random.choice(MODELS)
            self.kv_tokens = kv_tokens_of(self.hardware, self.model, 0.9)
            if self.kv_tokens >= MIN_KV_TOKENS:
                break
        self.load = Load(0.0, self.between(*prompt), self.between(*output))
        self.cost = step_cost(self.hardware, self.model, Settings(1, 1, 1))
        lone = self.cost.step(0, 1, self.load.prompt + self.load.output)
        self.itl = _objective(ITL_OBJECTIVES, self.random.uniform(1.8, 3.0) * lone)
        self.set_ttft()
        self.settings = Settings(256, 2048, self.kv_tokens)

    def set_ttft(self) -> None:
        longest = max(self.load.prompt, self.load.long_prompt)
        self.ttft = _objective(
            TTFT_OBJECTIVES, 0.15 + self.random.uniform(4, 8) * self.cost.per_prefill_token * longest
        )

    @property
    def n(self) -> float:
        context = self.load.mean_prompt + self.load.output / 2
        batch = most_sequences(self.cost, self.load, 0.85 * self.itl)
        return min(batch, self.settings.max_num_seqs, 0.9 * self.settings.kv_tokens / context)

    def between(self, low: float, high: float) -> float:
        """Log-uniform."""
        return float(low * (high / low) ** self.random.random())

    def situation(self, name: str, utilization: float, replicas: int = 1, rate: float | None = None) -> Situation:
        """At a share of what the replicas can serve, unless a rate is given."""
        if rate is None:
            rate = utilization * replicas * request_rate(self.cost, self.load, max(1.0, self.n))
        return Situation(
            name, self.hardware, self.model, self.settings, replace(self.load, rate=rate), self.ttft, self.itl,
            (0.0,) * replicas, seed=self.seed,
        )  # fmt: skip


def _objective(choices: tuple[float, ...], at_least: float) -> float:
    return next((each for each in choices if each >= at_least), choices[-1])


def healthy(seed: int) -> Situation:
    draw = Draw(seed)
    if draw.random.random() < 0.5:
        draw.settings = replace(draw.settings, prefix_cache=True)
        draw.load = replace(
            draw.load, prefix_groups=draw.random.randint(2, 6), prefix_ratio=draw.random.uniform(0.3, 0.8)
        )
    replicas = draw.random.choice((1, 1, 2))
    return draw.situation(
        "healthy", draw.random.uniform(0.4, 0.65) if replicas == 1 else draw.random.uniform(0.6, 0.7), replicas
    )


def kv_cache_bound(seed: int) -> Situation:
    draw = Draw(seed, (400, 3000), (150, 600))
    free, context = draw.n, draw.load.mean_prompt + draw.load.output / 2
    limit = max(2.0, draw.random.uniform(0.15, 0.45) * free)
    rate = draw.random.uniform(0.7, 0.85) * request_rate(draw.cost, draw.load, min(free, 3.5 * limit))
    draw.settings = replace(draw.settings, kv_tokens=int(max(limit * context, 1.3 * context)))
    return draw.situation("kv_cache_bound", 0, rate=rate)


def batch_limit_bound(seed: int) -> Situation:
    draw = Draw(seed)
    limit = int(max(2, draw.random.uniform(0.1, 0.4) * draw.n))
    rate = draw.random.uniform(0.7, 0.85) * request_rate(draw.cost, draw.load, min(draw.n, 3.5 * limit))
    draw.settings = replace(draw.settings, max_num_seqs=limit)
    return draw.situation("batch_limit_bound", 0, rate=rate)


def prefill_bound(seed: int) -> Situation:
    draw = Draw(seed, (2000, 6000), (20, 80))
    if draw.random.random() < 0.4:
        draw.settings = replace(draw.settings, max_num_batched_tokens=draw.random.choice((256, 512)))
    return draw.situation("prefill_bound", draw.random.uniform(1.1, 1.6))


def decode_bandwidth_bound(seed: int) -> Situation:
    draw = Draw(seed, (100, 400), (300, 800))
    draw.itl = draw.random.uniform(1.3, 2.2) * draw.cost.step(0, 1, draw.load.prompt)
    draw.settings = replace(draw.settings, max_num_seqs=512)
    room = 0.8 * draw.kv_tokens / (draw.load.prompt + draw.load.output)
    sequences = min(most_sequences(draw.cost, draw.load, draw.itl), room)
    draw.itl = min(draw.itl, interval(draw.cost, draw.load, sequences))
    rate = draw.random.uniform(1.1, 1.35) * request_rate(draw.cost, draw.load, sequences)
    return draw.situation("decode_bandwidth_bound", 0, rate=rate)


def head_of_line(seed: int) -> Situation:
    draw = Draw(seed, (100, 400), (100, 300))
    draw.set_ttft()  # of the short prompts
    long_prompt = min(draw.between(1.0, 3.0) * draw.ttft / draw.cost.per_prefill_token, 0.3 * draw.kv_tokens, 30_000)
    draw.load = replace(draw.load, long_ratio=draw.random.uniform(0.03, 0.08), long_prompt=max(4000.0, long_prompt))
    chunked = draw.random.random() < 0.5
    draw.settings = replace(draw.settings, chunked_prefill=chunked, max_num_batched_tokens=2048 if chunked else 32_768)
    draw.itl *= 2  # long prompts among the tokens are expected
    return draw.situation("head_of_line", draw.random.uniform(0.5, 0.75))


def cold_start(seed: int) -> Situation:
    draw = Draw(seed)
    draw.load = replace(draw.load, step_ratio=0.4)
    late = WARM_UP_SECONDS + draw.random.uniform(160, 270)
    situation = draw.situation("cold_start", draw.random.uniform(0.65, 0.8), 2)
    return replace(situation, delays=(0.0, late))


def imbalance(seed: int) -> Situation:
    draw = Draw(seed)
    replicas = draw.random.randint(2, 4)
    skew = draw.random.uniform(0.4, 0.8)
    return replace(draw.situation("imbalance", draw.random.uniform(0.6, 0.8), replicas), skew=skew)


def over_provisioned(seed: int) -> Situation:
    draw = Draw(seed)
    replicas = draw.random.randint(2, 5)
    return draw.situation("over_provisioned", draw.random.uniform(0.58, 0.7) * (replicas - 1) / replicas, replicas)


def under_batched(seed: int) -> Situation:
    draw = Draw(seed)
    return draw.situation("under_batched", draw.random.uniform(0.01, 0.08), draw.random.randint(2, 4))


def wrong_gpu(seed: int) -> Situation:
    draw = Draw(seed)
    itl = draw.random.uniform(0.5, 0.85) * draw.cost.step(0, 1, draw.load.prompt)
    rate = draw.random.uniform(0.2, 0.6) * request_rate(draw.cost, draw.load, max(1.0, draw.n))
    return replace(draw.situation("wrong_gpu", 0, draw.random.randint(1, 2), rate), itl=itl)


def prefix_cache_useless(seed: int) -> Situation:
    draw = Draw(seed)
    draw.settings = replace(draw.settings, prefix_cache=True)
    return draw.situation("prefix_cache_useless", draw.random.uniform(0.4, 0.65))


CLASSES: dict[str, Callable[[int], Situation]] = {
    each.__name__: each
    for each in (
        healthy, kv_cache_bound, batch_limit_bound, prefill_bound, decode_bandwidth_bound, under_batched, head_of_line,
        cold_start, imbalance, over_provisioned, wrong_gpu, prefix_cache_useless,
    )
}  # fmt: skip
