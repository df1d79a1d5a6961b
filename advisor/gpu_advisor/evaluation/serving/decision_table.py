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
#: A few requests that miss by an inferred spread of latencies prove nothing: many do, or first tokens are late.
_SURELY_MISSED = any_of(above("missed", 0.25, 0.22), above("ttft_missed", 0.10, 0.08), above("itl_missed", 0.40, 0.35))
_QUEUE = above("queue_share", 0.04, 0.03)
#: Not where it is the spread of the load over replicas, or one that is missing.
_ALL_ALIKE = (unless(below("even_itl", 0.90, 0.95)), unless(above("started", 1.0, 0.0)))
#: Prompts computed four times as fast would let tokens keep their objective; they are a visible part of the steps, and
#: of the time to the first token.
_PREFILL_HELPS = (
    below("fast_prefill_itl", 1.08, 1.12),
    above("prompt_share", 0.20, 0.18),
    above("computing_share", 0.030, 0.025),
)

#: First tokens wait for their prompts, not for a place in a batch that stays at its limit.
_NOT_FOR_A_PLACE = any_of(
    below("plateau", 0.96, 0.97), above("itl_load", 0.60, 0.55), above("computing_share", 0.20, 0.18)
)

#: Prompts are late by themselves, stall answers, or take enough of the engine's time to make a queue. First tokens that
#: wait now and then for a cache that is full for a moment are none of that.
_PROMPTS_TAKE_TIME = any_of(
    above("computing_share", 0.40, 0.37), above("itl_missed", 0.10, 0.08), above("prompt_time", 0.17, 0.15),
    above("queue_share", 0.50, 0.45),
)  # fmt: skip

#: A server at its limit shows one load: what a request alone would take is not in its curve.
_ONE_LOAD = above("plateau", 0.98, 0.97)

#: Prompts that take less than a fifth of the engine's time are seldom in each other's way: what waits for one in
#: service grows with that share (https://en.wikipedia.org/wiki/M/G/1_queue).
_PROMPTS_MEET = unless(below("prompt_time", 0.18, 0.20))

#: Sequences are preempted, first tokens wait for it, and steps leave time for more.
_PREEMPTS = (
    _PRESSED,
    above("preemptions", 0.020, 0.015),
    unless(below("ttft_missed", 0.22, 0.25)),
    unless(above("free_itl", 2.7, 2.5)),
    unless(above("prefill_load", 2.2, 2.0)),
    unless(above("itl_load", 2.0, 1.9)),
)

#: A server so far behind that no single change lets it keep up has no cause to be named.
_CAN_KEEP_UP = below("backlog", 19, 21)

#: Replicas go only if the curve predicts loads that it was not fitted to. Of loads far beyond them it is asked only
#: with the computation that little load hides.
_CURVE_HOLDS = below("curve_error", 0.10, 0.15)


def _serves(replicas: str) -> tuple[Condition, ...]:
    """So many replicas, `fewer` or `half`, keep the objectives for 99 % of requests, with a fifth more load."""
    return (
        _MET,
        _CURVE_HOLDS,
        below(f"{replicas}_itl", 0.95, 1.0),
        below(f"{replicas}_peak_itl", 1.05, 1.15),
        unless(above(f"{replicas}_ttft", 1.0, 0.95)),
        below(f"{replicas}_kv", 1.0, 1.05),
        below(f"{replicas}_limit", 0.80, 0.90),
        below(f"{replicas}_beyond", 4.0, 4.2),
        any_of(below(f"{replicas}_beyond", 3.0, 3.2), below(f"{replicas}_computed_itl", 0.95, 1.0)),
    )


ROWS: tuple[CauseRow, ...] = (
    CauseRow("kv_cache_bound", "most of the time", (*_PREEMPTS, above("kv_usage", 0.60, 0.58))),
    # With more room, more sequences would run at such moments, and steps take still longer.
    CauseRow("kv_cache_bound", "at moments in which steps keep the objective", (
        *_PREEMPTS, unless(above("peak_itl", 1.15, 1.10)))),
    CauseRow("kv_cache_bound", "preemptions on the only replica", (
        _PRESSED, above("kv_usage_max", 0.95, 0.92), above("preemptions", 0.060, 0.055),
        above("queue_share", 0.025, 0.020), below("itl_load", 1.9, 2.0), below("replicas", 1.0, 2.0))),
    CauseRow("kv_cache_bound", "of a server that reserves room for a whole answer, and never preempts", (
        _PRESSED, _QUEUE, above("reserved_kv_usage", 0.90, 0.85), unless(above("itl_load", 1.0, 0.95)))),
    CauseRow("batch_limit_bound", "", (
        _PRESSED, _QUEUE, above("plateau", 0.97, 0.96), below("kv_usage_max", 0.90, 0.95), *_ALL_ALIKE,
        unless(above("itl_load", 1.0, 0.95)))),
    CauseRow("batch_limit_bound", "executions take few of those that wait", (
        above("executions_waiting", 2.0, 1.5), above("queue_time_share", 0.50, 0.40))),
    CauseRow("prefill_bound", "", (
        _PRESSED, _SURELY_MISSED, *_ALL_ALIKE, *_PREFILL_HELPS, _NOT_FOR_A_PLACE, _PROMPTS_TAKE_TIME,
        any_of(above("itl_load", 0.60, 0.55), below("computing_share", 0.80, 0.82)))),
    CauseRow("prefill_bound", "prompts take long while tokens are late", (
        _PRESSED, *_ALL_ALIKE, above("fast_prefill_itl", 1.05, 1.0), above("prefill_load", 0.30, 0.28), _CAN_KEEP_UP)),
    CauseRow("prefill_bound", "a step with prompts takes half of the time to a first token, and stalls answers", (
        _PRESSED, *_ALL_ALIKE, above("itl_stall", 0.52, 0.50), above("itl_spread", 1.5, 1.4),
        unless(below("prompt_share", 0.18, 0.20)))),
    CauseRow("decode_bandwidth_bound", "slow steps", (
        _PRESSED, *_ALL_ALIKE, below("backlog", 13, 14), above("itl_load", 0.82, 0.79),
        any_of(below("lone_itl", 1.10, 1.13), _ONE_LOAD))),
    CauseRow("decode_bandwidth_bound", "each request preempted", (
        _PRESSED, *_ALL_ALIKE, above("preemptions", 1.4, 1.3), above("itl_load", 1.0, 0.95))),
    CauseRow("under_batched", "", (*_serves("half"), below("doubled_step", 1.095, 1.10))),
    CauseRow("head_of_line", "prompts are in each other's way", (
        _PRESSED, *_ALL_ALIKE, above("longest_prefill", 1.9, 1.7), above("computing_share", 0.81, 0.79),
        below("itl_load", 0.78, 0.82), above("ttft_tail", 1.20, 1.15), _PROMPTS_MEET)),
    CauseRow("head_of_line", "long prompts wait for the cache", (
        _PRESSED, *_ALL_ALIKE, above("ttft_spread", 16, 15), above("mean_kv_usage", 0.41, 0.39),
        below("missed", 0.955, 0.965), _PROMPTS_MEET)),
    CauseRow("head_of_line", "long prompts take half of the cache", (
        _PRESSED, *_ALL_ALIKE, above("prefill_load", 0.40, 0.39), below("itl_missed", 0.08, 0.09),
        above("kv_usage", 0.51, 0.50), below("kv_usage", 0.95, 0.955), _PROMPTS_MEET)),
    CauseRow("cold_start", "", (above("started", 1.0, 0.0), above("replicas", 2.0, 1.0),
                                any_of(above("missed", 0.09, 0.07), above("peak_itl", 1.12, 1.08)))),
    CauseRow("imbalance", "the busiest replica has almost no time left", (
        above("itl_load", 0.88, 0.86), below("even_itl", 0.95, 1.0), unless(above("started", 1.0, 0.0)))),
    CauseRow("imbalance", "requests wait on the busiest replica only", (
        _PRESSED, above("unevenness", 1.55, 1.50), above("waiting", 0.6, 0.5), above("plateau", 0.49, 0.47))),
    CauseRow("over_provisioned", "", _serves("fewer")),
    CauseRow("wrong_gpu", "", (
        _PRESSED, above("lone_itl", 1.13, 1.10), below("queue_share", 0.45, 0.55), below("prompt_share", 0.94, 0.95),
        unless(_ONE_LOAD))),
    CauseRow("prefix_cache_useless", "", (above("prefix_lookups", 1.0, 0.5), below("prefix_hits", 0.02, 0.03))),
)  # fmt: skip
