"""Cooling: thermal throttling lowers clocks."""

from __future__ import annotations

from gpu_advisor.evaluation.actions import notes, run_command
from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice, percent
from gpu_advisor.evaluation.recommendation import Alternative, Projection

KIND = "cooling"


def advise(finding: Finding) -> PolicyAdvice:
    clock = finding.mean("clock_of_peers") or finding.mean("clock")
    whole = len({gpu.index for gpu in finding.gpus}) >= 4
    return PolicyAdvice(
        summary=f"{finding.scope}: {finding.count} thermally throttled {percent(finding.mean('thermal'))} of busy "
        f"time, clocks at {percent(clock)} of normal",
        actions=(
            run_command("nvidia-smi", "-q", "-d", "TEMPERATURE,PERFORMANCE", note="which limit: core or memory"),
            *notes(
                "the whole node is hot: check air intake, fans and room temperature" if whole else
                "one of several GPUs is hot: check its heat sink, dust, and the slot next to it",
                "until that is fixed, lower the power limit slightly: nvidia-smi -i INDEX -pl WATTS",
            ),
        ),
        rejected=(
            Alternative("ignore it", "a GPU at its temperature limit ages faster, and shuts down if it gets hotter"),
            Alternative("more GPUs", "they would run in the same air"),
        ),
        confidence="high",
        projection=Projection(throughput_ratio=1 / clock if clock else None),
    )  # fmt: skip
