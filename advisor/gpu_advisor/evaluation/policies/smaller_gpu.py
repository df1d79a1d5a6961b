"""Smaller GPU: a service that needs only a small part of its GPU."""

from __future__ import annotations

import re

from gpu_advisor.evaluation.actions import notes, run_command
from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice, percent
from gpu_advisor.evaluation.recommendation import Alternative

KIND = "smaller_gpu"

#: Models that can be sliced. https://docs.nvidia.com/datacenter/tesla/mig-user-guide/#supported-gpus
MIG_CAPABLE = re.compile(r"\b(A30|A100|A800|G?H100|G?H200|H20|H800|G?B200|G?B300)\b")


def advise(finding: Finding) -> PolicyAdvice:
    peak = finding.mean("day_peak")
    sliced = all(MIG_CAPABLE.search(gpu.name) for gpu in finding.gpus)
    slice_note = "MIG profiles; choose the smallest with enough memory, as in: -cgi 1g.10gb -C"
    return PolicyAdvice(
        summary=f"{finding.scope}: {finding.count} at most {percent(peak)} busy in any hour of the last day, memory "
        f"{percent(finding.mean('memory_held'))}: {'a MIG slice or ' if sliced else ''}a smaller GPU is enough",
        actions=(
            *([run_command("nvidia-smi", "mig", "-lgip", note=slice_note)] if sliced else ()),
            *notes(
                "a smaller model with enough memory: gpu-advisor cost --list --memory SIZE",
                "or several such services on one GPU (MPS, time slicing)",
            ),
        ),
        rejected=(Alternative("fewer replicas", "a service needs at least one GPU"),),
        direction="down",
        severity="info",
        quotes=("day_peak", "memory_held"),
    )
