"""Batch size: kernels are too small to fill the GPU, and memory is free. Calibration decides how large it may be."""

from __future__ import annotations

from gpu_advisor.evaluation.actions import notes, run_command
from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice, percent
from gpu_advisor.evaluation.recommendation import Alternative

KIND = "batch_size"


def advise(finding: Finding) -> PolicyAdvice:
    """The direction only: memory does not grow in proportion to the batch, so any size would be a guess."""
    needed, fill = finding.mean("memory_needed"), finding.mean("fill")
    kernels = "leave gaps" if fill is None else f"fill {fill:.0%} of the SMs"
    return PolicyAdvice(
        summary=f"{finding.scope}: increase the batch size: kernels on {finding.count} {kernels}, memory is "
        f"{percent(needed)} used",
        actions=(
            run_command("gpu-advisor", "probe", note="measures memory and throughput by batch size"),
            *notes(
                "if the batch size is fixed: torch.compile(model, mode='reduce-overhead') uses CUDA graphs",
                "or share the GPU between several jobs (MPS, time slicing), or use a MIG slice",
            ),
        ),
        rejected=(
            Alternative("scale the batch by the free memory", "memory does not grow in proportion to the batch"),
            Alternative("more GPUs", "each would have even less work"),
        ),
        confidence="medium" if fill is not None else "low",
        direction="up",
        severity="info",
        quotes=("fill", "memory_needed"),
    )
