"""Mixed precision: tensor cores are idle while the FP32 pipe is busy."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gpu_advisor.evaluation.actions import configure_trainer, notes
from gpu_advisor.evaluation.facts import Gpu
from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice, percent
from gpu_advisor.evaluation.recommendation import Alternative

KIND = "mixed_precision"

#: Formats that the tensor cores of a generation support, the best first choice first. NVIDIA's own table:
#: https://www.nvidia.com/en-us/data-center/tensor-cores/
TENSOR_CORE_FORMATS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Blackwell", r"\bG?B[123]\d\d\b|RTX (PRO )?(50|6000 Blackwell)", ("bf16", "fp16", "fp8", "tf32")),
    ("Hopper", r"\bG?H(20|100|200|800)\b", ("bf16", "fp16", "fp8", "tf32")),
    ("Ada Lovelace", r"\bL(4|20|40S?)\b|RTX (40\d\d|\d000 Ada)", ("bf16", "fp16", "fp8", "tf32")),
    ("Ampere", r"\bA(2|10G?|16|30|40|100|800)\b|RTX (30\d\d|A\d000)", ("bf16", "fp16", "tf32")),
    ("Turing", r"\bT4\b|RTX (20\d\d|\d000)\b", ("fp16",)),
    ("Volta", r"V100|TITAN V", ("fp16",)),
)

#: Where no format of the GPUs is known.
UNKNOWN_FORMATS = "bf16 or fp16, if the GPU has tensor cores"


def formats_of(name: str) -> tuple[str, ...]:
    """The formats of a GPU model; empty for an unknown one, or one without tensor cores."""
    return next((formats for _, pattern, formats in TENSOR_CORE_FORMATS if re.search(pattern, name)), ())


def common_formats(gpus: Iterable[Gpu]) -> tuple[str, ...]:
    """The formats that all of these GPUs support, the best first choice first."""
    sets = [formats_of(gpu.name) for gpu in gpus]
    return tuple(each for each in sets[0] if all(each in other for other in sets)) if sets else ()


def formats_text(gpus: Iterable[Gpu]) -> str:
    """The formats that all of these GPUs support, as text."""
    return ", ".join(common_formats(gpus)) or UNKNOWN_FORMATS


def advise(finding: Finding) -> PolicyAdvice:
    names, job = formats_of(finding.gpus[0].name), str(finding.scope)
    actions = [configure_trainer(job, "TF32, no other change", tf32=True)] if "tf32" in names else []
    if "bf16" in names:
        actions.append(configure_trainer(job, "no loss scaling needed", bf16=True))
    else:
        actions.append(configure_trainer(job, "with torch.amp.GradScaler", fp16=True))
    if "fp8" in names:
        actions += notes("then, if accuracy allows: FP8 with Transformer Engine")
    return PolicyAdvice(
        summary=f"{finding.scope}: {finding.count} {finding.agreeing('computes', 'compute')} in FP32 "
        f"({percent(finding.mean('fp32_fill'))} of busy time) and {finding.agreeing('leaves', 'leave')} the tensor "
        f"cores idle: use mixed precision ({formats_text(finding.gpus)})",
        actions=tuple(actions),
        rejected=(Alternative("more GPUs", "the tensor cores of these are idle"),),
        severity="info",
        quotes=("fp32_fill",),
    )
