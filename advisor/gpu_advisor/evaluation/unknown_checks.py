"""Checks without enough data: what is missing, and how to fix it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.missing import explain_missing, explain_unknown_interval
from gpu_advisor.evaluation.recommendation import FLEET, Abstention, Check, CheckStatus, Reason, Scope
from gpu_advisor.evaluation.signals import IDLE_UTILIZATION, MEMORY_USED, UTILIZATION, UTILIZATION_COVERAGE, Signal


def explain_unknown_gpus(facts: Facts, signal: Signal, gpus: Sequence[Gpu]) -> Abstention:
    """The reason of the first, with the number of those that share it."""
    first = gpus[0]
    count = 1 if first.up else sum(_outage(facts, gpu) == _outage(facts, first) for gpu in gpus)
    return explain_unknown(facts, signal, first, first.scope, f"{count} GPUs" if count > 1 else "")


def _outage(facts: Facts, gpu: Gpu) -> tuple[bool | None, str | None, str, bool]:
    """What the explanation of a GPU that is down or does not report follows from."""
    return gpu.up, facts.down_reasons.get(gpu.uuid), gpu.exporter, gpu.uuid in facts.unresolved


def explain_unknown(facts: Facts, signal: Signal, gpu: Gpu, scope: Scope, several: str = "") -> Abstention:
    coverage = facts.value(UTILIZATION_COVERAGE, gpu.uuid)
    if gpu.up and coverage is None and facts.value(UTILIZATION, gpu.uuid) is not None and signal is UTILIZATION:
        return Abstention(Reason.INSUFFICIENT_HISTORY, signal.name, scope, explain_unknown_interval(facts))
    if gpu.up and signal is UTILIZATION and _has_few_scrapes(facts, gpu):
        message = (
            f"fewer than two scrapes in the window of {facts.evaluation.window_seconds} s: scrape more often, or raise "
            "evaluation.window_seconds"
        )
        return Abstention(Reason.INSUFFICIENT_HISTORY, signal.name, scope, message)
    if gpu.up and coverage is not None and coverage < facts.evaluation.min_coverage_ratio:
        message = (
            f"{coverage:.0%} of the last {facts.evaluation.window_seconds} s has data, "
            f"{facts.evaluation.min_coverage_ratio:.0%} is needed: wait"
        )
        return Abstention(Reason.INSUFFICIENT_HISTORY, signal.name, scope, message)
    used = facts.value(MEMORY_USED, gpu.uuid) if signal is MEMORY_USED else None
    if used is not None:
        message = (
            f"{used:.0%} is allocated, perhaps preallocated by a framework: to show what it needs, a job must report "
            "training_peak_memory_bytes"
        )
        return Abstention(Reason.UNSUPPORTED, signal.name, scope, message)
    return explain_missing(facts, signal, scope, gpu, several)


def _has_few_scrapes(facts: Facts, gpu: Gpu) -> bool:
    """Whether a counter has a mean over the long window only."""
    known = (facts.value(signal, gpu.uuid) is not None for signal in (UTILIZATION, IDLE_UTILIZATION))
    return tuple(known) == (False, True)


def explain_no_gpus(facts: Facts) -> Abstention:
    """Why the fleet has no GPUs."""
    if facts.down_targets:
        targets = ", ".join(facts.down_targets[:3])
        what = f"target {targets} is" if len(facts.down_targets) == 1 else f"targets {targets} are"
        message = f"{what} down: check that the exporter runs there"
        return Abstention(Reason.NO_DATA, "gpus", FLEET, message)
    if not facts.nodes:
        return Abstention(Reason.NO_DATA, "gpus", FLEET, "no exporter metrics found: is an exporter scraped?")
    by_state: dict[str, list[str]] = {}
    for name, found in sorted(facts.drivers.items()):
        by_state.setdefault(", ".join(sorted(found)), []).append(name)
    states = "; ".join(
        f"driver{'' if len(names) == 1 else 's'} {state}: {', '.join(names)}"
        for state, names in sorted(by_state.items())
    )
    message = "no GPU found on any node" + (f"; {states}" if states else "")
    return Abstention(Reason.UNSUPPORTED, "gpus", FLEET, message)


def unknown_check(item: str, title: str, scope: Scope, why: Abstention) -> Check:
    return Check(
        item, title, scope, CheckStatus.UNKNOWN, "info", None, None, None, reason=why.reason, message=why.message
    )
