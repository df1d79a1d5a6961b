"""What a cause costs: the share of a GPU's time that is lost to it, by diagnosis. Pure.

A share follows from the signal that shows the cause. Without that signal, or where the cause has no measure, nothing is
claimed: such a diagnosis is not in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import fsum

from gpu_advisor.evaluation.diagnosis.conditions import Features
from gpu_advisor.evaluation.money import Interval
from gpu_advisor.evaluation.policies.findings import Finding
from gpu_advisor.evaluation.policies.throttled_clock import throttled_clock
from gpu_advisor.evaluation.recommendation import Waste

Share = Callable[[Features], Interval | None]


def _lost_clock(features: Features) -> Interval | None:
    """Work that waits for memory loses less than the clock does."""
    clock = throttled_clock(features.__getitem__)
    busy = features["utilization"]
    return None if clock is None or busy is None else Interval.at_most(_ratio((1 - clock.ratio) * busy))


def _waits(share_of_step: str) -> Share:
    """A wait that the job reports is lost while it makes steps; else all idle time may have this cause."""

    def share(features: Features) -> Interval | None:
        waits, stepping, busy = features[share_of_step], features["stepping"], features["utilization"]
        if waits is not None:
            return Interval.exactly(_ratio(waits * (1.0 if stepping is None else min(1.0, stepping))))
        return None if busy is None else Interval.at_most(_ratio(1 - busy))

    return share


def _communication(features: Features) -> Interval | None:
    """Transfers that overlap with compute cost nothing; NCCL's kernels count as busy, on few SMs: utilization is no
    bound."""
    waits, stepping = features["communication"], features["stepping"]
    if waits is not None:
        return Interval.at_most(_ratio(waits * (1.0 if stepping is None else min(1.0, stepping))))
    active = features["sm_activity"]
    return None if active is None else Interval.at_most(_ratio(1 - active))


def _empty_sms(features: Features) -> Interval | None:
    """Of SMs that no kernel uses, all could work. Without SM activity: the time without a kernel, and more while small
    kernels run."""
    active, busy = features["sm_activity"], features["utilization"]
    if active is not None:
        return Interval.at_most(_ratio(1 - active))
    return None if busy is None else Interval(_ratio(1 - busy))


def _empty_kernels(features: Features) -> Interval | None:
    """A kernel that computes nothing may lose all of its time: utilization is no bound."""
    known = [features[name] for name in ("sm_activity", "utilization")]
    return None if known == [None, None] else Interval.at_most(_ratio(1 - (known[0] or 0.0)))


def _unneeded(features: Features) -> Interval | None:
    """A smaller GPU must still do the busiest hour, and hold the memory."""
    peak, held = features["day_peak"], features["memory_held"]
    return None if peak is None or held is None else Interval.at_most(_ratio(1 - max(peak, held)))


#: The share of each GPU's time that is lost, by diagnosis.
SHARES: Mapping[str, Share] = {
    "throttled_thermal": _lost_clock,
    "throttled_power": _lost_clock,
    "data_bound": _waits("data_wait"),
    "communication_bound": _communication,
    "busy_but_empty": _empty_kernels,
    "small_batch": _empty_sms,
    "wrong_instance_size": _unneeded,
}


def waste_of(finding: Finding) -> tuple[Waste, ...]:
    """Of the GPUs of a finding, the mean share of each model: a model has one price."""
    if finding.diagnosis == "straggler":
        return tuple(_waiting_ranks(finding))
    share = SHARES.get(finding.diagnosis)
    if share is None:
        return ()
    by_model: dict[str, dict[str, Interval]] = {}
    for outcome in finding.outcomes:
        lost = share(outcome.features)
        if lost is not None:
            by_model.setdefault(outcome.gpu.name, {})[outcome.gpu.uuid] = lost
    return tuple(_mean(lost) for lost in by_model.values())


def _mean(lost: Mapping[str, Interval]) -> Waste:
    highs = [each.high for each in lost.values() if each.high is not None]
    high = fsum(highs) / len(lost) if len(highs) == len(lost) else None
    return Waste(tuple(lost), fsum(each.low for each in lost.values()) / len(lost), high)


def _waiting_ranks(finding: Finding) -> Iterator[Waste]:
    """The other ranks of the job wait for the straggler as much longer as it waits less than they do."""
    excess = finding.mean("communication_below_job")
    slow = {gpu.uuid for gpu in finding.gpus}
    job = finding.peers.jobs.get(finding.gpus[0].uuid)
    others = tuple(gpu.uuid for gpu in finding.peers.gpus_of_job(job) if gpu.uuid not in slow)
    if excess is not None and excess > 0 and others:
        yield Waste(others, _ratio(excess), _ratio(excess))


def _ratio(value: float) -> float:
    return min(1.0, max(0.0, value))
