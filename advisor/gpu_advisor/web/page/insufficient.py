"""Insufficient data, grouped by reason: one sentence each with its fix; the signals behind it are details. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpu_advisor.evaluation.recommendation import Abstention, Reason
from gpu_advisor.web.page.template_filters import sentence

#: What a reason means, and how to fix it.
_EXPLANATIONS: Mapping[Reason, tuple[str, str]] = {
    Reason.NO_DATA: ("Some signals have no samples.",
                     "Check that an exporter runs on each of these nodes, and that its driver supports them."),
    Reason.STALE: ("Some GPUs stopped reporting.", "Check that their exporters are up and reachable."),
    Reason.INSUFFICIENT_HISTORY: ("The history is still too short.",
                                  "Wait: recommendations follow when a whole window has data."),
    Reason.SATURATED: ("Some pools are saturated: their demand is above what utilization can show.",
                       "Give them a demand signal, such as the queue length (pools.demand)."),
    Reason.CONFLICTING: ("Some values contradict each other.",
                         "Scrape each exporter once, and check the exporters named in the details."),
    Reason.UNSUPPORTED: ("Some inputs are missing: an exporter does not publish them, or a setting is not set.",
                         "The details name each with its fix; gpu-exporter publishes what drivers report."),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MissingData:
    """All abstentions for one reason. `fix` is empty where `sentence` has it already, `details` where that is all."""

    reason: Reason
    sentence: str
    fix: str
    details: tuple[Abstention, ...]


def group_by_reason(abstentions: Sequence[Abstention]) -> list[MissingData]:
    """In order of first appearance. Abstentions that say the same are one sentence, which has its fix."""
    by_reason: dict[Reason, list[Abstention]] = {}
    for each in abstentions:
        by_reason.setdefault(each.reason, []).append(each)
    return [_group(reason, found) for reason, found in by_reason.items()]


def _group(reason: Reason, found: Sequence[Abstention]) -> MissingData:
    messages = {each.message for each in found}
    if len(messages) == 1:
        message = messages.pop()
        return MissingData(reason, sentence(message), "", () if all(map(_concerns_all, found)) else tuple(found))
    explanation, fix = _EXPLANATIONS[reason]
    return MissingData(reason, explanation, fix, tuple(found))


def _concerns_all(each: Abstention) -> bool:
    return each.scope.kind == "fleet"
