"""Memory saving: memory bandwidth or capacity is the limit."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.evaluation.actions import Action, configure_trainer, notes
from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice, percent
from gpu_advisor.evaluation.policies.mixed_precision import UNKNOWN_FORMATS, common_formats
from gpu_advisor.evaluation.recommendation import Alternative

KIND = "memory_saving"

BANDWIDTH_CAUSE = "Memory bandwidth is the limit: kernels wait for memory."
CAPACITY_CAUSE = "Memory capacity is the limit: no room is left for the larger batch that would fill the GPU."

#: Bytes per value, compared with FP32: https://docs.nvidia.com/deeplearning/transformer-engine/user-guide/index.html.
#: TF32 is not among them: its values take 32 bits in memory
#: (https://blogs.nvidia.com/blog/tensorfloat-32-precision-format/).
SHORTER_FORMATS: tuple[tuple[str, tuple[str, ...]], ...] = (("half", ("bf16", "fp16")), ("a quarter of", ("fp8",)))


def advise(finding: Finding) -> PolicyAdvice:
    what, bandwidth = _limit(finding)
    rejected = (
        Alternative(
            "a larger batch", "no memory is left for it" if not bandwidth else "moves as many bytes per sample"
        ),
        Alternative("a faster GPU with the same memory", "would wait for memory just the same"),
    )
    quotes = ("dram_fill", "memory_fill") if bandwidth else ("memory_needed", "sm_activity")
    actions = _less_traffic(finding) if bandwidth else _more_room(finding)
    return PolicyAdvice(
        summary=f"{finding.scope}: {finding.count}: {what}",
        actions=tuple(actions),
        rejected=rejected,
        severity="info",
        cause=BANDWIDTH_CAUSE if bandwidth else CAPACITY_CAUSE,
        quotes=quotes,
    )


def _limit(finding: Finding) -> tuple[str, bool]:
    """What memory limits, and whether that is its bandwidth."""
    if finding.has_variant("bandwidth"):
        used, while_busy = percent(finding.mean("dram")), percent(finding.mean("dram_fill"))
        return f"memory bandwidth {used} used ({while_busy} while kernels run)", True
    if finding.has_variant("memory activity"):
        return f"kernels read or write memory {percent(finding.mean('memory_fill'))} of their time", True
    full = f"GPU memory {percent(finding.mean('memory_needed'))} used"
    for feature, name in (("sm_activity", "SM activity"), ("utilization", "GPU utilization")):
        if (value := finding.mean(feature)) is not None:
            return f"{full}, {name} {percent(value)}", False
    return full, False


def _less_traffic(finding: Finding) -> Iterator[Action]:
    yield configure_trainer(
        str(finding.scope), "fuses element-wise operations: less memory traffic", torch_compile=True
    )
    yield from notes(
        *_shorter_values(finding),
        "attention without the full score matrix: torch.nn.functional.scaled_dot_product_attention",
        "serving: quantize weights and key-value cache (8 bits), and batch more requests",
    )


def _shorter_values(finding: Finding) -> Iterator[str]:
    """The formats of these GPUs that take fewer bytes than FP32."""
    common = common_formats(finding.gpus)
    if not common:
        yield f"half the bytes per value: {UNKNOWN_FORMATS}"
    for share, formats in SHORTER_FORMATS:
        usable = [each for each in formats if each in common]
        if usable:
            yield f"{share} the bytes per value: {' or '.join(usable)}"


def _more_room(finding: Finding) -> Iterator[Action]:
    yield from notes(*(f"activations and gradients: {each}" for each in _shorter_values(finding)))
    recompute = "or torch.utils.checkpoint: about a third more compute"
    yield configure_trainer(str(finding.scope), recompute, gradient_checkpointing=True)
    yield from notes(
        "the same effective batch in less memory: accumulate gradients over several smaller batches",
        "offload optimizer state to the host: DeepSpeed ZeRO with offload_optimizer, ratio = what does not fit;",
        "  12 bytes per parameter (Adam in mixed precision: https://arxiv.org/abs/1910.02054, section 3.1)",
    )
