"""Batch size: kernels too small to fill the GPU, and memory to spare. How large it may be is calibration's to say."""

from __future__ import annotations

from gpu_advisor.evaluation.actions import notes, run_command
from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice, percent
from gpu_advisor.evaluation.recommendation import Alternative

KIND = "batch_size"


def advise(finding: Finding) -> PolicyAdvice:
    """The direction alone: memory does not grow in proportion to the batch, so no size is made up here."""
    needed, fill = finding.mean("memory_needed"), finding.mean("fill")
    filled = "" if fill is None else f" fill {fill:.0%} of the SMs and"
    return PolicyAdvice(
        summary=f"{finding.scope}: a larger batch: kernels of {finding.count}{filled} leave gaps, memory is "
        f"{percent(needed)} used",
        actions=(
            run_command("gpu-advisor", "probe", note="measures memory and throughput by batch size"),
            *notes(
                "if the batch size is fixed: torch.compile(model, mode='reduce-overhead') uses CUDA graphs",
                "or share the GPU: several jobs on it (MPS, time slicing), or a MIG slice",
            ),
        ),
        rejected=(
            Alternative("scale the batch by the memory that is left", "memory and batch are not in proportion"),
            Alternative("more GPUs", "each would have still less to do"),
        ),
        confidence="medium" if fill is not None else "low",
        direction="up",
        severity="info",
    )
