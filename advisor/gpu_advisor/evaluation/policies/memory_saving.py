"""Memory saving: memory bandwidth or capacity is the limit."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.evaluation.actions import Action, configure_trainer, notes
from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice, percent
from gpu_advisor.evaluation.policies.mixed_precision import common_formats
from gpu_advisor.evaluation.recommendation import Alternative

KIND = "memory_saving"


def advise(finding: Finding) -> PolicyAdvice:
    what, bandwidth = _limit(finding)
    rejected = (
        Alternative(
            "a larger batch", "no memory is left for it" if not bandwidth else "moves as many bytes per sample"
        ),
        Alternative("a faster GPU with the same memory", "would wait for memory just the same"),
    )
    actions = _less_traffic(finding) if bandwidth else _more_room(finding)
    return PolicyAdvice(f"{finding.scope}: {finding.count}: {what}", tuple(actions), rejected, severity="info")


def _limit(finding: Finding) -> tuple[str, bool]:
    """What memory limits, and whether that is its bandwidth."""
    if finding.has_variant("bandwidth"):
        return f"memory bandwidth is saturated ({percent(finding.mean('dram_fill'))} while kernels run)", True
    if finding.has_variant("memory activity"):
        return f"kernels read or write memory {percent(finding.mean('memory_fill'))} of their time", True
    full = f"memory is full ({percent(finding.mean('memory_needed'))})"
    if finding.mean("fill") is not None:
        return f"{full} before the SMs are", False
    return f"{full}, and kernels leave gaps", False


def _less_traffic(finding: Finding) -> Iterator[Action]:
    yield configure_trainer(
        str(finding.scope), "fuses element-wise operations: less memory traffic", torch_compile=True
    )
    yield from notes(
        f"half the bytes per value: {common_formats(finding.gpus)}",
        "attention without the full score matrix: torch.nn.functional.scaled_dot_product_attention",
        "serving: quantize weights and key-value cache (8 bits), and batch more requests",
    )


def _more_room(finding: Finding) -> Iterator[Action]:
    yield from notes(f"activations and gradients in half the bytes: {common_formats(finding.gpus)}")
    recompute = "or torch.utils.checkpoint: about a third more compute"
    yield configure_trainer(str(finding.scope), recompute, gradient_checkpointing=True)
    yield from notes(
        "the same effective batch in less memory: accumulate gradients over several smaller batches",
        "offload optimizer state to the host: DeepSpeed ZeRO with offload_optimizer, ratio = what does not fit;",
        "  12 bytes per parameter (Adam in mixed precision: https://arxiv.org/abs/1910.02054, section 3.1)",
    )
