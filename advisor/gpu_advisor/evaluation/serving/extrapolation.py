"""A server's curve beyond the loads that it has shown, on the safe side: for fewer replicas, each with more load. Pure.

A step takes as long as reading the weights until its tokens' computation takes longer (the roofline:
https://arxiv.org/abs/2211.05102, section 2). A server of little load has shown only the first part, where tokens seem
to cost nothing but their KV cache, and a line through it promises many times the load that the GPU can compute. So each
sequence beyond those seen is taken to cost its computation as well, which is that of a token of a prompt. Where that is
unknown, or what a sequence and a token cost was fitted to less than an hour, at most twice the sequences seen are
expected, or as many as any GPU computes while it reads the weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gpu_advisor.evaluation.serving.facts import ServingReplica
from gpu_advisor.evaluation.serving.step_model import StepModel

#: Requests that a server runs at most where it exposes no limit, and has not shown more: the default of vLLM's
#: --max-num-seqs (https://docs.vllm.ai/en/v0.5.0/models/engine_args.html).
DEFAULT_LIMIT = 256.0

#: How many times the requests seen are expected to run where the computation of a token is unknown.
MOST_BEYOND = 2.0

#: Tokens of a step whose computation is hidden by reading the weights on any GPU. An A100 computes 156 in the time of
#: reading weights in BF16, the fewest of data-center GPUs, and a quarter of that with weights in 4 bits.
#: Source: https://www.nvidia.com/en-us/data-center/a100/ (312 TFLOP/s, 2.0 TB/s).
HIDDEN_TOKENS = 39.0

#: By how much fewer requests than a full cache or a limit leaves room for are expected beyond those seen: a little more
#: load is not served at all.
MARGIN = 1.2

#: The history whose loads differ enough to tell apart what sequences and tokens cost (seconds).
LEAST_HISTORY_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class CautiousCurve:
    """A curve with `per_token` seconds more for each sequence beyond those seen (0: unknown), and at most `limit`."""

    curve: StepModel
    per_token: float
    limit: float

    @property
    def base(self) -> float:
        return self.curve.base

    @property
    def per_prompt_token(self) -> float:
        return self.curve.per_prompt_token

    def itl(self, running: float, prompt_ratio: float) -> float:
        return self.curve.itl(running, prompt_ratio) + max(0.0, running - self.curve.seen) * self.per_token

    def tokens_per_second(self, running: float, prompt_ratio: float) -> float:
        return running / self.itl(running, prompt_ratio)

    def largest(self, itl: float, prompt_ratio: float) -> float:
        """The most requests running within an inter-token latency (seconds) and the limit."""
        most, seen = self.curve.largest(itl, prompt_ratio), self.curve.seen
        limit = min(self.limit, seen + max(0.0, self.limit - seen) / MARGIN)
        if most <= seen:
            return min(most, limit)
        if not self.per_token:
            return min(most, max(MOST_BEYOND * seen, HIDDEN_TOKENS / (1 + prompt_ratio)), limit)
        # A root flattens: its slope at the last load seen is the steepest beyond.
        root = self.curve.per_root / (2 * math.sqrt(seen)) if seen > 0 else 0.0
        slope = self.curve.per_sequence + prompt_ratio * self.curve.per_prompt_token + root + self.per_token
        return min(seen + (itl - self.curve.itl(seen, prompt_ratio)) / slope, limit)


def cautious_curve(
    curve: StepModel, replicas: Sequence[ServingReplica], history_seconds: float, cache_room: float = math.inf
) -> CautiousCurve:
    """Of a group's replicas, by a history of so many seconds; the cache has room for `cache_room` requests.

    Tokens found in the prefix cache are counted as prompt tokens, and not computed.
    """
    computed = computed_share(replicas)
    known = computed > 0 and history_seconds >= LEAST_HISTORY_SECONDS
    per_token = prompt_token_seconds(curve, replicas) / computed if known else 0.0
    return CautiousCurve(curve, per_token, min(most_running(replicas), cache_room))


def computed_share(replicas: Sequence[ServingReplica]) -> float:
    """The share of prompt tokens that no prefix cache has; 1 if unknown."""
    looked_up, found = (
        sum(each.value(name) or 0.0 for each in replicas) for name in ("prefix_query_rate", "prefix_hit_rate")
    )
    return 1 - min(1.0, found / looked_up) if looked_up > 0 else 1.0


def prompt_token_seconds(curve: StepModel, replicas: Sequence[ServingReplica]) -> float:
    """Seconds that a prompt token adds to steps, of those found in a cache as well: by the curve, and no more than
    prefills took.

    More prompts are computed where more sequences run, so that a curve may count the time of these as that of prompts.
    """
    took = _prefill_token_seconds(replicas)
    return curve.per_prompt_token if took is None else min(curve.per_prompt_token, took)


def delay_of_prompt_token(curve: StepModel, replicas: Sequence[ServingReplica], prompt: float) -> float:
    """Seconds for which a token of a prompt of so many tokens delays other requests, at most.

    While some replicas are idle, a router sends prompts to these, so that a curve hardly shows what they add to the
    steps of others. But no prompt delays others for longer than its prefill takes, without one step that it shares with
    them: a prompt of more tokens than a step takes has steps of its own, with all that they read.
    """
    added, took = prompt_token_seconds(curve, replicas), _prefill_token_seconds(replicas)
    return added if took is None else max(added, took - curve.base / prompt)


def _prefill_token_seconds(replicas: Sequence[ServingReplica]) -> float | None:
    took = [
        (seconds, tokens)
        for each in replicas
        if (seconds := each.value("prefill_seconds")) and (tokens := each.value("prompt_tokens"))
    ]
    return sum(seconds for seconds, _ in took) / sum(tokens for _, tokens in took) if took else None


def most_running(replicas: Sequence[ServingReplica]) -> float:
    """The requests that a replica runs at a time: what it exposes, else what it has shown or servers are set to."""
    exposed = [value for each in replicas if (value := each.value("max_num_seqs"))]
    shown = max((each.value("running_max") or 0.0 for each in replicas), default=0.0)
    return min(exposed, default=max(DEFAULT_LIMIT, shown))
