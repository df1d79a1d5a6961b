"""Cooling: heat holds clocks down."""

from __future__ import annotations

from gpu_advisor.evaluation.actions import notes, run_command
from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice, percent
from gpu_advisor.evaluation.recommendation import Alternative, Projection

KIND = "cooling"


def advise(finding: Finding) -> PolicyAdvice:
    clock = finding.mean("clock_of_peers") or finding.mean("clock")
    whole = len({gpu.index for gpu in finding.gpus}) >= 4
    return PolicyAdvice(
        summary=f"{finding.scope}: heat holds back {finding.count} for {percent(finding.mean('thermal'))} of their busy time; "
        f"clocks are at {percent(clock)} of what they should be",
        actions=(
            run_command("nvidia-smi", "-q", "-d", "TEMPERATURE,PERFORMANCE", note="which limit, core or memory"),
            *notes(
                "the whole node is hot: check air intake, fans and room temperature" if whole else
                "one of several is hot: check its heat sink, dust, and the slot next to it",
                "until that is fixed, lower the power limit a little: nvidia-smi -i INDEX -pl WATTS",
            ),
        ),
        rejected=(
            Alternative("ignore it", "a GPU at its limit ages faster, and at the next step switches itself off"),
            Alternative("more GPUs", "they would be in the same air"),
        ),
        confidence="high",
        projection=Projection(throughput_ratio=1 / clock if clock else None),
    )  # fmt: skip
