"""The decision table of inference servers: features -> what holds a server back. Pure data.

Several rows may hold at once. A row with missing data gives nothing; one within a dead band, or with a single condition
that fails, is a near miss. Thresholds of latencies are shares of the objective: without an objective, rows that need it
are not decided.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpu_advisor.evaluation.diagnosis.conditions import Condition, above, any_of, below, unless


@dataclass(frozen=True, slots=True)
class ServingCause:
    """`kind` is the kind of the recommendation that follows. `lasts`: a state, which two windows have to show; else an
    event, which belongs to one. `within` is a cause that includes this one, which is then not named."""

    name: str
    kind: str
    explanation: str
    lasts: bool = True
    within: str = ""

    @property
    def title(self) -> str:
        """As in "KV-cache-bound"."""
        text = self.name.replace("_", "-").replace("kv-", "KV-").replace("-gpu", "-GPU")
        return text[0].upper() + text[1:]


@dataclass(frozen=True, slots=True)
class CauseRow:
    """A cause is found if all conditions of one of its rows hold."""

    cause: str
    variant: str
    conditions: tuple[Condition, ...]


#: The kind that removes replicas.
FEWER_KIND = "serving_replicas"

CAUSES: dict[str, ServingCause] = {
    each.name: each
    for each in (
        ServingCause("kv_cache_bound", "serving_kv_cache",
                     "The KV cache is full: requests wait for room, or are preempted and computed again."),
        ServingCause("batch_limit_bound", "serving_batch_limit",
                     "Requests wait while the number running stays at its limit, and the KV cache has room for more."),
        ServingCause("prefill_bound", "serving_prefill",
                     "Computing prompts takes so long that first tokens are late or running answers stall."),
        ServingCause("decode_bandwidth_bound", "serving_decode",
                     "Well batched, and still each token takes as long as its objective allows, or longer: the time to "
                     "read weights and KV cache is the limit."),
        ServingCause("under_batched", FEWER_KIND,
                     "Few requests run at a time, and a step would take hardly longer with twice as many: half of the "
                     "replicas serve the same load."),
        ServingCause("head_of_line", "serving_head_of_line",
                     "Long prompts hold up the short ones behind them: most first tokens are early, some very late."),
        ServingCause("cold_start", "serving_cold_start",
                     "A replica began to serve within the window; until then the others had its load.", lasts=False),
        ServingCause("imbalance", "serving_imbalance",
                     "Some replicas have much more to do than others, and miss objectives that all would keep if the "
                     "load were even."),
        ServingCause("over_provisioned", FEWER_KIND,
                     "One replica fewer keeps the objectives, with a fifth more load.", within="under_batched"),
        ServingCause("wrong_gpu", "serving_gpu",
                     "Even a request that is alone misses the objective on this GPU: no setting changes that."),
        ServingCause("prefix_cache_useless", "serving_prefix_cache",
                     "The prefix cache is looked up, and finds almost nothing."),
    )
}  # fmt: skip

KINDS: tuple[str, ...] = tuple(dict.fromkeys(cause.kind for cause in CAUSES.values()))

#: Kinds whose numbers are replicas of a pool.
SIZE_KINDS = (FEWER_KIND, "serving_decode")

#: More than a tenth of the requests miss an objective, and by more than the estimate errs, which is little for times to
#: first tokens; of a server without objectives, as many of its requests wait.
_PRESSED = any_of(above("pressed", 0.12, 0.09), above("ttft_missed", 0.09, 0.08))
_MET = below("missed_at_most", 0.035, 0.05)
_QUEUE = above("queue_share", 0.04, 0.03)

#: Not where it is the spread of the load over replicas, or one that is missing.
_ALL_ALIKE = (unless(below("even_itl", 0.90, 0.95)), unless(above("started", 1.0, 0.0)))

#: A server at its limit shows one load: what a request alone would take is not in its curve.
_ONE_LOAD = above("plateau", 0.98, 0.97)

#: Answers that are preempted are computed again, like prompts: prompts that fill the steps are then the cache's doing.
_SELDOM_PREEMPTED = unless(above("preemptions", 1.8, 1.7))

#: Prompts are late by themselves, stall answers, or take enough of the engine's time to make a queue. First tokens that
#: wait now and then for a cache that is full for a moment are none of that.
_PROMPTS_TAKE_TIME = any_of(
    above("computing_share", 0.54, 0.52), above("itl_missed", 0.10, 0.08), above("prompt_time", 0.17, 0.15),
    above("queue_share", 0.50, 0.45),
)  # fmt: skip

#: Prompts that take less than a fifth of the engine's time are seldom in each other's way: what waits for one in
#: service grows with that share (https://en.wikipedia.org/wiki/M/G/1_queue).
_PROMPTS_MEET = unless(below("prompt_time", 0.18, 0.20))

#: A share of requests too large for chance: sequences are preempted.
_PREEMPTS = above("preemptions", 0.010, 0.008)

#: Replicas go only if the curve predicts loads that it was not fitted to. Of loads far beyond them it is asked only
#: with the computation that little load hides.
_CURVE_HOLDS = below("curve_error", 0.10, 0.15)


def _serves(replicas: str) -> tuple[Condition, ...]:
    """So many replicas, `fewer` or `half`, keep the objectives for 99 % of requests, with a fifth more load."""
    return (
        _MET,
        _CURVE_HOLDS,
        below(f"{replicas}_itl", 1.0, 1.05),
        below(f"{replicas}_peak_itl", 1.05, 1.15),
        unless(above(f"{replicas}_ttft", 1.0, 0.95)),
        below(f"{replicas}_kv", 1.0, 1.05),
        below(f"{replicas}_limit", 0.80, 0.90),
        below(f"{replicas}_beyond", 4.0, 4.2),
        any_of(below(f"{replicas}_beyond", 3.0, 3.2), below(f"{replicas}_computed_itl", 0.95, 1.0)),
    )


ROWS: tuple[CauseRow, ...] = (
    CauseRow("kv_cache_bound", "first tokens wait, and steps leave time for more sequences", (
        _PRESSED, above("preemptions", 0.040, 0.035), above("kv_usage", 0.52, 0.50),
        unless(below("ttft_missed", 0.18, 0.20)), unless(above("peak_itl", 1.5, 1.4)),
        unless(above("free_itl", 3.8, 3.6)))),
    CauseRow("kv_cache_bound", "answers stall while they are computed again", (
        _PRESSED, _PREEMPTS, above("mean_kv_usage", 0.70, 0.68), above("itl_spread", 2.9, 2.7))),
    CauseRow("kv_cache_bound", "first tokens wait for room, not for their prompts' computation", (
        _PRESSED, _PREEMPTS, above("mean_kv_usage", 0.46, 0.44), below("computing_share", 0.31, 0.33),
        below("itl_load", 2.3, 2.5), below("queue_share", 0.35, 0.40))),
    CauseRow("kv_cache_bound", "of a server that reserves room for a whole answer, and never preempts", (
        _PRESSED, _QUEUE, above("reserved_kv_usage", 0.90, 0.85), unless(above("itl_load", 1.0, 0.95)))),
    CauseRow("batch_limit_bound", "", (
        _PRESSED, _QUEUE, above("plateau", 0.97, 0.96), below("kv_usage_max", 0.90, 0.95), *_ALL_ALIKE,
        unless(above("itl_load", 1.0, 0.95)))),
    CauseRow("batch_limit_bound", "most of the cache is free, and without the limit tokens would keep the objective", (
        _PRESSED, _QUEUE, _ONE_LOAD, below("kv_usage", 0.25, 0.30), below("free_itl", 0.70, 0.75))),
    CauseRow("batch_limit_bound", "executions take few of those that wait", (
        above("executions_waiting", 2.0, 1.5), above("queue_time_share", 0.50, 0.40))),
    CauseRow("prefill_bound", "with prompts computed faster, tokens would keep the objective", (
        _PRESSED, *_ALL_ALIKE, below("fast_prefill_itl", 1.12, 1.14), above("prompt_share", 0.21, 0.20),
        above("computing_share", 0.013, 0.010),
        any_of(above("itl_load", 0.69, 0.66), below("computing_share", 0.68, 0.70)), _PROMPTS_TAKE_TIME)),
    CauseRow("prefill_bound", "a step with prompts takes half of the time to a first token, and stalls answers", (
        _PRESSED, *_ALL_ALIKE, above("itl_stall", 0.49, 0.47), above("prefill_load", 0.28, 0.26), _SELDOM_PREEMPTED)),
    CauseRow("prefill_bound", "prompts alone take most of the time to a first token", (
        _PRESSED, *_ALL_ALIKE, above("prefill_load", 0.70, 0.67), above("itl_load", 0.45, 0.42),
        below("backlog", 31, 33))),
    CauseRow("prefill_bound", "prompts take five times what they would alone, and wait with a part of the cache", (
        _PRESSED, *_ALL_ALIKE, above("prompt_wait", 5.2, 5.0), above("prompt_time", 0.19, 0.18),
        above("kv_usage", 0.39, 0.37))),
    CauseRow("decode_bandwidth_bound", "slow steps", (
        _PRESSED, *_ALL_ALIKE, below("backlog", 8.2, 9.0), above("itl_load", 0.81, 0.79),
        any_of(below("lone_itl", 1.10, 1.13), _ONE_LOAD))),
    CauseRow("decode_bandwidth_bound", "each request preempted", (
        _PRESSED, *_ALL_ALIKE, above("preemptions", 1.0, 0.95), above("itl_load", 1.4, 1.3))),
    CauseRow("decode_bandwidth_bound", "each part of a prompt takes a step, which reads all weights and the cache", (
        _PRESSED, *_ALL_ALIKE, above("prompt_share", 0.966, 0.96), above("missed", 0.32, 0.30),
        below("ttft_missed", 0.985, 0.99), below("itl_load", 3.4, 3.6))),
    CauseRow("under_batched", "", (*_serves("half"), below("doubled_step", 1.095, 1.10))),
    CauseRow("head_of_line", "prompts wait for others in computation", (
        _PRESSED, above("prompt_wait", 1.5, 1.4), above("computing_share", 0.66, 0.64), below("itl_load", 0.50, 0.52),
        below("itl_stall", 0.57, 0.60), above("ttft_tail", 1.24, 1.20), _PROMPTS_MEET)),
    CauseRow("head_of_line", "computing takes half of the time to a first token, while answers flow", (
        _PRESSED, above("prefill_load", 0.47, 0.45), above("ttft_missed", 0.20, 0.19), below("itl_load", 1.02, 1.05),
        below("itl_stall", 0.84, 0.86), below("queue_share", 0.75, 0.78), below("kv_usage", 0.96, 0.97),
        below("stalls", 1.18, 1.20))),
    CauseRow("head_of_line", "long prompts wait for the cache", (
        _PRESSED, _PREEMPTS, above("ttft_spread", 10.6, 10.0),
        above("prefill_load", 0.31, 0.29), below("itl_load", 0.55, 0.58), above("prompt_share", 0.64, 0.62))),
    CauseRow("head_of_line", "the cache is full behind a prompt that does not fit, and no step is long", (
        above("pressed", 0.12, 0.09), below("pressed", 0.94, 0.95), above("mean_kv_usage", 0.77, 0.75),
        below("itl_stall", 0.073, 0.076), below("prefill_load", 0.46, 0.48), below("prompt_time", 0.57, 0.60))),
    CauseRow("cold_start", "", (above("started", 1.0, 0.0), above("replicas", 2.0, 1.0),
                                any_of(above("missed", 0.09, 0.07), above("peak_itl", 1.06, 1.03)))),
    CauseRow("imbalance", "", (
        above("pressed", 0.155, 0.14), above("unevenness", 1.50, 1.45), unless(above("started", 1.0, 0.0)))),
    CauseRow("imbalance", "the busiest replica's cache fills", (
        _PRESSED, above("unevenness", 1.32, 1.30), above("kv_usage", 0.77, 0.75), unless(above("started", 1.0, 0.0)))),
    CauseRow("over_provisioned", "", _serves("fewer")),
    # Late first tokens are a queue: of a server that has more than it can do, no load of a lone request is known.
    CauseRow("wrong_gpu", "", (
        _PRESSED, above("lone_itl", 1.10, 1.08), unless(above("ttft_tail", 2.3, 2.1)), unless(_ONE_LOAD))),
    CauseRow("prefix_cache_useless", "", (above("prefix_lookups", 1.0, 0.5), below("prefix_hits", 0.02, 0.03))),
)  # fmt: skip
