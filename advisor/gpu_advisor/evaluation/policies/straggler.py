"""Straggler: one rank of a synchronous job delays all others."""

from __future__ import annotations

from gpu_advisor.evaluation.actions import Action, notes
from gpu_advisor.evaluation.policies.command_names import names_one
from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice, listed_gpus
from gpu_advisor.evaluation.policies.gpu_commands import in_cluster, show_state
from gpu_advisor.evaluation.recommendation import Alternative, Projection

KIND = "straggler"


def advise(finding: Finding) -> PolicyAdvice:
    names = ", ".join(str(gpu.scope) for gpu in listed_gpus(finding.gpus))
    others = len(finding.peers.gpus_of_job(finding.peers.jobs.get(finding.gpus[0].uuid))) - len(finding.gpus)
    excess = max((finding.mean("communication_below_job") or 0.0), 0.0)
    actions: list[Action] = []
    for gpu in listed_gpus(finding.gpus):
        actions += notes(f"on {gpu.node}, GPU {gpu.index}: check clocks, PCIe link, row remapping, Xids")
        actions += show_state(gpu, "health", alone=True)
    hosts = sorted({(finding.facts.cluster_of(gpu), gpu.host) for gpu in finding.gpus})
    actions += notes(
        "no fault found: its share of the work is larger; balance samples across ranks",
        *(
            "otherwise remove it and restart the job elsewhere: "
            f"{' '.join((*in_cluster('kubectl', cluster), 'cordon', host))}"
            for cluster, host in hosts[:8]
            if names_one("host", host) and (not cluster or names_one("cluster", cluster))
        ),
    )
    return PolicyAdvice(
        summary=f"{finding.scope}: {names} slower than the rest; {max(others, 0)} "
        f"{'GPU waits' if others == 1 else 'GPUs wait'} in each step",
        actions=tuple(actions),
        rejected=(
            Alternative("tune communication", "the others wait for this GPU, not for the network"),
            Alternative("more GPUs", "all would wait for the slowest"),
        ),
        confidence="high" if finding.has_variant("waits") or finding.has_variant("clock") else "medium",
        projection=Projection(throughput_ratio=1 / (1 - excess) if 0 < excess < 0.99 else None),
    )
