"""Profiling: utilization is high, but the GPU computes almost nothing."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.evaluation.actions import Action, notes, run_command
from gpu_advisor.evaluation.facts import Gpu
from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice, percent
from gpu_advisor.evaluation.policies.gpu_commands import dump_stacks
from gpu_advisor.evaluation.recommendation import Alternative

KIND = "profiling"


def advise(finding: Finding) -> PolicyAdvice:
    hangs, silent = finding.has_variant("collective"), finding.has_variant("silent")
    return PolicyAdvice(
        summary=f"{finding.scope}: {finding.count} {percent(finding.mean('utilization'))} busy, but "
        f"{_emptiness(finding)}: " + ("a collective seems to wait for a lost rank" if hangs else "profile the kernels"),
        actions=tuple(_actions(finding, may_hang=hangs or silent, may_spin=not hangs)),
        rejected=(Alternative("count it as well used", "utilization shows that a kernel runs, not that it computes"),),
        quotes=("sm_activity", "memory_fill", "busy_power_at_most"),
        confidence="medium" if silent or (finding.at_least("sm_activity", 0.03) and not hangs) else "high",
    )


def _emptiness(finding: Finding) -> str:
    activity = finding.mean("sm_activity")
    if activity is not None:
        return f"{percent(activity)} SM activity"
    memory, power = finding.mean("memory_fill"), finding.mean("busy_power_at_most")
    return f"memory active {percent(memory)} of that time, at {percent(power)} of the power limit"


def _actions(finding: Finding, *, may_hang: bool, may_spin: bool) -> Iterator[Action]:
    if may_hang:
        yield from dump_stacks(finding.facts, finding.gpus[0], "so on each rank: which one is not in the collective?")
        hint = "NCCL_DEBUG=INFO and TORCH_NCCL_TRACE_BUFFER_SIZE show which collective hangs; then restart the job"
        yield from notes(f"if it is a collective: {hint}" if may_spin else hint)
    if may_spin:
        yield _kernel_profile(finding.gpus[0])
        yield from notes("common causes: a busy-wait loop on the GPU, or one thread block where thousands would fit")


def _kernel_profile(gpu: Gpu) -> Action:
    """The vendor's profiler on the job's command."""
    if gpu.vendor == "amd":
        return run_command("rocprofv3", "--kernel-trace", "--stats", "--", "COMMAND", note="which kernel runs?")
    nsys = ("nsys", "profile", "--duration", "30", "--gpu-metrics-devices=all", "-o", "trace", "COMMAND")
    return run_command(*nsys, note="which kernel runs, and how large?")
