"""Power limit: power keeps clocks below those of peers."""

from __future__ import annotations

from gpu_advisor.evaluation.actions import notes, run_command
from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice, percent
from gpu_advisor.evaluation.recommendation import Alternative, Projection

KIND = "power_limit"


def advise(finding: Finding) -> PolicyAdvice:
    clock = finding.mean("clock_of_peers") or finding.mean("clock")
    brake = finding.has_variant("brake")
    limit = finding.mean("limit_of_peers")
    why = (
        "the power supply asserts the power brake"
        if brake
        else f"their power limit is {percent(limit)} of their peers'"
        if limit is not None
        else "their power limit throttles them"
    )
    actions = (
        notes("check power supplies, cables and their load on the BMC: ipmitool sdr type 'Power Supply'")
        if brake
        else (
            run_command("nvidia-smi", "--query-gpu=index,power.limit,power.default_limit", "--format=csv"),
            run_command("nvidia-smi", "-i", "INDEX", "-pl", "DEFAULT_WATTS", note="unless the limit is intended"),
        )
    )
    return PolicyAdvice(
        summary=f"{finding.scope}: {finding.count} run at {percent(clock)} of their peers' clock: {why}",
        actions=actions,
        rejected=(Alternative("raise the limit of all GPUs", "a power cap that all reach at full load is normal"),),
        confidence="high",
        projection=Projection(throughput_ratio=1 / clock if clock else None),
    )
