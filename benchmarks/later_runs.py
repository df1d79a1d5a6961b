"""Published tables that were read last, beside the planner's figures: python -m benchmarks.later_runs

All rows on one GPU, or sharded, of each table that has settings, except for models whose config was not found; the
dimensions are those of the config. No source states all that decides the memory, and most give what the device shows or
what PyTorch reserved. So the figure is compared with the plan and with the range of what the description leaves open.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from gpu_advisor.planning.known_models import KNOWN_SHAPES
from gpu_advisor.planning.layout import (
    ADAPTER_CODE,
    OPTIMIZERS,
    Adapters,
    AdapterTargets,
    Offload,
    OptimizerSpec,
    ParallelLayout,
    Quantization,
)
from gpu_advisor.planning.model_configs import shape_from_config
from gpu_advisor.planning.transformer_shape import TransformerShape

from benchmarks import common
from benchmarks.fresh_runs import TOLERANCE, FreshRun, row

SWIFT = "https://github.com/modelscope/ms-swift/blob/46922151e06cdfc110882e182757674f12352f2c/docs/source_en/LLM/Benchmark.md"
LLAMA_FACTORY = "https://github.com/hiyouga/LLaMA-Factory/wiki/Performance-comparison"
PEFT = "https://github.com/huggingface/peft/blob/018ca9d6f6dc9e77c7e458af816bd27681f7874d"
LONG_LORA = "https://arxiv.org/abs/2309.12307"

_PEFT = ADAPTER_CODE["peft"]
_STATED_DROPOUT = ("loss", "kernels", "optimizer_step", "gradient_sync")
_OPEN = (*_STATED_DROPOUT, "lora_dropout")


def _llama_like(layers: int, hidden: int, heads: int, kv_heads: int, ffn: int, vocabulary: int) -> TransformerShape:
    return TransformerShape(layers, hidden, heads, kv_heads, ffn, vocabulary, 2048, gated=True, tied=False,
                            biases=False, upcast_norm=True)  # fmt: skip


_QWEN_1_8B = _llama_like(24, 2048, 16, 16, 5504, 151936)
_QWEN_7B = _llama_like(32, 4096, 32, 32, 11008, 151936)
_QWEN_14B = _llama_like(40, 5120, 40, 40, 13696, 152064)

#: ms-swift, LoRA: model, shape, GiB at 512, 1024, 2048, 4096 and 8192 tokens. Those on two GPUs are left out.
_SWIFT_LORA: tuple[tuple[str, TransformerShape, tuple[float, ...]], ...] = (
    ("Qwen 1.8B", _QWEN_1_8B, (6.99, 10.71, 16.35, 23.80, 37.03)),
    ("Qwen 7B", _QWEN_7B, (18.01, 21.73, 27.74, 35.31, 48.41)),
    ("Qwen 14B", _QWEN_14B, (30.14, 34.43, 40.14, 47.95, 60.74)),
    ("ChatGLM3 6B", _llama_like(28, 4096, 32, 2, 13696, 65024), (13.94, 12.99, 17.20, 29.80, 66.82)),
    ("Yi 6B", _llama_like(32, 4096, 32, 4, 11008, 64000), (13.72, 15.44, 16.95, 28.25, 43.81)),
    ("Yi 34B", _llama_like(60, 7168, 56, 8, 20480, 64000), (66.72, 69.10, 71.34, 78.72)),
    ("Baichuan2 7B", _llama_like(32, 4096, 32, 32, 11008, 125696), (18.18, 17.45, 19.18, 34.22, 45.47)),
    ("Baichuan2 13B", _llama_like(40, 5120, 40, 40, 13696, 125696), (31.01, 31.58, 32.40, 49.63, 76.17)),
)
_SWIFT_FULL = (
    ("Qwen 1.8B", _QWEN_1_8B, (18.16, 18.62, 35.11, 31.62, 38.93)), ("Qwen 7B", _QWEN_7B, (73.37, 73.64, 74.26, 78.76)),
)  # fmt: skip
#: PyTorch's own AdamW from 2.0 on, which the Trainer of that time takes.
_FOREACH_BF16 = replace(OPTIMIZERS["adamw-bf16"], step="foreach")
_LENGTHS = (512, 1024, 2048, 4096, 8192)


def _peft(
    rank: int, targets: AdapterTargets = "attention", quantization: Quantization = "none", recipe: str = "adamw-mixed"
) -> OptimizerSpec:
    return replace(OPTIMIZERS[recipe], adapters=Adapters(rank, targets, quantization, code=_PEFT))


def _swift() -> Iterator[FreshRun]:
    """A100, batch 1 of 16, rank 8, samples of 91 to 19548 tokens cut to the length, transformers of 2023."""

    def run(what: str, published: float, shape: TransformerShape, recipe: OptimizerSpec, **more: Any) -> FreshRun:
        of = replace(ParallelLayout(accumulation=16, checkpointing="full", kernels="eager", loss="float32"), **more)
        return FreshRun(f"ms-swift, {what}", SWIFT, published, shape, of, recipe, 80, gib=True, comment="reserved",
                        unstated=_OPEN, counted="reserved", varied=True)  # fmt: skip

    for name, shape, published in _SWIFT_LORA:
        for length, figure in zip(_LENGTHS, published, strict=False):
            yield run(f"{name}, LoRA, {length} tokens", figure, replace(shape, sequence=length), _peft(8))
    for name, shape, published in _SWIFT_FULL:
        for length, figure in zip(_LENGTHS, published, strict=False):
            shape = replace(shape, sequence=length)
            yield run(f"{name}, all weights, {length} tokens", figure, shape, _FOREACH_BF16)
    for batch, figure in ((2, 43.11), (4, 63.81), (8, 76.14)):
        yield run(f"Qwen 7B, LoRA, batch {batch}", figure, _QWEN_7B, _peft(8), micro_batch=batch)
    for flash, checkpointing, figure in ((True, "none", 37.70), (False, "full", 27.71), (False, "none", 57.67)):
        what = f"Qwen 7B, LoRA, {'flash' if flash else 'plain'} attention, checkpointing {checkpointing}"
        yield run(what, figure, _QWEN_7B, _peft(8), flash_attention=flash, checkpointing=checkpointing)
    ranks: tuple[tuple[int, AdapterTargets, float], ...] = (
        (2, "attention", 27.72), (64, "attention", 27.85), (8, "all", 27.87),
    )  # fmt: skip
    for rank, targets, figure in ranks:
        yield run(f"Qwen 7B, LoRA of rank {rank} on {targets}", figure, _QWEN_7B, _peft(rank, targets))
    for name, shape, figure in (("Qwen 7B", _QWEN_7B, 23.85), ("Qwen 14B", _QWEN_14B, 30.05)):
        yield run(f"{name}, QLoRA (nf4)", figure, shape, _peft(8, quantization="nf4"))


def _llama_factory() -> Iterator[FreshRun]:
    """Llama 2 7B on an A100 of 40 GB with FlashAttention, rank 8 on all matrices; double quantization and
    checkpointing are the tool's defaults. In whole GB."""

    def run(
        length: int, published: float | None, quantization: Quantization, batch: int = 1, flash: bool = True
    ) -> FreshRun:
        of = ParallelLayout(micro_batch=batch, accumulation=4 if batch == 1 else 2, checkpointing="full",
                            kernels="eager", loss="float32", flash_attention=flash)  # fmt: skip
        method = "LoRA" if quantization == "none" else "QLoRA"
        what = f"LLaMA-Factory, Llama 2 7B, {method}, {length} tokens, batch {batch}"
        return FreshRun(f"{what}{'' if flash else ', plain attention'}", LLAMA_FACTORY, published,
                        replace(KNOWN_SHAPES["LLaMA-7B"], sequence=length), of, _peft(8, "all", quantization), 40,
                        comment="what is counted is not stated", unstated=_OPEN, counted="shown")  # fmt: skip

    for length, published in ((1024, 6.0), (2048, 7.0), (4096, 9.0), (8192, 12.0), (16384, 19.0), (32768, 32.0),
                              (65536, None), (100000, None)):  # fmt: skip
        yield run(length, published, "nf4-dq")
    yield run(1024, 18.0, "none", 4, flash=False)
    yield run(1024, 17.0, "none", 4)
    yield run(1024, 9.0, "nf4-dq", 4, flash=False)


def _peft_guides() -> Iterator[FreshRun]:
    """Llama 2 70B with PEFT: rank 8 on all matrices with dropout, packed to 2048 tokens, checkpointing."""
    shape = KNOWN_SHAPES["Llama-2-70B"]

    def run(
        what: str, page: str, published: float, gpus: int, batch: int, steps: int, recipe: OptimizerSpec,
        offload: Offload = "none",
    ) -> FreshRun:  # fmt: skip
        of = ParallelLayout(data=gpus, zero=3, micro_batch=batch, accumulation=steps, checkpointing="full",
                            kernels="eager", loss="float32", offload=offload, fsdp_root="whole")  # fmt: skip
        return FreshRun(f"PEFT, Llama 2 70B, {what}", f"{PEFT}/docs/source/accelerate/{page}", published, shape, of,
                        recipe, 80 if gpus > 2 else 40, comment="what the device shows", unstated=_STATED_DROPOUT,
                        counted="shown")  # fmt: skip

    lora = replace(OPTIMIZERS["adamw-mixed"], adapters=Adapters(8, "all", dropout=True, code=_PEFT))
    qlora = replace(OPTIMIZERS["adamw-bf16"], adapters=Adapters(8, "all", "nf4-dq", dropout=True))
    yield run("LoRA, ZeRO-3 on 8 GPUs", "deepspeed.md", 64.0, 8, 8, 4, lora)
    yield run("LoRA, FSDP on 8 GPUs", "fsdp.md", 72.0, 8, 8, 4, lora)
    yield run("QLoRA, ZeRO-3 on 2 GPUs", "deepspeed.md", 36.6, 2, 2, 2, qlora)
    yield run("QLoRA, FSDP on 2 GPUs", "fsdp.md", 35.6, 2, 2, 2, qlora)
    yield run("QLoRA, FSDP on 2 GPUs, off-loaded", "fsdp.md", 19.6, 2, 2, 2, qlora, "all")


def _peft_readme() -> Iterator[FreshRun]:
    """A100; float32 and samples of at most 64 tokens are those of its scripts, the batch of 8, too."""
    t0 = shape_from_config({"model_type": "t5", "d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_layers": 24,
                            "num_heads": 32, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
                            "vocab_size": 32128}, 64)  # fmt: skip
    mt0 = shape_from_config({"model_type": "mt5", "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24,
                             "num_heads": 64, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
                             "vocab_size": 250112}, 64)  # fmt: skip
    bloomz = TransformerShape(30, 4096, 32, 32, 16384, 250880, 64, tied=True)
    full = OPTIMIZERS["adamw-fp32"]
    lora = replace(full, adapters=Adapters(8, "query-value", dropout=True))
    rows = (("T0 3B, all weights", t0, full, 47.14), ("T0 3B, LoRA", t0, lora, 14.4),
            ("mT0 12B, LoRA", mt0, lora, 56.0), ("BLOOMZ 7.1B, LoRA", bloomz, lora, 32.0))  # fmt: skip
    for what, shape, recipe, published in rows:
        of = ParallelLayout(micro_batch=8, kernels="eager", flash_attention=False)
        yield FreshRun(f"PEFT, {what}", f"{PEFT}/README.md", published, shape, of, recipe, 80,
                       comment="lengths of samples unknown", unstated=_OPEN)  # fmt: skip


def _long_lora() -> Iterator[FreshRun]:
    of = ParallelLayout(data=8, zero=2, accumulation=8, checkpointing="full", kernels="eager", loss="float32")
    yield FreshRun("LongLoRA, Llama 2 7B, LoRA, 8192 tokens", LONG_LORA, 25.7,
                   replace(KNOWN_SHAPES["LLaMA-7B"], sequence=8192), of, _peft(8, "attention"), 80,
                   comment="what is counted is not stated", unstated=_OPEN, counted="shown")  # fmt: skip


LATER: tuple[FreshRun, ...] = (*_swift(), *_llama_factory(), *_peft_guides(), *_peft_readme(), *_long_lora())


def rows() -> list[list[str]]:
    """As `fresh_runs.row`."""
    return [row(each) for each in LATER]


def summary(runs: tuple[FreshRun, ...]) -> dict[str, int]:
    """Runs; with a figure; of those within 10 % of the plan, and within the range of what is open; fit right."""
    figures = [each for each in runs if each.error_ratio is not None]
    return {
        "runs": len(runs),
        "figures": len(figures),
        "within_tolerance": sum(abs(each.error_ratio or 0.0) <= TOLERANCE for each in figures),
        "in_range": sum(bool(each.in_range) for each in figures),
        "fit_right": sum(each.fit_is_right for each in runs),
    }


def main() -> None:
    print(common.table([["what", "published", "ours", "difference", "range", "comment"], *rows()]))
    for name, runs in (("all", LATER), ("samples of one length", tuple(each for each in LATER if not each.varied))):
        print(name, summary(runs))


if __name__ == "__main__":
    main()
