"""Replicas that go, and whether those left serve the load: pools of several kinds of requests, of which some could go.

    python -m benchmarks.serving_removals [--count 20] [--hours 2] [--first-seed 0] [--workers 2]

A pool is watched for some hours at a steady load, and the advisor decides on its last window, with the history of all.
Pools that miss their objectives as they are, are left out. Fewer replicas are false if those left keep the objectives,
which are 95th percentiles, for less than 95 % of the requests of several draws. A pool could lose replicas if those
left keep them for 99 % with a tenth more load.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import Pool
from typing import Any

from benchmarks import common
from benchmarks.serving import draw
from benchmarks.serving.causes import SERVED_RATIO
from benchmarks.serving.draw import Draw
from benchmarks.serving.situation import Situation, run
from benchmarks.serving.watched_servers import windows_in
from benchmarks.serving.windows import watch
from benchmarks.serving_healthy import KEPT_RATIO, decide_windows

#: Draws of requests that say whether fewer replicas are enough, the load with which they could go, and what lies
#: between the seeds of two draws.
DRAWS, GROWTH, SEED_STEP = 6, 1.1, 7919


def long_prompts(seed: int) -> Situation:
    """Prompts of thousands of tokens and short answers, half of the servers with a prefix cache."""
    drawn = Draw(seed, (1500, 6000), (60, 300))
    if drawn.random.random() < 0.5:
        drawn.settings = replace(drawn.settings, prefix_cache=True)
        drawn.load = replace(
            drawn.load, prefix_groups=drawn.random.randint(2, 6), prefix_ratio=drawn.random.uniform(0.3, 0.8)
        )
    drawn.settings = replace(drawn.settings, max_num_batched_tokens=drawn.random.choice((512, 2048, 8192)))
    return _pool("long_prompts", drawn, 0.45, 0.8)


def short_time_to_first_token(seed: int) -> Situation:
    """An objective of hardly more than the time that a prompt takes."""
    drawn = Draw(seed, (800, 4000), (100, 300))
    drawn.ttft = 0.05 + drawn.random.uniform(1.6, 3.5) * drawn.cost.per_prefill_token * drawn.load.prompt
    return _pool("short_time_to_first_token", drawn, 0.4, 0.7)


def long_answers(seed: int) -> Situation:
    """Answers of hundreds of tokens, in a KV cache of a third of the memory and more."""
    drawn = Draw(seed, (300, 2000), (300, 900))
    drawn.settings = replace(drawn.settings, kv_tokens=int(drawn.kv_tokens * drawn.random.uniform(0.3, 1)))
    return _pool("long_answers", drawn, 0.5, 0.8)


def some_long_prompts(seed: int) -> Situation:
    """A few prompts of thousands of tokens among short ones."""
    drawn = Draw(seed, (100, 800), (100, 300))
    drawn.load = replace(
        drawn.load, long_ratio=drawn.random.uniform(0.02, 0.1), long_prompt=drawn.between(3000, 12_000)
    )
    drawn.set_ttft()
    return _pool("some_long_prompts", drawn, 0.4, 0.7)


def whole_prompts(seed: int) -> Situation:
    """Prefill that is not chunked: decoding stops for each prompt."""
    drawn = Draw(seed, (500, 3000), (100, 300))
    drawn.settings = replace(drawn.settings, chunked_prefill=False, max_num_batched_tokens=32_768)
    return _pool("whole_prompts", drawn, 0.4, 0.7)


def _pool(name: str, drawn: Draw, least: float, most: float) -> Situation:
    """Two to four replicas, of which one fewer have a utilization between these."""
    replicas = drawn.random.randint(2, 4)
    return drawn.situation(name, drawn.random.uniform(least, most) * (replicas - 1) / replicas, replicas)


KINDS: dict[str, Callable[[int], Situation]] = {
    each.__name__: each
    for each in (
        draw.over_provisioned, draw.under_batched, long_prompts, short_time_to_first_token, long_answers,
        some_long_prompts, whole_prompts,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Decided:
    """A pool's replicas: present, the fewest that serve a tenth more, and those recommended; and the share of requests
    for which these keep the objectives."""

    kind: str
    seed: int
    present: int
    enough: int
    recommended: int
    kept: float


def decide_pool(hours: float, drawn: tuple[str, int]) -> Decided | None:
    """None of a pool that misses its objectives as it is."""
    kind, seed = drawn
    situation = KINDS[kind](seed)
    present = len(situation.delays)
    if run(situation).attainment < SERVED_RATIO:
        return None
    windows = windows_in(hours)
    *_, advice = decide_windows(situation, watch(situation, windows), windows)
    wanted = min((round(each.recommended) for each in advice if each.unit == "replicas"), default=present)
    enough = next(
        (few for few in range(1, present) if kept_ratio(situation, few, GROWTH) >= SERVED_RATIO),
        present,
    )
    kept = kept_ratio(situation, wanted) if wanted < present else 1.0
    return Decided(kind, seed, present, enough, wanted, kept)


def kept_ratio(situation: Situation, replicas: int, growth: float = 1.0) -> float:
    """The share of requests for which so many replicas keep the objectives, mean of some draws."""
    load = replace(situation.load, rate=growth * situation.load.rate)
    seeds = (situation.seed + SEED_STEP * number for number in range(DRAWS))
    fewer = (replace(situation, load=load, delays=(0.0,) * replicas, seed=seed) for seed in seeds)
    return sum(run(each).attainment for each in fewer) / DRAWS


@dataclass(slots=True)
class Totals:
    """Pools, those that could lose replicas and those of them that did, all that lost some, and those that lost
    replicas that they need."""

    pools: int = 0
    could: int = 0
    did: int = 0
    removed: int = 0
    false: int = 0

    def add(self, each: Decided) -> None:
        fewer = each.recommended < each.present
        self.pools += 1
        self.could += each.enough < each.present
        self.did += fewer and each.enough < each.present
        self.removed += fewer
        self.false += each.kept < KEPT_RATIO


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20, help="pools drawn of each kind")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()

    drawn = [(kind, options.first_seed + number) for kind in KINDS for number in range(options.count)]
    totals = {kind: Totals() for kind in KINDS}
    with Pool(options.workers) as pool:
        for each in pool.imap(partial(decide_pool, options.hours), drawn):
            if each is not None:
                totals[each.kind].add(each)
                if each.kept < KEPT_RATIO:
                    print("false:", each)
    for kind, found in totals.items():
        print(f"{kind}: {', '.join(f'{name} {value}' for name, value in asdict(found).items())}")
    document: dict[str, Any] = {"first_seed": options.first_seed, "hours": options.hours}
    document["kinds"] = {kind: asdict(found) for kind, found in totals.items()}
    common.write("serving_removals", document)
    return 1 if any(found.false for found in totals.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
