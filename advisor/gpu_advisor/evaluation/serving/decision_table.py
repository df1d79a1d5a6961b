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
    """`kind` is the kind of the recommendation that follows."""

    name: str
    kind: str
    explanation: str


@dataclass(frozen=True, slots=True)
class CauseRow:
    """A cause is found if all conditions of one of its rows hold."""

    cause: str
    variant: str
    conditions: tuple[Condition, ...]


CAUSES: dict[str, ServingCause] = {
    each.name: each
    for each in (
        ServingCause("kv_cache_bound", "serving_kv_cache",
                     "The KV cache is full: sequences are preempted and computed again, and requests wait for room."),
        ServingCause("batch_limit_bound", "serving_batch_limit",
                     "Requests wait while the number running stays at its limit, and the KV cache has room for more."),
        ServingCause("prefill_bound", "serving_prefill",
                     "Computing prompts takes so long that first tokens are late or running answers stall."),
        ServingCause("decode_bandwidth_bound", "serving_decode",
                     "Well batched, and still each token takes as long as its objective allows, or longer: the time to "
                     "read weights and KV cache is the limit."),
        ServingCause("under_batched", "serving_replicas",
                     "Few requests run at a time, and a step would take hardly longer with twice as many: half of the "
                     "replicas serve the same load."),
        ServingCause("head_of_line", "serving_head_of_line",
                     "Long prompts hold up the short ones behind them: most first tokens are early, some very late."),
        ServingCause("cold_start", "serving_cold_start",
                     "A replica began to serve within the window; until then the others had its load."),
        ServingCause("imbalance", "serving_imbalance",
                     "Some replicas have much more to do than others, and miss objectives that all would keep if the "
                     "load were even."),
        ServingCause("over_provisioned", "serving_replicas",
                     "One replica fewer keeps the objectives, with a fifth more load."),
        ServingCause("wrong_gpu", "serving_gpu",
                     "Even a request that is alone misses the objective on this GPU: no setting changes that."),
        ServingCause("prefix_cache_useless", "serving_prefix_cache",
                     "The prefix cache is looked up, and finds almost nothing."),
    )
}  # fmt: skip

KINDS: tuple[str, ...] = tuple(dict.fromkeys(cause.kind for cause in CAUSES.values()))

#: Kinds whose numbers are replicas of a pool.
SIZE_KINDS = ("serving_replicas", "serving_decode")

#: More than a tenth of the requests miss an objective; of a server without objectives: a tenth of its requests waits.
_PRESSED = above("pressed", 0.10, 0.08)
_MET = below("missed", 0.035, 0.05)
_SLOW, _FAST = above("itl_load", 0.74, 0.70), below("itl_load", 0.74, 0.78)
_QUEUE, _FEW_WAIT, _NONE_WAIT = (
    above("queue_share", 0.04, 0.03),
    below("queue_share", 0.10, 0.14),
    below("queue_share", 0.04, 0.05),
)
_MANY_RUN = below("queue_share", 0.84, 0.86)
#: Not where it is the spread of the load over replicas, or one that is missing.
_ALL_ALIKE = (unless(below("even_itl", 0.90, 0.95)), unless(above("started", 1.0, 0.0)))
_SERVES_ONE = unless(above("lone_itl", 1.13, 1.10))
_LATE, _VERY_LATE = above("ttft_tail", 1.06, 1.0), above("ttft_tail", 2.2, 2.0)
_CHUNKED = below("stalls", 1.16, 1.18)
_FULL = above("kv_usage_max", 0.95, 0.92)
#: Replicas go only if the curve predicts loads that it was not fitted to.
_CURVE_HOLDS = below("curve_error", 0.10, 0.15)
_FEWER_SERVE = (
    _MET,
    _CURVE_HOLDS,
    below("fewer_itl", 0.72, 0.76),
    below("fewer_peak_itl", 1.05, 1.15),
    below("fewer_kv", 1.0, 1.04),
)
_HALF_SERVE = (
    _MET,
    _CURVE_HOLDS,
    below("half_itl", 0.72, 0.76),
    below("half_peak_itl", 1.05, 1.15),
    below("half_kv", 1.0, 1.04),
)
_SMALL_BATCH, _LARGE_BATCH = below("doubled_step", 1.095, 1.10), above("doubled_step", 1.10, 1.095)

ROWS: tuple[CauseRow, ...] = (
    CauseRow("kv_cache_bound", "preemptions", (
        _PRESSED, _FULL, above("preemptions", 0.05, 0.04), above("queue_share", 0.02, 0.015),
        unless(above("itl_load", 2.4, 2.3)), below("replicas", 1.0, 2.0))),
    CauseRow("kv_cache_bound", "preemptions of one among several", (
        _PRESSED, _FULL, above("preemptions", 0.05, 0.04), above("queue_share", 0.02, 0.015),
        unless(above("peak_itl", 1.15, 1.1)), above("replicas", 2.0, 1.0))),
    CauseRow("kv_cache_bound", "prompts wait for room", (
        _PRESSED, _FULL, above("queue_share", 0.20, 0.18), above("prompt_share", 0.965, 0.96),
        unless(above("itl_load", 1.4, 1.3)))),
    CauseRow("batch_limit_bound", "", (
        _PRESSED, _QUEUE, above("plateau", 0.97, 0.96), below("kv_usage_max", 0.90, 0.95),
        unless(above("itl_load", 1.0, 0.95)))),
    CauseRow("prefill_bound", "slow steps", (
        _PRESSED, _SLOW, _NONE_WAIT, above("prompt_share", 0.23, 0.21), *_ALL_ALIKE,
        any_of(below("lone_itl", 1.10, 1.13), above("prompt_share", 0.95, 0.94)))),
    CauseRow("prefill_bound", "slow steps and a queue", (
        _PRESSED, _SLOW, _QUEUE, below("queue_share", 0.87, 0.90), *_ALL_ALIKE,
        any_of(below("ttft_tail", 55, 60), above("prompt_share", 0.75, 0.72)))),
    CauseRow("prefill_bound", "late first tokens", (
        _PRESSED, _FAST, _FEW_WAIT, _LATE, *_ALL_ALIKE, any_of(above("stalls", 1.16, 1.14),
                                                              above("itl_stall", 0.47, 0.46)))),
    CauseRow("prefill_bound", "prompts only", (
        _PRESSED, _FAST, above("queue_share", 0.10, 0.08), *_ALL_ALIKE, above("prompt_share", 0.95, 0.94))),
    CauseRow("decode_bandwidth_bound", "", (
        _PRESSED, _SLOW, _NONE_WAIT, *_ALL_ALIKE,
        any_of(below("lone_itl", 1.10, 1.13), above("prompt_share", 0.95, 0.94)))),
    CauseRow("decode_bandwidth_bound", "with a queue", (_PRESSED, _SLOW, _QUEUE, _MANY_RUN, *_ALL_ALIKE)),
    CauseRow("under_batched", "", (*_HALF_SERVE, _SMALL_BATCH)),
    CauseRow("head_of_line", "", (_PRESSED, _FAST, _FEW_WAIT, _LATE, _CHUNKED, below("itl_stall", 0.50, 0.55),
                                  *_ALL_ALIKE)),
    CauseRow("head_of_line", "very late", (_PRESSED, _FAST, _FEW_WAIT, _VERY_LATE, _CHUNKED,
                                           below("itl_stall", 0.80, 0.85), *_ALL_ALIKE)),
    CauseRow("cold_start", "", (above("started", 1.0, 0.0), above("replicas", 2.0, 1.0),
                                any_of(above("missed", 0.05, 0.04), above("peak_itl", 1.0, 0.9)))),
    CauseRow("imbalance", "", (_PRESSED, above("unevenness", 1.6, 1.5), below("even_itl", 0.95, 1.0))),
    CauseRow("over_provisioned", "half of them do not serve", (
        *_FEWER_SERVE, any_of(above("half_itl", 0.76, 0.72), above("half_peak_itl", 1.15, 1.05),
                              above("half_kv", 1.04, 1.0)))),
    CauseRow("over_provisioned", "large batches", (*_FEWER_SERVE, _LARGE_BATCH)),
    CauseRow("wrong_gpu", "", (_PRESSED, above("lone_itl", 1.13, 1.10), below("queue_share", 0.45, 0.55),
                               below("prompt_share", 0.94, 0.95))),
    CauseRow("prefix_cache_useless", "", (above("prefix_lookups", 1.0, 0.5), below("prefix_hits", 0.02, 0.03))),
)  # fmt: skip
