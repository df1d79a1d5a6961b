"""Profiling: a GPU that is busy by its duty cycle and computes next to nothing."""

from __future__ import annotations

from gpu_advisor.evaluation.actions import notes, run_command
from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice, percent
from gpu_advisor.evaluation.recommendation import Alternative

KIND = "profiling"


def advise(finding: Finding) -> PolicyAdvice:
    hangs = finding.has_variant("collective")
    if hangs:
        find = run_command("py-spy", "dump", "--pid", "PID", note="on each rank: which one is not in the collective?")
        hint = "NCCL_DEBUG=INFO and TORCH_NCCL_TRACE_BUFFER_SIZE show which collective hangs; then restart the job"
    else:
        nsys = ("nsys", "profile", "--duration", "30", "--gpu-metrics-devices=all", "-o", "trace", "COMMAND")
        find = run_command(*nsys, note="which kernel runs, and how large?")
        hint = "common: a busy-wait loop on the GPU (spin, polling), or one block where there could be thousands"
    return PolicyAdvice(
        summary=f"{finding.scope}: {finding.count} {percent(finding.mean('utilization'))} busy, but "
        f"{percent(finding.mean('sm_activity'))} of the SMs work: "
        + ("a collective seems to wait for a rank that is gone" if hangs else "look what the kernels do"),
        actions=(find, *notes(hint)),
        rejected=(Alternative("call it well used", "utilization tells that a kernel runs, not that it computes"),),
        confidence="high" if hangs or not finding.at_least("sm_activity", 0.03) else "medium",
    )
