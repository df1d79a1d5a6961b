"""Memory saving: memory is the limit, in bandwidth or in size."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.evaluation.actions import Action, configure_trainer, notes
from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice, percent
from gpu_advisor.evaluation.policies.mixed_precision import common_formats
from gpu_advisor.evaluation.recommendation import Alternative

KIND = "memory_saving"


def advise(finding: Finding) -> PolicyAdvice:
    bandwidth = finding.has_variant("bandwidth")
    what = (
        f"memory bandwidth is used up ({percent(finding.mean('dram_fill'))} while kernels run)"
        if bandwidth
        else f"memory is full ({percent(finding.mean('memory_needed'))}) before the GPU is"
    )
    rejected = (
        Alternative("a larger batch", "there is no room for it" if not bandwidth else "moves as many bytes a sample"),
        Alternative("a faster GPU of the same memory", "would wait for memory as this one does"),
    )
    actions = _less_traffic(finding) if bandwidth else _more_room(finding)
    return PolicyAdvice(f"{finding.scope}: {finding.count}: {what}", tuple(actions), rejected, severity="info")


def _less_traffic(finding: Finding) -> Iterator[Action]:
    yield configure_trainer(
        str(finding.scope), "fuses element-wise operations: less memory traffic", torch_compile=True
    )
    yield from notes(
        f"half the bytes per value: {common_formats(finding.gpus)}",
        "attention that does not write its matrix: torch.nn.functional.scaled_dot_product_attention",
        "serving: quantize weights and key-value cache (8 bits), and batch more requests",
    )


def _more_room(finding: Finding) -> Iterator[Action]:
    yield from notes(f"activations and gradients in half the bytes: {common_formats(finding.gpus)}")
    recompute = "or torch.utils.checkpoint: about a third more compute"
    yield configure_trainer(str(finding.scope), recompute, gradient_checkpointing=True)
    yield from notes(
        "the same effective batch in less memory: accumulate gradients over several smaller batches",
        "optimizer states to the host: DeepSpeed ZeRO with offload_optimizer, ratio by what does not fit;",
        "  12 bytes per parameter (Adam in mixed precision: https://arxiv.org/abs/1910.02054, section 3.1)",
    )
