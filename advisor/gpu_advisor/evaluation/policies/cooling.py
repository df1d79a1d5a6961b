"""Cooling: thermal throttling lowers clocks."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.evaluation.actions import Action, notes, run_command
from gpu_advisor.evaluation.policies.command_names import names_one
from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice, listed_gpus, percent
from gpu_advisor.evaluation.policies.vendor_tools import show_state
from gpu_advisor.evaluation.recommendation import Alternative, Projection
from gpu_advisor.evaluation.signals import POWER_LIMIT

KIND = "cooling"

#: A slightly lower power limit, in terms of the present one, until the cooling is repaired.
LOWER_LIMIT_RATIO = 0.9


def advise(finding: Finding) -> PolicyAdvice:
    clock = finding.mean("clock_of_peers") or finding.mean("clock")
    whole = len({gpu.index for gpu in finding.gpus}) >= 4
    return PolicyAdvice(
        summary=f"{finding.scope}: {finding.count} thermally throttled {percent(finding.mean('thermal'))} of busy "
        f"time, clocks at {percent(clock)} of normal",
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
        projection=Projection(throughput_ratio=1 / clock if clock else None),
    )  # fmt: skip


def _lower_limits(finding: Finding) -> Iterator[Action]:
    for gpu in listed_gpus(finding.gpus):
        limit = finding.facts.value(POWER_LIMIT, gpu.uuid)
        uuid = finding.facts.uuid_label(gpu.uuid)
        if limit is not None and gpu.vendor == "nvidia" and names_one("gpu", uuid):
            lower = f"{LOWER_LIMIT_RATIO * limit:.0f}"
            note = "a lower power limit until that is fixed"
            yield run_command("nvidia-smi", "-i", uuid, "-pl", lower, node=gpu.node, note=note)
