"""Profiling: utilization is high, but the GPU computes almost nothing."""

from __future__ import annotations

from gpu_advisor.evaluation.actions import notes, run_command
from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice, percent
from gpu_advisor.evaluation.policies.gpu_processes import dump_stacks
from gpu_advisor.evaluation.recommendation import Alternative

KIND = "profiling"


def advise(finding: Finding) -> PolicyAdvice:
    hangs = finding.has_variant("collective")
    if hangs:
        find = (*dump_stacks(finding.facts, finding.gpus[0], "so on each rank: which one is not in the collective?"),)
        hint = "NCCL_DEBUG=INFO and TORCH_NCCL_TRACE_BUFFER_SIZE show which collective hangs; then restart the job"
    else:
        nsys = ("nsys", "profile", "--duration", "30", "--gpu-metrics-devices=all", "-o", "trace", "COMMAND")
        find = (run_command(*nsys, note="which kernel runs, and how large?"),)
        hint = "common causes: a busy-wait loop on the GPU, or one thread block where thousands would fit"
    return PolicyAdvice(
        summary=f"{finding.scope}: {finding.count} {percent(finding.mean('utilization'))} busy, but "
        f"{percent(finding.mean('sm_activity'))} SM activity: "
        + ("a collective seems to wait for a lost rank" if hangs else "profile the kernels"),
        actions=(*find, *notes(hint)),
        rejected=(Alternative("count it as well used", "utilization shows that a kernel runs, not that it computes"),),
        confidence="high" if hangs or not finding.at_least("sm_activity", 0.03) else "medium",
    )
