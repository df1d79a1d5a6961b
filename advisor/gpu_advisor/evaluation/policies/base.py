"""The interface of a policy: one function."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import Abstention, Recommendation
from gpu_advisor.settings import Settings


class Policy(Protocol):
    """A pure function: no clock, no network, no globals. The live engine and every replay run the same code."""

    def __call__(self, facts: Facts, settings: Settings, pool: Pool, /) -> Iterable[Recommendation | Abstention]: ...
