"""Published runs with the memory that they took, beside the planner's: python -m benchmarks.published_runs

Each row has the source's figure and settings. The figures count PyTorch's allocated or reserved bytes, which do not
include the driver's context, so the planner's overhead is left out. All of the model follows from the sources that its
modules cite, or from counting the tensors that a library keeps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from gpu_advisor.hardware.gpu_types import GIB
from gpu_advisor.planning.known_models import KNOWN_SHAPES
from gpu_advisor.planning.layout import (
    ADAPTER_CODE,
    OPTIMIZERS,
    Adapters,
    AdapterTargets,
    OptimizerSpec,
    ParallelLayout,
    Quantization,
)
from gpu_advisor.planning.memory_model import memory
from gpu_advisor.planning.transformer_shape import TransformerShape

from benchmarks import common

TORCHTITAN = (
    "https://github.com/pytorch/torchtitan/blob/b5bcd76c66d0acb1a08b176d9639425bc55e0b2a/benchmarks/"
    "llama3_h100_202412_torchtitan.md"
)
TRAINY = TORCHTITAN.rpartition("/")[0] + "/llama3-8b_h200_202506_trainy-whitefiber.md"
TORCHTUNE = "https://github.com/pytorch/torchtune/blob/bd2a0fc7c31430972728494fa01aaeeb0ebf1ba1/README.md"
TORCHTUNE_LORA = TORCHTUNE.replace("README.md", "docs/source/tutorials/lora_finetune.rst")
LITGPT = (
    "https://github.com/Lightning-AI/litgpt/blob/26857050fe3ff627cd714fe92f5838f51a3d5efa/tutorials/resource-tables.md"
)
TOLERANCE = 0.10


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """A published run and its memory in `unit`."""

    what: str
    source: str
    published: float
    unit: str
    shape: TransformerShape
    layout: ParallelLayout
    recipe: OptimizerSpec

    @property
    def planned(self) -> float:
        return memory(self.shape, self.layout, self.recipe, 0.0).total / (GIB if self.unit == "GiB" else 1e9)

    @property
    def error_ratio(self) -> float:
        return self.planned / self.published - 1


def _llama(name: str, sequence: int, **more: Any) -> TransformerShape:
    return replace(KNOWN_SHAPES[name], sequence=sequence, **more)


_L8, _L405 = _llama("Llama-3-8B", 8192), _llama("Llama-3.1-405B", 8192)
_L70 = _llama("Llama-2-70B", 8192, vocabulary=128256)
_L3 = TransformerShape(28, 3072, 24, 8, 8192, 128256, 4096, gated=True, tied=True, biases=False, upcast_norm=True)
_MIXED, _BF16 = OPTIMIZERS["adamw-mixed"], OPTIMIZERS["adamw-bf16"]
_EIGHT_BIT = replace(OPTIMIZERS["adamw-8bit-bf16"], in_backward=True)


def _torchtitan() -> Iterator[MeasuredRun]:
    """FSDP2 (sharded float32 states, bfloat16 compute); selective: torchtitan's selective op checkpointing."""

    def run(what: str, published: float, shape: TransformerShape, **layout: Any) -> MeasuredRun:
        of = ParallelLayout(zero=3, **layout)
        source = TRAINY if "H200" in what else TORCHTITAN
        return MeasuredRun(f"torchtitan, {what}", source, published, "GiB", shape, of, _MIXED)

    for gpus, eager, compiled, fp8 in ((8, 82.4, 77.0, 76.8), (128, 67.0, 62.0, 61.8)):
        common_ = {"data": gpus, "micro_batch": 2, "checkpointing": "selective"}
        yield run(f"8B on {gpus} GPUs", eager, _L8, kernels="eager", **common_)
        yield run(f"8B on {gpus} GPUs, compiled", compiled, _L8, **common_)
        yield run(f"8B on {gpus} GPUs, compiled, float8", fp8, _L8, **common_)
    for nodes, published in ((4, 47.96), (8, 46.97)):
        yield run(f"8B on {8 * nodes} H200, compiled with the loss, float8", published, _L8, data=8 * nodes,
                  micro_batch=2, checkpointing="selective", loss="compiled")  # fmt: skip
    for context, published in ((1, 83.9), (2, 84.2), (4, 84.0), (8, 84.5)):
        shape = replace(_L8, sequence=32768 * context)
        yield run(f"8B, {shape.sequence} tokens, context parallel {context}", published, shape, data=8 // context,
                  context=context, checkpointing="full")  # fmt: skip
    yield run("70B, FSDP 32, tensor parallel 8", 71.9, _L70, tensor=8, data=32, micro_batch=16, checkpointing="full")
    # A step's batch is cut into as many micro-batches as stages.
    yield run("405B, FSDP 8, tensor 8, pipeline 8 (1F1B)", 82.5, _L405, tensor=8, pipeline=8, data=8, micro_batch=4,
              accumulation=8, checkpointing="full")  # fmt: skip
    for context, published in ((1, 75.3), (2, 75.9), (4, 77.1), (8, 84.9)):
        shape = replace(_L405, sequence=32768 * context)
        yield run(f"405B, {shape.sequence} tokens, 4D with context parallel {context}", published, shape, tensor=8,
                  pipeline=8, data=8 // context, context=context, accumulation=8, checkpointing="full")  # fmt: skip


def _torchtune() -> Iterator[MeasuredRun]:
    """Pure bfloat16, batch 2, packed to the full sequence."""

    def run(what: str, published: float, shape: TransformerShape, recipe: OptimizerSpec, **layout: Any) -> MeasuredRun:
        of = ParallelLayout(**{"micro_batch": 2, **layout})
        return MeasuredRun(f"torchtune, {what}", TORCHTUNE, published, "GiB", shape, of, recipe)

    def lora(rank: int = 8, quantization: Quantization = "none") -> OptimizerSpec:
        return replace(_BF16, adapters=Adapters(rank, "all", quantization))

    full = {"checkpointing": "full"}
    in_backward = replace(_BF16, in_backward=True)
    yield run("3B, packed", 60.0, _L3, _BF16, kernels="eager")
    yield run("3B, compiled", 51.0, _L3, _BF16, loss="compiled")
    yield run("3B, chunked loss", 42.9, _L3, _BF16, loss="chunked")
    yield run("3B, checkpointing", 24.9, _L3, _BF16, loss="chunked", **full)
    yield run("3B, optimizer in backward", 23.1, _L3, in_backward, loss="chunked", **full)
    yield run("3B, activations off-loaded", 21.8, _L3, in_backward, loss="chunked", offload_activations=True, **full)
    yield run("3B, 8-bit AdamW", 17.6, _L3, _EIGHT_BIT, loss="chunked", offload_activations=True, **full)
    yield run("3B, LoRA", 8.5, _L3, lora(), loss="chunked", offload_activations=True, **full)
    yield run("3B, QLoRA", 4.6, _L3, lora(quantization="nf4-dq"), loss="chunked", offload_activations=True, **full)
    l8, l70, l405 = (replace(shape, sequence=2048) for shape in (_L8, _L70, _L405))
    paged = replace(OPTIMIZERS["sgd-bf16"], in_backward=True)  # the paged states are in host memory
    yield run("8B, paged optimizer in backward, 24 GB", 18.9, l8, paged, loss="fused", **full)
    yield run("8B, 8-bit optimizer in backward, 48 GB", 37.4, l8, _EIGHT_BIT, loss="fused", **full)
    yield run("8B, LoRA with checkpointing", 16.2, l8, lora(), loss="fused", **full)
    yield run("8B, LoRA without", 30.3, l8, lora(), loss="fused")
    yield run("8B, QLoRA", 7.4, l8, lora(quantization="nf4-dq"), loss="fused", **full)
    yield run("70B on 8 GPUs, off-loaded", 13.9, l70, _BF16, data=8, zero=3, loss="fused", offload="all", **full)
    yield run("70B on 8 GPUs, LoRA", 27.6, l70, lora(16), data=8, zero=3, loss="fused", **full)
    qlora = run("405B on 8 GPUs, QLoRA", 44.8, l405, lora(16, "nf4-dq"), data=8, zero=3, loss="fused", **full)
    yield replace(qlora, unit="GB")


#: LitGPT: the longest sample of Alpaca has 1304 tokens with Llama 2's tokenizer.
_LONGEST_ALPACA = 1304


def _torchtune_lora() -> Iterator[MeasuredRun]:
    shape = _llama("LLaMA-7B", _LONGEST_ALPACA)
    rows: tuple[tuple[AdapterTargets, int, float], ...] = (
        ("query-value", 8, 15.57), ("all", 8, 15.87), ("query-value", 64, 15.86), ("all", 64, 17.04),
    )  # fmt: skip
    for targets, rank, published in rows:
        layout = ParallelLayout(micro_batch=2, accumulation=8, checkpointing="full", kernels="eager")
        recipe = replace(_BF16, adapters=Adapters(rank, targets, dropout=True))
        yield MeasuredRun(f"torchtune, Llama 2 7B, LoRA of rank {rank} on {targets}", TORCHTUNE_LORA, published, "GB",
                          shape, layout, recipe)  # fmt: skip


#: With the bitsandbytes of 2023, whose products with quantized weights kept their inputs (`MatMul4Bit` of
#: https://pypi.org/project/bitsandbytes/0.42.0/).
LITGPT_2023 = replace(ADAPTER_CODE["litgpt"], quantized_input_bytes=2)


def _litgpt() -> Iterator[MeasuredRun]:
    """LoRA of rank 8 on queries and values, bfloat16, the longest sample of Alpaca in the batch."""
    phi = TransformerShape(24, 2048, 32, 32, 8192, 51200, 1044, tied=False)
    stable = TransformerShape(16, 4096, 32, 32, 16384, 50688, 1034, tied=False)
    rows: tuple[tuple[str, TransformerShape, tuple[tuple[Quantization, int, float], ...]], ...] = (
        ("phi-1.5", phi,
         (("none", 1, 4.82), ("nf4", 1, 3.78), ("nf4-dq", 1, 3.72), ("none", 2, 6.76), ("none", 4, 10.68))),
        ("StableLM Alpha 3B", stable,
         (("none", 1, 9.69), ("nf4", 1, 6.35), ("nf4-dq", 1, 6.19), ("none", 2, 12.10), ("none", 4, 16.92))),
        ("Llama 2 7B", _llama("LLaMA-7B", _LONGEST_ALPACA),
         (("none", 1, 21.30), ("nf4", 1, 14.14), ("nf4-dq", 1, 13.84), ("none", 2, 29.07))),
        ("Llama 2 13B", _llama("LLaMA-13B", _LONGEST_ALPACA),
         (("none", 1, 38.12), ("nf4", 1, 23.14), ("nf4-dq", 1, 22.55))),
    )  # fmt: skip
    for name, shape, runs in rows:
        for quantization, micro, published in runs:
            recipe = replace(_BF16, adapters=Adapters(8, "query-value", quantization, True, LITGPT_2023))
            layout = ParallelLayout(micro_batch=micro, accumulation=128 // micro, loss="chunked", kernels="eager")
            what = f"LitGPT, {name}, LoRA, {quantization} base, micro-batch {micro}"
            yield MeasuredRun(what, LITGPT, published, "GB", shape, layout, recipe)


MEASURED: tuple[MeasuredRun, ...] = (*_torchtitan(), *_torchtune(), *_torchtune_lora(), *_litgpt())


def rows() -> list[tuple[str, str, str, str, str]]:
    """What, published, ours, difference, source."""
    return [
        (each.what, f"{each.published:g} {each.unit}", f"{each.planned:.1f}", f"{each.error_ratio:+.0%}", each.source)
        for each in MEASURED
    ]


def within_tolerance() -> float:
    """Share of the runs within 10 %."""
    return sum(abs(each.error_ratio) <= TOLERANCE for each in MEASURED) / len(MEASURED)


def main() -> None:
    print(common.table([["what", "published", "ours", "difference", "source"], *map(list, rows())]))
    print(f"{len(MEASURED)} runs, {within_tolerance():.0%} within {TOLERANCE:.0%}")


if __name__ == "__main__":
    main()
