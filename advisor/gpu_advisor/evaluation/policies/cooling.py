"""Cooling: heat holds clocks down."""

from __future__ import annotations

from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice, percent
from gpu_advisor.evaluation.recommendation import Alternative, Projection

KIND = "cooling"


def advise(case: Finding) -> PolicyAdvice:
    clock = case.mean("clock_of_peers") or case.mean("clock")
    whole = len({gpu.index for gpu in case.gpus}) >= 4
    return PolicyAdvice(
        summary=f"{case.scope}: heat holds back {case.count} for {percent(case.mean('thermal'))} of their busy time; "
        f"clocks are at {percent(clock)} of what they should be",
        apply=(
            "nvidia-smi -q -d TEMPERATURE,PERFORMANCE  # which limit, core or memory",
            "# the whole node is hot: air intake, fans, the room" if whole else
            "# one of several is hot: its heat sink, dust, the slot next to it",
            "# until that is mended, lower the power a little: nvidia-smi -i INDEX -pl WATTS",
        ),
        rejected=(
            Alternative("ignore it", "a GPU at its limit ages faster, and at the next step switches itself off"),
            Alternative("more GPUs", "they would be in the same air"),
        ),
        confidence="high",
        projection=Projection(throughput_ratio=1 / clock if clock else None),
    )  # fmt: skip
