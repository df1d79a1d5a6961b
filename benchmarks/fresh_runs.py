"""Published tables that were read after the planner was made, beside its figures: python -m benchmarks.fresh_runs

All rows of each table that has settings, whether they agree or not. Settings that a source does not state are its
tool's defaults at the cited commit. LitGPT's rows were looked at when the copies that adapters keep and the late
reduction of gradients were added; the others were compared once, after that, and nothing was changed for them but the
loss of fsdp_qlora (float32 logits).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from gpu_advisor.hardware.gpu_types import GIB
from gpu_advisor.planning.known_models import KNOWN_SHAPES
from gpu_advisor.planning.layout import (
    ADAPTER_CODE,
    OPTIMIZERS,
    AdapterCode,
    Adapters,
    AdapterTargets,
    OptimizerSpec,
    ParallelLayout,
    Quantization,
)
from gpu_advisor.planning.memory_model import OVERHEAD_BYTES, memory
from gpu_advisor.planning.memory_range import memory_range
from gpu_advisor.planning.transformer_shape import TransformerShape

from benchmarks import common

LITGPT = (
    "https://github.com/Lightning-AI/litgpt/blob/03ffc5515b251fb7e3a461efd0e3c163e45b6b3b/config_hub/finetune/README.md"
)
TORCHAO = "https://github.com/pytorch/ao/blob/072500abcfbdec15a429eb53160c63fb92534b85/torchao/optim/README.md"
FSDP_QLORA = (
    "https://github.com/AnswerDotAI/fsdp_qlora/blob/23fafdfb4af403d0808038adafbfd74de265d33a/benchmarks_03_2024.md"
)
TORCHTUNE = "https://github.com/pytorch/torchtune/blob/0217d44c2e1e372b34628767745c1f6538086a81/README.md"
TOLERANCE = 0.10


@dataclass(frozen=True, slots=True)
class FreshRun:
    """`published` in GB, or GiB for `gib`; None: out of memory. `gpu_gib`: memory of the GPU. `comment`: a setting that
    the source does not state, or a figure that is not of allocated memory. `unstated`: options of `memory_range.WAYS`
    that the source leaves open. `counted`: what the figure is of; with `varied` lengths of samples the allocator's
    cache is bounded by the GPU alone."""

    what: str
    source: str
    published: float | None
    shape: TransformerShape
    layout: ParallelLayout
    recipe: OptimizerSpec
    gpu_gib: float = 24.0
    gib: bool = False
    comment: str = ""
    unstated: tuple[str, ...] = ()
    counted: Literal["allocated", "reserved", "shown"] = "allocated"
    varied: bool = False

    @property
    def range(self) -> tuple[float, float]:
        """In the unit of `published`: what the description leaves open."""
        unit = GIB if self.gib else 1e9
        of = memory_range(self.shape, self.layout, self.recipe, 0.0, self.unstated)
        if self.counted == "allocated":
            return of.low / unit, of.high / unit
        high = max(of.shown_high, self.gpu_gib * GIB) if self.varied else of.shown_high
        return of.low / unit, (high + (OVERHEAD_BYTES if self.counted == "shown" else 0)) / unit

    @property
    def in_range(self) -> bool | None:
        """Within a tenth of the range's ends, the plan's tolerance."""
        if self.published is None:
            return None
        low, high = self.range
        return (1 - TOLERANCE) * low <= self.published <= (1 + TOLERANCE) * high

    @property
    def planned(self) -> float:
        return memory(self.shape, self.layout, self.recipe, 0.0).total / (GIB if self.gib else 1e9)

    @property
    def error_ratio(self) -> float | None:
        return None if self.published is None else self.planned / self.published - 1

    @property
    def fit_is_right(self) -> bool:
        """With the overhead and the margin of 10 % that `gpu-advisor plan` has by default."""
        needed = memory(self.shape, self.layout, self.recipe, OVERHEAD_BYTES).total
        return (needed <= 0.9 * self.gpu_gib * GIB) == (self.published is not None)


def _gemma(layers: int, hidden: int, heads: int, kv_heads: int, ffn: int) -> TransformerShape:
    """As LitGPT builds it: with an output layer of its own."""
    return TransformerShape(layers, hidden, heads, kv_heads, ffn, 256000, 512, gated=True, tied=False, biases=False,
                            head_width=256, upcast_norm=True)  # fmt: skip


_BF16 = OPTIMIZERS["adamw-bf16"]
#: What a table leaves open that names its tool: not its library of adapters.
_OPEN = ("loss", "kernels", "lora_dropout", "optimizer_step", "gradient_sync", "fsdp_root")
_PAGED = replace(OPTIMIZERS["sgd-bf16"], in_backward=True)  # the paged states are in host memory


def _lora(
    rank: int, targets: AdapterTargets, quantization: Quantization = "none", code: AdapterCode = ADAPTER_CODE["plain"]
) -> OptimizerSpec:
    return replace(_BF16, adapters=Adapters(rank, targets, quantization, True, code))


#: With the bitsandbytes of 2024, whose products with quantized weights kept their inputs; in float32, which is inferred
#: from what Llama 2 and StableLM take in these tables.
_LITGPT_CODE = replace(ADAPTER_CODE["litgpt"], quantized_input_bytes=4)

#: LitGPT: model, shape, micro-batch, accumulation, rank, targets; memory with LoRA, with QLoRA.
_LITGPT_ADAPTERS: tuple[
    tuple[str, TransformerShape, int, int, tuple[int, int], AdapterTargets, float | None, float], ...
] = (
    ("Falcon 7B", TransformerShape(32, 4544, 71, 1, 18176, 65024, 512, tied=False, biases=False), 1, 8, (32, 32),
     "query-value", 16.69, 9.44),
    ("Gemma 2B", _gemma(18, 2048, 8, 1, 16384), 2, 3, (8, 16), "all", 12.62, 11.58),
    ("Gemma 7B", _gemma(28, 3072, 16, 16, 24576), 1, 6, (16, 16), "all", None, 17.18),
    ("Gemma 2 9B", _gemma(42, 3584, 16, 8, 14336), 1, 6, (16, 16), "all", None, 20.92),
    ("Llama 2 7B", replace(KNOWN_SHAPES["LLaMA-7B"], sequence=512), 2, 4, (32, 32), "query-value", 19.77, 13.68),
    ("Mistral 7B", replace(KNOWN_SHAPES["Llama-3-8B"], sequence=512, vocabulary=32000), 2, 4, (32, 32), "query-value",
     20.66, 14.29),
    ("Phi-2", TransformerShape(32, 2560, 32, 32, 10240, 51200, 512, tied=False), 4, 2, (8, 8), "all", 13.98, 14.27),
    ("Phi-3 mini", TransformerShape(32, 3072, 32, 32, 8192, 32064, 512, gated=True, tied=False, biases=False,
                                    upcast_norm=True), 4, 2, (8, 8), "all", 19.75, 19.13),
    ("StableLM Alpha 3B", TransformerShape(16, 4096, 32, 32, 16384, 50688, 512, tied=False), 1, 8, (32, 32),
     "query-value", 8.58, 5.24),
    ("TinyLlama", TransformerShape(22, 2048, 32, 4, 5632, 32000, 512, gated=True, tied=False, biases=False,
                                   upcast_norm=True), 8, 1, (32, 32), "all", 13.50, 16.24),
)  # fmt: skip

#: LitGPT, all weights: model, GPUs, micro-batch, accumulation, memory.
_LITGPT_FULL = (
    ("Gemma 2B", 4, 1, 4, 17.43), ("Llama 2 7B", 4, 4, 4, None), ("Phi-2", 2, 4, 1, 14.44),
    ("Phi-3 mini", 1, 4, 2, 17.01), ("StableLM Alpha 3B", 2, 1, 4, 21.23), ("TinyLlama", 1, 4, 8, 14.10),
)  # fmt: skip


def _litgpt() -> Iterator[FreshRun]:
    """Alpaca2k, cut to 512 tokens, on A10G; several GPUs: FSDP with checkpointing, gradients reduced last."""

    def run(
        what: str, published: float | None, shape: TransformerShape, micro: int, steps: int, recipe: OptimizerSpec,
        **layout: Any,
    ) -> FreshRun:  # fmt: skip
        of = ParallelLayout(micro_batch=micro, accumulation=steps, loss="chunked", kernels="eager", **layout)
        return FreshRun(f"LitGPT, {what}", LITGPT, published, shape, of, recipe)

    for name, shape, micro, steps, (rank, quantized_rank), targets, lora, qlora in _LITGPT_ADAPTERS:
        yield run(f"{name}, LoRA", lora, shape, micro, steps, _lora(rank, targets, code=_LITGPT_CODE))
        recipe = _lora(quantized_rank, targets, "nf4", _LITGPT_CODE)
        yield run(f"{name}, QLoRA", qlora, shape, micro, steps, recipe)
    llama = replace(KNOWN_SHAPES["Llama-3-8B"], sequence=512)
    yield run("Llama 3 8B, LoRA", 19.73, llama, 1, 8, _lora(32, "query-value", code=_LITGPT_CODE))
    yield run("Llama 3 8B, QLoRA", 17.41, llama, 2, 4, _lora(32, "query-value", "nf4", _LITGPT_CODE))
    sharded = {"zero": 3, "checkpointing": "full", "gradient_sync": "last", "fsdp_root": "whole"}
    yield run("Llama 3 8B, 4 GPUs", None, llama, 4, 4, _BF16, data=4, **sharded)
    shapes = {name: shape for name, shape, *_ in _LITGPT_ADAPTERS}
    for name, gpus, micro, steps, published in _LITGPT_FULL:
        layout = {"data": gpus, **sharded} if gpus > 1 else {}
        full = run(f"{name}, {gpus} GPUs", published, shapes[name], micro, steps, _BF16, **layout)
        impossible = "less than weights, gradients and AdamW's states of its configuration"
        yield replace(full, comment=impossible) if name == "Phi-3 mini" else full


def _torchao() -> Iterator[FreshRun]:
    shape = replace(KNOWN_SHAPES["LLaMA-7B"], sequence=1304)
    layout = ParallelLayout(micro_batch=2, checkpointing="full", kernels="eager")
    for optimizer, published in (("adamw-bf16", 51.6), ("adamw-8bit-bf16", 39.3)):
        yield FreshRun(
            f"torchao, Llama 2 7B, {optimizer}", TORCHAO, published, shape, layout, OPTIMIZERS[optimizer], 80, gib=True,
            comment="batch and length: torchtune's defaults", unstated=_OPEN,
        )  # fmt: skip


#: fsdp_qlora: model, quantized, tokens, batch, sharded, off-loaded, GiB.
_FSDP_QLORA = (
    ("7B", True, 512, 1, True, False, 4.98), ("7B", True, 2048, 1, True, False, 5.21),
    ("7B", False, 512, 1, True, False, 8.28), ("7B", False, 2048, 1, True, False, 9.16),
    ("7B", True, 2048, 4, True, False, 11.22), ("7B", True, 2048, 10, True, False, 20.97),
    ("7B", False, 2048, 4, True, False, 16.14), ("7B", False, 2048, 6, True, False, 21.35),
    ("7B", True, 2048, 8, False, False, 20.94), ("7B", False, 2048, 4, False, False, 22.04),
    ("7B", False, 2048, 10, True, True, 22.69), ("7B", True, 2048, 12, True, True, 22.38),
    ("Yi 34B", True, 2048, 2, True, False, 23.05), ("Yi 34B", True, 2048, 4, True, True, 22.98),
    ("70B", True, 2048, 2, True, True, 14.92), ("Mistral 7B", True, 2048, 12, True, True, 22.54),
    ("Mistral 7B", True, 24576, 1, True, True, 22.54),
)  # fmt: skip
#: The source gives allocated bytes of these two runs, of the others reserved ones: 10.24 and 10.22 of the same two.
_ALLOCATED = (8.28, 9.16)


def _fsdp_qlora() -> Iterator[FreshRun]:
    """Two GPUs of 24 GB, PEFT of March 2024 (adapters of rank 64 in the base's precision), checkpointing."""
    shapes = {
        "7B": KNOWN_SHAPES["LLaMA-7B"], "70B": KNOWN_SHAPES["Llama-2-70B"],
        "Yi 34B": TransformerShape(60, 7168, 56, 8, 20480, 64000, 2048, gated=True, tied=False, biases=False,
                                   upcast_norm=True),
        "Mistral 7B": replace(KNOWN_SHAPES["Llama-3-8B"], vocabulary=32000),
    }  # fmt: skip
    for name, quantized, tokens, batch, sharded, offloaded, published in _FSDP_QLORA:
        layout = ParallelLayout(
            data=2, zero=3 if sharded else 0, micro_batch=batch, checkpointing="full", kernels="eager",
            offload="all" if offloaded else "none", loss="float32", fsdp_root="whole",
        )  # fmt: skip
        how = f"{'FSDP' if sharded else 'DDP'}{', off-loaded' if offloaded else ''}"
        what = f"fsdp_qlora, {name}, {'QLoRA' if quantized else 'LoRA'}, {tokens} tokens, batch {batch}, {how}"
        yield FreshRun(what, FSDP_QLORA, published, replace(shapes[name], sequence=tokens), layout,
                       _lora(64, "all", "nf4-dq" if quantized else "none"), gib=True, unstated=_OPEN,
                       comment="" if published in _ALLOCATED else "reserved, not allocated",
                       counted="allocated" if published in _ALLOCATED else "reserved")  # fmt: skip


def _torchtune() -> Iterator[FreshRun]:
    """Llama 2, batch 4, samples of at most 2048 or 4096 tokens."""
    rows: tuple[tuple[str, str, float, int, float, OptimizerSpec], ...] = (
        ("7B, QLoRA", "LLaMA-7B", 12.3, 1, 24, _lora(8, "all", "nf4-dq")),
        ("7B, LoRA", "LLaMA-7B", 21.3, 1, 24, _lora(8, "query-value")),
        ("7B, LoRA on 2 GPUs", "LLaMA-7B", 16.2, 2, 24, _lora(8, "query-value")),
        ("7B, paged AdamW", "LLaMA-7B", 24.1, 1, 24, _PAGED),
        ("7B on 4 GPUs", "LLaMA-7B", 24.1, 4, 24, _BF16),
        ("70B, LoRA on 8 GPUs", "Llama-2-70B", 26.4, 8, 80, _lora(16, "query-value")),
        ("70B, paged AdamW on 8 GPUs", "Llama-2-70B", 70.4, 8, 80, replace(_PAGED, in_backward=False)),
    )
    for what, model, published, gpus, gib, recipe in rows:
        shape = replace(KNOWN_SHAPES[model], sequence=4096 if "70B" in model else 2048)
        layout = ParallelLayout(data=gpus, zero=3 if gpus > 1 else 0, micro_batch=4, checkpointing="full",
                                kernels="eager")  # fmt: skip
        more = (
            "layers' inputs of 16384 tokens alone take 21 GB" if "70B, LoRA" in what else "lengths of samples unknown"
        )
        yield FreshRun(
            f"torchtune of May 2024, {what}",
            TORCHTUNE,
            published,
            shape,
            layout,
            recipe,
            gib,
            comment=more,
            unstated=_OPEN,
        )


FRESH: tuple[FreshRun, ...] = (*_litgpt(), *_torchao(), *_fsdp_qlora(), *_torchtune())


def row(run: FreshRun) -> list[str]:
    """What, published, ours, difference, range of what is open, comment."""
    low, high = run.range
    return [
        run.what,
        "out of memory" if run.published is None else f"{run.published:g} {'GiB' if run.gib else 'GB'}",
        f"{run.planned:.1f}",
        "" if run.error_ratio is None else f"{run.error_ratio:+.0%}",
        f"{low:.1f} to {high:.1f}" if run.unstated else "",
        ", ".join(each for each in (run.comment, "" if run.fit_is_right else "fit wrong") if each),
    ]


def rows() -> list[list[str]]:
    """`row` of each run."""
    return [row(each) for each in FRESH]


def within_tolerance() -> dict[str, tuple[int, int]]:
    """Runs within 10 %, and all with a figure: of those whose figure is of allocated memory and whose settings are
    stated, and of the rest."""
    found: dict[str, tuple[int, int]] = {}
    for name, runs in (
        ("described", [each for each in FRESH if not each.comment]),
        ("not described", [each for each in FRESH if each.comment]),
    ):
        errors = [each.error_ratio for each in runs if each.error_ratio is not None]
        found[name] = (sum(abs(error) <= TOLERANCE for error in errors), len(errors))
    return found


def main() -> None:
    print(common.table([["what", "published", "ours", "difference", "range", "comment"], *rows()]))
    for name, (within, all_of_them) in within_tolerance().items():
        print(f"{name}: {within} of {all_of_them} within {TOLERANCE:.0%}")
    print(f"fit or no fit right in {sum(each.fit_is_right for each in FRESH)} of {len(FRESH)}")


if __name__ == "__main__":
    main()
