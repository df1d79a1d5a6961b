"""Which advice follows from which cause. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from gpu_advisor.evaluation.recommendation import Alternative
from gpu_advisor.evaluation.serving import capacity_advice, settings_advice
from gpu_advisor.evaluation.serving.advice import Advice, ServerOptions
from gpu_advisor.evaluation.serving.diagnosis import GroupDiagnosis

_ADVISERS: Mapping[str, Callable[[GroupDiagnosis, ServerOptions], Advice | None]] = {
    "kv_cache_bound": settings_advice.kv_cache,
    "batch_limit_bound": settings_advice.batch_limit,
    "prefill_bound": settings_advice.prefill,
    "decode_bandwidth_bound": capacity_advice.decode,
    "under_batched": capacity_advice.under_batched,
    "head_of_line": settings_advice.head_of_line,
    "cold_start": capacity_advice.cold_start,
    "imbalance": capacity_advice.imbalance,
    "over_provisioned": capacity_advice.over_provisioned,
    "wrong_gpu": capacity_advice.wrong_gpu,
    "prefix_cache_useless": settings_advice.prefix_cache,
}


def advise(found: GroupDiagnosis, cause: str, options: ServerOptions) -> Advice | None:
    """The advice for a cause; None if a number that it needs is missing."""
    return _ADVISERS[cause](found, options)


def near_misses(found: GroupDiagnosis) -> Iterator[Alternative]:
    for each in found.near_misses:
        yield Alternative(each.cause.title, f"not met: {each.why}")
