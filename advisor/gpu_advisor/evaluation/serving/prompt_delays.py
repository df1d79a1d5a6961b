"""What prompts add to the latencies of the slowest requests, on a replica with more load than it has shown. Pure.

Prompts arrive at random while a request runs, and each delays it; in the meantime more arrive. So a request of w
seconds without prompts takes as long as the busy period of an M/G/1 queue that begins with w seconds of work. With
rate x E[S] the share of the time that prompts take, its mean is w / (1 - share), and its variance
rate x E[S^2] x w / (1 - share)^3: the busier a server is with prompts, the more its requests differ. Their tail is that
of an inverse Gaussian distribution, as that of a walk with drift until it has gone so far.
Sources: https://en.wikipedia.org/wiki/M/G/1_queue#Busy_period (moments by derivatives of the transform),
https://en.wikipedia.org/wiki/Inverse_Gaussian_distribution (first passage; skewness: three times the relative spread).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

#: Standard deviations between the mean and the 99th percentile of a normal distribution.
Z99 = 2.326

#: The shares of requests that are later than the 99th percentile, which is read, and than the 95th, which servers show.
LATE, LATE_P95 = 0.01, 0.05

#: The mean square of a length by the square of its mean: lengths within a factor of two of each other.
LENGTHS = 1.2

#: How closely a load is found: halvings of the range.
HALVINGS = 40


class Curve(Protocol):
    """Seconds between two tokens with so many requests running."""

    @property
    def base(self) -> float: ...

    def itl(self, running: float, prompt_ratio: float) -> float: ...

    def largest(self, itl: float, prompt_ratio: float) -> float: ...


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompt tokens per generated one, mean tokens of a prompt, seconds of each token, and the share of tokens that is
    computed: a prefix cache has the others."""

    ratio: float
    tokens: float
    token_seconds: float
    computed: float = 1.0

    @property
    def lengths(self) -> float:
        """The mean square of a prompt's delay by the square of its mean.

        A shared prefix has one length: what is left to compute differs by as many tokens as whole prompts do.
        """
        return 1 + (LENGTHS - 1) / self.computed**2 if self.computed > 0 else 1.0


def late_itl(curve: Curve, running: float, prompts: Prompts) -> float:
    """The 99th percentile of requests' mean time between tokens (seconds), with so many running on average.

    Beside the prompts, the sequences delay each other: steps vary with their number. Of a short answer, fewer tokens
    average the delays.
    """
    mean = curve.itl(running, prompts.ratio)
    if running <= 0:
        return mean
    delay = running * prompts.ratio * prompts.token_seconds
    if delay >= mean:
        return math.inf
    by_prompts = delay / (mean - delay) * math.sqrt(LENGTHS * prompts.lengths / running)
    beside = max(0.0, mean - curve.base - delay) / mean
    by_sequences = beside * running_spread(curve.base, running, mean) if beside > 0 else 0.0
    spread = math.hypot(by_prompts, by_sequences)
    # By the first terms of Cornish and Fisher, with a skewness of three times the spread:
    # https://en.wikipedia.org/wiki/Cornish%E2%80%93Fisher_expansion
    return mean * (1 + spread * (Z99 + (Z99**2 - 1) / 2 * spread))


def running_spread(base: float, running: float, itl: float) -> float:
    """The standard deviation of requests running, relative to their mean; `base` and `itl` in seconds.

    With steps of one length it is Poisson's. Where each further request lengthens the steps of all, a deviation lasts
    longer: of a birth-death process whose rates are linear around its mean, the variance is the mean x (step / base).
    Source: https://en.wikipedia.org/wiki/Birth%E2%80%93death_process (detailed balance, to the second order).
    """
    stretched = itl / base if base > 0 else math.inf
    return math.sqrt(stretched / running) if running > 0 else math.inf


def running_in_time(curve: Curve, itl: float, prompts: Prompts) -> float:
    """The most requests running on average of which 99 % keep an inter-token latency (seconds)."""
    most = curve.largest(itl, prompts.ratio)
    return most if not math.isfinite(most) else _largest(lambda each: late_itl(curve, each, prompts) <= itl, most)


def wait_quantile(late: float, share: float, prompts: Prompts) -> float:
    """How long (seconds) a prompt waits for others, which take this share of the time, with `late` waiting for longer.

    The tail of an M/G/1 queue's wait: P(wait > t) = share x exp(-t / m), with m = E[S^2] / (2 E[S] (1 - share)).
    Source: https://en.wikipedia.org/wiki/Pollaczek%E2%80%93Khinchine_formula (the mean; the tail as exponential).
    """
    if share >= 1:
        return math.inf
    mean = prompts.tokens * prompts.token_seconds * prompts.lengths / 2 / (1 - share)
    return mean * math.log(share / late) if share > late else 0.0


def share_in_time(objective: float, first_token: float, share: float, prompts: Prompts, most: float) -> float:
    """The share of the time, at most `most`, that prompts may take for 99 % of the first tokens to keep an objective.

    `first_token` is their 95th percentile at the present `share`; times in seconds. In it is the wait at that share.
    """
    alone = max(0.0, first_token - wait_quantile(LATE_P95, share, prompts))
    return _largest(lambda each: alone + wait_quantile(LATE, each, prompts) <= objective, most)


def _largest(fits: Callable[[float], bool], most: float) -> float:
    """The largest number up to `most` that fits, if all smaller ones do."""
    if fits(most):
        return most
    low, high = 0.0, most
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
