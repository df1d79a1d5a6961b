"""What holds a simulated server back: a cause is what, when relaxed, lifts goodput by 10 %.

Written before the advisor's rules. Three causes are not about goodput: replicas that could go (the same goodput with
fewer, and 20 % more load), and a prefix cache that saves nothing.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Any

from benchmarks.serving.situation import Run, Situation, run

LIFT, GROWTH = 1.10, 1.20

#: A lift counts from this share of the offered requests on: of nothing, a few are many times as many.
MIN_LIFT_RATIO = 0.05

#: Objectives hold for this share of requests: a server that serves as many has no need of more.
SERVED_RATIO = 0.99

#: A single request at a time that misses its objectives more often than not: no setting helps.
LONE_RATE = 0.05

#: A prefix cache is useless if without it fewer than this share of tokens more are computed.
USELESS_RATIO = 0.02

CAUSES = (
    "kv_cache_bound", "batch_limit_bound", "prefill_bound", "decode_bandwidth_bound", "under_batched", "head_of_line",
    "cold_start", "imbalance", "over_provisioned", "wrong_gpu", "prefix_cache_useless",
)  # fmt: skip


def with_settings(situation: Situation, **changes: Any) -> Situation:
    return replace(situation, settings=replace(situation.settings, **changes))


def lifts(relaxed: Run, base: Run) -> bool:
    """Whether goodput rises by 10 %, and by a visible part of what is offered."""
    gain = relaxed.goodput - base.goodput
    return relaxed.goodput >= LIFT * base.goodput and gain >= MIN_LIFT_RATIO * base.offered


def causes_of(situation: Situation, base: Run | None = None) -> frozenset[str]:
    """The causes in a situation."""
    base = run(situation) if base is None else base
    found = set()
    if base.goodput * LIFT <= base.offered:  # else nothing can lift it by 10 %
        found |= _limits(situation, base)
    if len(situation.delays) > 1 and base.attainment >= SERVED_RATIO and not any(situation.delays):
        found |= _surplus(situation)
    if situation.settings.prefix_cache and _is_useless(situation, base):
        found.add("prefix_cache_useless")
    return frozenset(found)


def _limits(situation: Situation, base: Run) -> set[str]:
    settings = situation.settings
    relaxed = {
        "kv_cache_bound": with_settings(situation, kv_tokens=4 * settings.kv_tokens),
        "batch_limit_bound": with_settings(situation, max_num_seqs=4 * settings.max_num_seqs),
        "head_of_line": with_settings(situation, chunked_prefill=True, skip_ahead=True),
    }
    if any(situation.delays):
        relaxed["cold_start"] = replace(situation, delays=tuple(0.0 for _ in situation.delays))
    if situation.skew:
        relaxed["imbalance"] = replace(situation, skew=0.0)
    found = {name for name, changed in relaxed.items() if lifts(run(changed), base)}
    return found | _hardware(situation, base)


def _hardware(situation: Situation, base: Run) -> set[str]:
    """Causes of the hardware, which count only beyond what settings and routing give."""
    alone = run(replace(situation, load=replace(situation.load, rate=LONE_RATE, step_ratio=1.0), delays=(0.0,)))
    if alone.offered and alone.attainment < 0.5:
        return {"wrong_gpu"}
    settings = situation.settings
    free = with_settings(
        replace(situation, skew=0.0, delays=tuple(0.0 for _ in situation.delays)),
        kv_tokens=4 * settings.kv_tokens,
        max_num_seqs=4 * settings.max_num_seqs,
        chunked_prefill=True,
        skip_ahead=True,
    )
    situation, base = max(((situation, base), (free, run(free))), key=lambda each: each[1].goodput)
    if base.goodput * LIFT > base.offered:
        return set()
    settings = situation.settings
    variants = {
        "prefill_bound": (
            with_settings(situation, prefill_speedup=4.0),
            with_settings(situation, max_num_batched_tokens=4 * settings.max_num_batched_tokens),
        ),
        "decode_bandwidth_bound": (with_settings(situation, decode_speedup=2.0),),
    }
    return {name for name, every in variants.items() if any(lifts(run(changed), base) for changed in every)}


def _surplus(situation: Situation) -> set[str]:
    """Whether half of the replicas, or one fewer, serve 20 % more."""
    load = replace(situation.load, rate=GROWTH * situation.load.rate)
    count = len(situation.delays)
    for name, fewer in (("under_batched", ceil(count / 2)), ("over_provisioned", count - 1)):
        if fewer < count and run(replace(situation, load=load, delays=(0.0,) * fewer)).attainment >= SERVED_RATIO:
            if name == "under_batched" and not _batches_are_small(situation):
                continue
            return {name}
    return set()


def _batches_are_small(situation: Situation) -> bool:
    """Whether twice the sequences would lengthen a step by less than 10 %."""
    samples = [each.values["num_requests_running"] for one in run(situation).samples for each in one]
    running = max(1.0, sum(samples) / len(samples))
    context = situation.load.mean_prompt + situation.load.output / 2
    cost = situation.cost
    return cost.step(0, 2 * running, 2 * running * context) < 1.1 * cost.step(0, running, running * context)


def _is_useless(situation: Situation, base: Run) -> bool:
    without = run(with_settings(situation, prefix_cache=False))
    return without.prefilled < (1 + USELESS_RATIO) * base.prefilled
