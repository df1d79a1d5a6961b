"""Straggler: one rank of a synchronous job holds up all others."""

from __future__ import annotations

from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice, listed_gpus, sanitize_line
from gpu_advisor.evaluation.recommendation import Alternative, Projection

KIND = "straggler"


def advise(case: Finding) -> PolicyAdvice:
    names = ", ".join(str(gpu.scope) for gpu in listed_gpus(case.gpus))
    others = len(case.peers.gpus_of_job(case.peers.jobs.get(case.gpus[0].uuid))) - len(case.gpus)
    excess = max((case.mean("communication_below_job") or 0.0), 0.0)
    lines = []
    for gpu in listed_gpus(case.gpus):
        node, index = sanitize_line(gpu.node), sanitize_line(gpu.index)
        lines.append(f"# on {node}, GPU {index}: clocks, PCIe link, row remapping, Xids")
        lines.append(f"nvidia-smi -q -i {index} -d CLOCK,PERFORMANCE,ECC,ROW_REMAPPER" if index.isdigit() else
                     "nvidia-smi -q -d CLOCK,PERFORMANCE,ECC,ROW_REMAPPER")  # fmt: skip
    nodes = sorted({sanitize_line(gpu.node) for gpu in case.gpus})
    lines.append("# nothing wrong with it? Then its share of the work is larger: balance samples over the ranks")
    lines += [f"# else take it out and have the job restarted elsewhere: kubectl cordon {node}" for node in nodes[:8]]
    return PolicyAdvice(
        summary=f"{case.scope}: {names} slower than the rest, for which {max(others, 0)} GPUs wait in each step",
        apply=tuple(lines),
        rejected=(
            Alternative("tune the communication", "the others wait for this GPU, not for the network"),
            Alternative("more GPUs", "all of them would wait for the slowest"),
        ),
        confidence="high" if case.has("waits") or case.has("clock") else "medium",
        projection=Projection(throughput_ratio=1 / (1 - excess) if 0 < excess < 0.99 else None),
    )
