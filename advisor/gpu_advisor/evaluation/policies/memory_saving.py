"""Memory saving: memory is the limit, in bandwidth or in size."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice, percent
from gpu_advisor.evaluation.policies.mixed_precision import formats
from gpu_advisor.evaluation.recommendation import Alternative

KIND = "memory_saving"


def advise(case: Finding) -> PolicyAdvice:
    bandwidth = case.has("bandwidth")
    what = (
        f"memory bandwidth is used up ({percent(case.mean('dram_fill'))} while kernels run)"
        if bandwidth
        else f"memory is full ({percent(case.mean('memory_needed'))}) before the GPU is"
    )
    rejected = (
        Alternative("a larger batch", "there is no room for it" if not bandwidth else "moves as many bytes a sample"),
        Alternative("a faster GPU of the same memory", "would wait for memory as this one does"),
    )
    apply = _less_traffic(case) if bandwidth else _more_room(case)
    return PolicyAdvice(f"{case.scope}: {case.count}: {what}", tuple(apply), rejected, severity="info")


def _less_traffic(case: Finding) -> Iterator[str]:
    yield "model = torch.compile(model)  # fuses element-wise operations, which read and write less"
    yield f"# half the bytes a value: {formats(case.gpus)}"
    yield "# attention that does not write its matrix: torch.nn.functional.scaled_dot_product_attention"
    yield "# serving: quantize weights and key-value cache (8 bits), and serve more requests a pass"


def _more_room(case: Finding) -> Iterator[str]:
    yield f"# activations and gradients in half the bytes: {formats(case.gpus)}"
    yield "model.gradient_checkpointing_enable()  # or torch.utils.checkpoint: about a third more compute"
    yield "# the effective batch without its memory: accumulate gradients over several smaller ones"
    yield "# optimizer states to the host: DeepSpeed ZeRO with offload_optimizer, ratio by what does not fit;"
    yield "#   12 bytes a parameter go (Adam in mixed precision: https://arxiv.org/abs/1910.02054, section 3.1)"
