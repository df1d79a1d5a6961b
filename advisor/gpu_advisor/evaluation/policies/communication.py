"""Communication: steps wait for transfers between GPUs or nodes."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.evaluation.actions import Action, edit_code, notes
from gpu_advisor.evaluation.diagnosis.link_speeds import nvlink_bytes_per_second
from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice
from gpu_advisor.evaluation.policies.gpu_commands import topology_command
from gpu_advisor.evaluation.recommendation import Alternative, Projection

KIND = "communication"


def advise(finding: Finding) -> PolicyAdvice:
    waits = finding.mean("communication")
    verb = finding.agreeing("waits", "wait")
    what = f"{verb} {waits:.0%} of each step for other ranks" if waits is not None else f"{verb} for communication"
    # Fully overlapped with compute, communication costs nothing: the upper bound of the gain.
    max_gain = None if waits is None or waits >= 0.99 else 1 / (1 - waits)
    return PolicyAdvice(
        summary=f"{finding.scope}: {finding.count} {what}",
        actions=tuple(_actions(finding)),
        rejected=(
            Alternative("more GPUs", "more communication, and less compute per GPU"),
            Alternative("fewer GPUs", "only if cost matters more than step time"),
        ),
        quotes=("communication",),
        confidence="high" if waits is not None else "medium",
        projection=Projection(throughput_ratio=max_gain),
    )


def _actions(finding: Finding) -> Iterator[Action]:
    topology = topology_command(finding.gpus[0])
    if len({gpu.node for gpu in finding.gpus}) > 1:
        yield from notes(
            "between nodes: NCCL_DEBUG=INFO logs the network that NCCL uses; it should be NET/IB, not NET/Socket",
            f"a GPU and its NIC should share a PCIe switch: {topology}",
            "keep tensor parallelism within a node; use data parallelism between nodes",
        )
    elif finding.gpus[0].vendor == "nvidia" and nvlink_bytes_per_second(finding.gpus[0].name) is None:
        yield from notes(
            f"these GPUs have no NVLink: {topology} shows the paths between them (SYS is the slowest)",
            "prefer data parallelism to tensor parallelism, which exchanges activations in each layer",
        )
    yield edit_code("DistributedDataParallel(model, gradient_as_bucket_view=True, bucket_cap_mb=100)")
    yield edit_code("with model.no_sync(): ...", "accumulate gradients over several batches, all-reduce once")
    yield from notes(
        "all-reduce in half the bytes: torch.distributed.algorithms.ddp_comm_hooks.default_hooks.bf16_compress_hook"
    )
