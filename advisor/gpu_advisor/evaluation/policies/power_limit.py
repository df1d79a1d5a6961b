"""Power limit: power keeps clocks below those of peers, or of the model."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.evaluation.actions import Action, notes, run_command
from gpu_advisor.evaluation.policies.command_names import names_one
from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice, listed_gpus, more_gpus, percent
from gpu_advisor.evaluation.policies.gpu_commands import show_state
from gpu_advisor.evaluation.policies.throttled_clock import ThrottledClock, throttled_clock
from gpu_advisor.evaluation.recommendation import Alternative, Projection
from gpu_advisor.evaluation.signals import POWER_LIMIT, POWER_LIMIT_DEFAULT, SM_CLOCK, Signal

KIND = "power_limit"

_TO_DRIVERS_DEFAULT = (
    'nvidia-smi -i "$1" -pl "$(nvidia-smi -i "$1" --query-gpu=power.default_limit --format=csv,noheader,nounits)"'
)


def advise(finding: Finding) -> PolicyAdvice:
    brake = finding.has_variant("brake")
    clock = throttled_clock(finding.mean)
    actions = (
        notes("check power supplies, cables and their load on the BMC: ipmitool sdr type 'Power Supply'")
        if brake
        else (
            *show_state(finding.gpus[0], "limits"),
            *_reset_limits(finding),
        )
    )
    why = "the power supply asserts the power brake" if brake else _limit(finding)
    return PolicyAdvice(
        summary=f"{finding.scope}: {finding.count} {_slowness(finding, clock)}: {why}",
        actions=actions,
        rejected=(_rejected(finding),),
        confidence="high",
        quotes=("clock", "limit_of_default", "limit_of_peers"),
        peer_signals=tuple(_compared(finding, clock, brake=brake)),
        projection=Projection(throughput_ratio=1 / clock.ratio if clock and clock.ratio else None),
    )


def _slowness(finding: Finding, clock: ThrottledClock | None) -> str:
    """How low the clocks are, and compared with which."""
    if clock is None:
        return f"{finding.agreeing('is', 'are')} slow"
    their = finding.agreeing("its", "their")
    return f"{finding.agreeing('runs', 'run')} at {percent(clock.ratio)} of {their} {clock.whose} clock"


def _limit(finding: Finding) -> str:
    their = finding.agreeing("its", "their")
    power_limit = f"{their} power limit"
    if finding.has_variant("default"):
        return f"{power_limit} is {percent(finding.mean('limit_of_default'))} of the model's default"
    limit = finding.mean("limit_of_peers")
    if limit is None:
        return f"{power_limit} throttles {finding.agreeing('it', 'them')}"
    return f"{power_limit} is {percent(limit)} of {their} peers'"


def _compared(finding: Finding, clock: ThrottledClock | None, *, brake: bool) -> Iterator[Signal]:
    """What the summary compares with that of peers."""
    if clock is not None and clock.feature == "clock_of_peers":
        yield SM_CLOCK
    if not brake and not finding.has_variant("default") and finding.mean("limit_of_peers") is not None:
        yield POWER_LIMIT


def _rejected(finding: Finding) -> Alternative:
    if finding.has_variant("default"):
        return Alternative("ignore it", "unless the limit is intended, the GPUs have power and cooling for more")
    return Alternative("raise the limit of all GPUs", "a power cap that all reach at full load is normal")


def _reset_limits(finding: Finding) -> Iterator[Action]:
    """To the default, which the driver knows where no metric has it."""
    for gpu in listed_gpus(finding.gpus):
        uuid = finding.facts.uuid_label(gpu.uuid)
        if gpu.vendor == "nvidia" and names_one("gpu", uuid):
            default = finding.facts.value(POWER_LIMIT_DEFAULT, gpu.uuid)
            known = ("nvidia-smi", "-i", uuid, "-pl", f"{default or 0:g}")
            argv = known if default else ("sh", "-c", _TO_DRIVERS_DEFAULT, "sh", uuid)
            yield run_command(*argv, node=gpu.node, note="unless the limit is intended")
    yield from notes(*more_gpus([gpu for gpu in finding.gpus if gpu.vendor == "nvidia"]))
