"""Cooling: thermal throttling lowers clocks."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.evaluation.actions import Action, notes, run_command
from gpu_advisor.evaluation.policies.command_names import names_one
from gpu_advisor.evaluation.policies.findings import MAX_LISTED_GPUS, Finding, PolicyAdvice, more_gpus, percent
from gpu_advisor.evaluation.policies.gpu_commands import show_state
from gpu_advisor.evaluation.policies.throttled_clock import throttled_clock
from gpu_advisor.evaluation.recommendation import Alternative, Projection
from gpu_advisor.evaluation.signals import POWER, POWER_LIMIT, SM_CLOCK, TEMPERATURE

KIND = "cooling"

#: A slightly lower power, of the present draw or limit, until the cooling is repaired.
LOWER_LIMIT_RATIO = 0.9


def advise(finding: Finding) -> PolicyAdvice:
    clock = throttled_clock(finding.mean)
    slow = f", clocks at {percent(clock.ratio)} of {finding.agreeing('its', 'their')} {clock.whose}" if clock else ""
    whole = len({gpu.index for gpu in finding.gpus}) >= 4
    return PolicyAdvice(
        summary=f"{finding.scope}: {finding.count} thermally throttled {percent(finding.mean('thermal'))} of busy "
        f"time{slow}",
        actions=(
            *show_state(finding.gpus[0], "heat", note="which limit: core or memory"),
            *notes(
                "the whole node is hot: check air intake, fans and room temperature" if whole else
                "one of several GPUs is hot: check its heat sink, dust, and the slot next to it",
            ),
            *_lower_limits(finding),
        ),
        rejected=(
            Alternative("ignore it", "a GPU at its temperature limit ages faster, and shuts down if it gets hotter"),
            Alternative("more GPUs", "they would run in the same air"),
        ),
        confidence="high",
        quotes=("thermal", *((clock.feature,) if clock else ())),
        signals=(TEMPERATURE,),
        peer_signals=(SM_CLOCK,) if clock and clock.feature == "clock_of_peers" else (),
        projection=Projection(throughput_ratio=1 / clock.ratio if clock and clock.ratio else None),
    )  # fmt: skip


def _lower_limits(finding: Finding) -> Iterator[Action]:
    """Below the present draw: a limit above it changes nothing. Without the draw, no limit is known to help. The
    driver's minimum is no signal here: it rejects a lower limit itself.
    """
    limits = []
    for gpu in finding.gpus:
        limit, draw = (finding.facts.value(signal, gpu.uuid) for signal in (POWER_LIMIT, POWER))
        if limit is not None and draw is not None and gpu.vendor == "nvidia":
            limits.append((gpu, f"{LOWER_LIMIT_RATIO * min(limit, draw):.0f}"))
    for gpu, lower in limits[:MAX_LISTED_GPUS]:
        uuid = finding.facts.uuid_label(gpu.uuid)
        if names_one("gpu", uuid):
            note = "a power limit below the present draw, until the cooling is repaired"
            yield run_command("nvidia-smi", "-i", uuid, "-pl", lower, node=gpu.node, note=note)
    yield from notes(*more_gpus([gpu for gpu, _ in limits]))
