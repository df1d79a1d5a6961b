"""Published memory, parameters and configurations beside the planner's: python -m benchmarks.published_plans

A row has the figure of its source; GB are 10^9 bytes, GiB 2^30.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from gpu_advisor.hardware.cluster_spec import parse_cluster
from gpu_advisor.hardware.gpu_types import GIB
from gpu_advisor.planning.activation_model import activation_bytes_per_token
from gpu_advisor.planning.known_models import KNOWN_SHAPES
from gpu_advisor.planning.layout import OPTIMIZERS, Adapters, OptimizerSpec, ParallelLayout, Quantization
from gpu_advisor.planning.memory_model import memory, states
from gpu_advisor.planning.transformer_shape import TransformerShape

from benchmarks import common
from benchmarks.published_runs import LITGPT, LITGPT_2023

GB = 1e9
ZERO = "https://arxiv.org/abs/1910.02054"
DEEPSPEED = "https://deepspeed.readthedocs.io/en/latest/memory.html"
RECOMPUTATION = "https://arxiv.org/abs/2205.05198"
MEGATRON = "https://arxiv.org/abs/2104.04473"
HUGGING_FACE = "https://huggingface.co/docs/transformers/model_memory_anatomy"
TOLERANCE = 0.10


@dataclass(frozen=True, slots=True)
class PublishedFigure:
    """A published number and ours of it."""

    what: str
    source: str
    published: float
    unit: str
    ours: Callable[[], float]

    @property
    def error_ratio(self) -> float:
        return self.ours() / self.published - 1


@dataclass(frozen=True, slots=True)
class PublishedRun:
    """A published run, which fits, or what its source says does not."""

    what: str
    source: str
    shape: TransformerShape
    layout: ParallelLayout
    gpu: str
    fits: bool
    recipe: OptimizerSpec = OPTIMIZERS["adamw-mixed-fp32-gradients"]

    @property
    def used_ratio(self) -> float:
        return memory(self.shape, self.layout, self.recipe).total / parse_cluster(self.gpu).memory_bytes


def _zero(stage: int, parameters: float, over: int) -> Callable[[], float]:
    return lambda: sum(states(parameters, ParallelLayout(data=over, zero=stage), OPTIMIZERS["adamw-mixed"])) / GB


#: The DeepSpeed page's example: 2851 million parameters, 32 million in the largest layer, eight GPUs.
_T5_3B, _T5_3B_LAYER = 2851e6, 32e6


def _deepspeed(layout: ParallelLayout) -> Callable[[], float]:
    recipe = OPTIMIZERS["adamw-mixed-fp32-gradients"]
    buffers = 2 * recipe.weights * _T5_3B_LAYER if layout.zero == 3 else 0.0
    return lambda: (sum(states(_T5_3B, layout, recipe)) + buffers) / GIB


def gpt(layers: int, hidden: int, heads: int, vocabulary: int = 51200) -> TransformerShape:
    """A model of the Megatron-LM papers: sequences of 2048 tokens, learnt positions, dropout."""
    return TransformerShape(layers, hidden, heads, heads, 4 * hidden, vocabulary, 2048, positions=2048, dropout=True)


#: Narayanan et al., table 1: billions of parameters, heads, hidden, layers, tensor- and pipeline-parallel size, GPUs.
MEGATRON_RUNS = (
    (1.7, 24, 2304, 24, 1, 1, 32), (3.6, 32, 3072, 30, 2, 1, 64), (7.5, 32, 4096, 36, 4, 1, 128),
    (18.4, 48, 6144, 40, 8, 1, 256), (39.1, 64, 8192, 48, 8, 2, 512), (76.1, 80, 10240, 60, 8, 4, 1024),
    (145.6, 96, 12288, 80, 8, 8, 1536), (310.1, 128, 16384, 96, 8, 16, 1920), (529.6, 128, 20480, 105, 8, 35, 2520),
    (1008.0, 160, 25600, 128, 8, 64, 3072),
)  # fmt: skip

#: Korthikanti et al., table 3: billions of parameters, heads, hidden, layers, pipeline-parallel size, micro-batch.
RECOMPUTATION_RUNS = (
    (22, 64, 6144, 48, 1, 4), (175, 96, 12288, 96, 8, 1), (530, 128, 20480, 105, 35, 1), (1000, 160, 25600, 128, 64, 1),
)  # fmt: skip

_MIXTRAL = replace(
    KNOWN_SHAPES["Llama-3-8B"], vocabulary=32000, experts=8, experts_used=2, assumed="Mixtral-8x7B's config.json"
)
_MISTRAL = replace(KNOWN_SHAPES["Llama-3-8B"], vocabulary=32000)


def _attention_score_share(shape: TransformerShape) -> Callable[[], float]:
    def share() -> float:
        of = activation_bytes_per_token(shape, 2)
        return of.scores / (of.scores + of.divided + of.whole)

    return share


def _billions(shape: TransformerShape) -> Callable[[], float]:
    return lambda: shape.parameters / 1e9


FIGURES: tuple[PublishedFigure, ...] = (
    PublishedFigure("model states, 7.5 B, plain data parallelism", ZERO, 120, "GB", _zero(0, 7.5e9, 64)),
    PublishedFigure("the same, ZeRO-1 over 64 GPUs", ZERO, 31.4, "GB", _zero(1, 7.5e9, 64)),
    PublishedFigure("the same, ZeRO-2", ZERO, 16.6, "GB", _zero(2, 7.5e9, 64)),
    PublishedFigure("the same, ZeRO-3", ZERO, 1.9, "GB", _zero(3, 7.5e9, 64)),
    PublishedFigure("model states, 1 T, ZeRO-3 over 1024 GPUs", ZERO, 15.6, "GB", _zero(3, 1e12, 1024)),
    PublishedFigure("T5-3B on 8 GPUs, ZeRO-3", DEEPSPEED, 6.09, "GiB", _deepspeed(ParallelLayout(data=8, zero=3))),
    PublishedFigure(
        "the same, optimizer off-loaded", DEEPSPEED, 0.79, "GiB",
        _deepspeed(ParallelLayout(data=8, zero=3, offload="optimizer")),
    ),
    PublishedFigure(
        "T5-3B on 8 GPUs, ZeRO-2, optimizer off-loaded", DEEPSPEED, 5.31, "GiB",
        _deepspeed(ParallelLayout(data=8, zero=2, offload="optimizer")),
    ),
    PublishedFigure(
        "bytes a parameter, AdamW in mixed precision", HUGGING_FACE, 18, "bytes",
        lambda: sum(states(1, ParallelLayout(), OPTIMIZERS["adamw-mixed-fp32-gradients"])),
    ),
    PublishedFigure("activations that selective recomputation saves, GPT-3", RECOMPUTATION, 0.70, "ratio",
           _attention_score_share(gpt(96, 12288, 96))),
    PublishedFigure("the same, MT-NLG 530B", RECOMPUTATION, 0.65, "ratio",
           _attention_score_share(gpt(105, 20480, 128))),
    *(
        PublishedFigure(f"parameters, {size:g} B", MEGATRON, size, "10^9", _billions(gpt(layers, hidden, heads)))
        for size, heads, hidden, layers, *_ in MEGATRON_RUNS
    ),
    PublishedFigure("parameters, GPT-2", "https://huggingface.co/openai-community/gpt2", 0.124, "10^9",
           _billions(KNOWN_SHAPES["GPT-2"])),
    PublishedFigure("parameters, Llama-3-8B", "https://huggingface.co/meta-llama/Meta-Llama-3-8B", 8.03, "10^9",
           _billions(KNOWN_SHAPES["Llama-3-8B"])),
    PublishedFigure("parameters, Llama-2-70B", "https://huggingface.co/meta-llama/Llama-2-70b-hf", 69.0, "10^9",
           _billions(KNOWN_SHAPES["Llama-2-70B"])),
    PublishedFigure("parameters, Mistral-7B", "https://huggingface.co/mistralai/Mistral-7B-v0.1", 7.24, "10^9",
           _billions(_MISTRAL)),
    PublishedFigure("parameters, Mixtral-8x7B", "https://huggingface.co/mistralai/Mixtral-8x7B-v0.1", 46.7, "10^9",
           _billions(_MIXTRAL)),
)  # fmt: skip

#: LLM Foundry: layers, hidden, heads; GPU, GPUs, sequence, micro-batch, accumulation, checkpointing, stage.
_MPT = {"125m": (12, 768, 12), "350m": (24, 1024, 16), "760m": (24, 1536, 12), "1b": (24, 2048, 16),
        "3b": (32, 2560, 20), "7b": (32, 4096, 32), "13b": (40, 5120, 40), "30b": (48, 7168, 56),
        "70b": (80, 8192, 64)}  # fmt: skip
_LLM_FOUNDRY_RUNS = (
    ("70b", "H100", 512, 2048, 8, 1, True, 3), ("70b", "H100", 64, 2048, 8, 4, True, 3),
    ("70b", "H100", 32, 2048, 2, 16, True, 3), ("30b", "H100", 8, 8192, 1, 21, True, 3),
    ("30b", "H100", 8, 2048, 3, 21, True, 3), ("30b", "H100", 32, 2048, 14, 3, True, 3),
    ("13b", "H100", 8, 32768, 1, 3, True, 3), ("13b", "H100", 8, 4096, 10, 3, True, 3),
    ("13b", "H100", 64, 2048, 2, 1, False, 3), ("13b", "H100", 8, 2048, 2, 1, False, 3),
    ("13b", "H100", 8, 1024, 40, 3, True, 3), ("7b", "H100", 8, 65536, 1, 2, True, 3),
    ("7b", "H100", 8, 8192, 8, 2, True, 3), ("7b", "H100", 8, 2048, 6, 1, False, 3),
    ("7b", "H100", 8, 1024, 64, 2, True, 3), ("3b", "H100", 8, 65536, 1, 2, True, 3),
    ("3b", "H100", 8, 16384, 1, 6, False, 3), ("3b", "H100", 8, 2048, 10, 6, False, 3),
    ("3b", "H100", 128, 2048, 8, 1, False, 2), ("1b", "H100", 8, 32768, 1, 4, False, 3),
    ("1b", "H100", 8, 2048, 14, 1, False, 3), ("1b", "H100", 128, 2048, 12, 1, False, 2),
    ("760m", "H100", 8, 16384, 3, 2, False, 3), ("760m", "H100", 8, 2048, 24, 2, False, 3),
    ("30b", "A100-80GB", 8, 2048, 3, 21, True, 3), ("13b", "A100-80GB", 8, 2048, 2, 3, False, 3),
    ("7b", "A100-80GB", 8, 2048, 6, 2, False, 3), ("3b", "A100-80GB", 8, 8192, 3, 6, False, 3),
    ("350m", "A100-80GB", 8, 2048, 32, 2, False, 3), ("125m", "A100-80GB", 8, 2048, 32, 2, False, 3),
)  # fmt: skip
LLM_FOUNDRY = "https://github.com/mosaicml/llm-foundry/blob/main/scripts/train/benchmarking/README.md"


def _llm_foundry_runs() -> Iterator[PublishedRun]:
    """MPT with FSDP in bfloat16, fused cross-entropy; micro-batches were the largest that fit."""
    for size, gpu, gpus, sequence, micro, accumulation, full, zero in _LLM_FOUNDRY_RUNS:
        layers, hidden, heads = _MPT[size]
        shape = TransformerShape(layers, hidden, heads, heads, 4 * hidden, 50368, sequence, biases=False,
                                 positions=sequence)  # fmt: skip
        layout = ParallelLayout(data=gpus, zero=zero, micro_batch=micro, accumulation=accumulation,
                                checkpointing="full" if full else "none", loss="compiled")  # fmt: skip
        what = f"LLM Foundry, MPT {size} on {gpus} GPUs, {sequence} tokens, micro-batch {micro}"
        yield PublishedRun(what, LLM_FOUNDRY, shape, layout, gpu, True, OPTIMIZERS["adamw-mixed"])


_ALPACA_7B, _ALPACA_13B = (replace(KNOWN_SHAPES[name], sequence=1304) for name in ("LLaMA-7B", "LLaMA-13B"))
_FALCON_40B = TransformerShape(60, 8192, 128, 8, 32768, 65024, 1079, biases=False)
_LITGPT_RUNS: tuple[tuple[str, TransformerShape, Quantization, int, bool], ...] = (
    ("Llama 2 7B", _ALPACA_7B, "none", 1, True), ("Llama 2 7B", _ALPACA_7B, "none", 2, True),
    ("Llama 2 7B", _ALPACA_7B, "none", 4, False), ("Llama 2 13B", _ALPACA_13B, "none", 1, True),
    ("Llama 2 13B", _ALPACA_13B, "nf4", 1, True), ("Llama 2 13B", _ALPACA_13B, "none", 2, False),
    ("Llama 2 13B", _ALPACA_13B, "none", 4, False), ("Falcon 40B", _FALCON_40B, "none", 1, False),
    ("Falcon 40B", _FALCON_40B, "nf4", 1, False), ("Falcon 40B", _FALCON_40B, "nf4-dq", 1, False),
)  # fmt: skip

CONFIGURATIONS: tuple[PublishedRun, ...] = (
    *(
        PublishedRun(
            f"{size:g} B on {gpus} GPUs", MEGATRON, gpt(layers, hidden, heads),
            ParallelLayout(tensor, pipeline, gpus // tensor // pipeline, accumulation=64, checkpointing="full",
                   sequence_parallel=False, flash_attention=False),
            "A100-80GB", True,
        )
        for size, heads, hidden, layers, tensor, pipeline, gpus in MEGATRON_RUNS
    ),
    *(
        PublishedRun(
            f"{size} B, sequence parallelism and selective recomputation", RECOMPUTATION, gpt(layers, hidden, heads),
            ParallelLayout(8, pipeline, 1, micro_batch=micro, accumulation=64), "A100-80GB", True,
        )
        for size, heads, hidden, layers, pipeline, micro in RECOMPUTATION_RUNS
    ),
    *(
        PublishedRun(
            f"{size} B, neither of them", RECOMPUTATION, gpt(layers, hidden, heads),
            ParallelLayout(8, pipeline, 1, micro_batch=micro, accumulation=64, sequence_parallel=False,
                           flash_attention=False),
            "A100-80GB", False,
        )
        for size, heads, hidden, layers, pipeline, micro in RECOMPUTATION_RUNS
    ),
    *_llm_foundry_runs(),
    *(
        PublishedRun(
            f"{name}, LoRA, {quantization} base, micro-batch {micro}", LITGPT, shape,
            ParallelLayout(micro_batch=micro, accumulation=128 // micro, loss="chunked", kernels="eager"),
            "A100-40GB", fits,
            replace(OPTIMIZERS["adamw-bf16"], adapters=Adapters(8, "query-value", quantization, True, LITGPT_2023)),
        )
        for name, shape, quantization, micro, fits in _LITGPT_RUNS
    ),
    PublishedRun("1.4 B on one 32 GB GPU, the most with plain data parallelism", ZERO, gpt(24, 2048, 16),
                  ParallelLayout(data=64, checkpointing="full", flash_attention=False), "V100-32GB", True,
                   OPTIMIZERS["adamw-mixed"]),
    PublishedRun("7.5 B there", ZERO, gpt(36, 4096, 32),
                  ParallelLayout(data=64, checkpointing="full", flash_attention=False), "V100-32GB", False,
                   OPTIMIZERS["adamw-mixed"]),
)  # fmt: skip


def rows() -> list[tuple[str, str, str, str, str]]:
    """What, published, ours, difference, source."""
    found = [
        (each.what, f"{each.published:g} {each.unit}", f"{each.ours():.3g}", f"{each.error_ratio:+.1%}", each.source)
        for each in FIGURES
    ]
    return found + [
        (
            each.what, f"{'fits' if each.fits else 'does not fit'} {each.gpu}", f"{each.used_ratio:.0%} of it",
            "agrees" if (each.used_ratio <= 1) == each.fits else "DIFFERS", each.source,
        )
        for each in CONFIGURATIONS
    ]  # fmt: skip


def main() -> None:
    print(common.table([["what", "published", "ours", "difference", "source"], *map(list, rows())]))


if __name__ == "__main__":
    main()
