"""A pool that seems to serve is not sized: its kind and limits are not configured."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.policies import scale_pool
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import Abstention, Reason
from gpu_advisor.settings import Settings

INPUT = "pool_kind"


def recommend(_facts: Facts, _settings: Settings, pool: Pool, /) -> Iterator[Abstention]:
    inferred = pool.inference.pool if pool.inference else None
    if pool.settings.kind == "undecided" and inferred and inferred.kind == "serving":
        message = (
            f"{pool.settings.name} seems to serve ({'; '.join(inferred.evidence)}). To have it sized (a line of "
            "settings): set `kind: serving` and the limits of the pool under `pools`"
        )
        yield Abstention(Reason.UNSUPPORTED, scale_pool.SUBJECT, pool.scope, message, (), scale_pool.KINDS, INPUT)
