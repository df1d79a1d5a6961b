"""Parallel layout of a training job, its memory-saving options, and what an optimizer keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Checkpointing = Literal["none", "selective", "full"]
Offload = Literal["none", "optimizer", "all"]
Loss = Literal["eager", "float32", "compiled", "chunked", "fused"]
Kernels = Literal["eager", "fused"]
Quantization = Literal["none", "int8", "nf4", "nf4-dq"]
AdapterTargets = Literal["query-value", "attention", "all"]
AdapterLibrary = Literal["plain", "peft", "litgpt"]
GradientSync = Literal["each", "last"]
OptimizerStep = Literal["fused", "foreach"]
FsdpRoot = Literal["split", "whole"]

#: Bytes per frozen parameter. NF4: 4 bits and a float32 scale for each block of 64; with double quantization, 8-bit
#: scales in blocks of 256 (Dettmers et al., 2023, section 3, https://arxiv.org/abs/2305.14314).
FROZEN_BYTES: dict[Quantization, float] = {
    "none": 2.0, "int8": 1.0, "nf4": 0.5 + 4 / 64, "nf4-dq": 0.5 + 1 / 64 + 4 / (64 * 256),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class AdapterCode:
    """How a library runs adapters, which decides what it keeps for the backward pass.

    `copies_inputs`: each adapter casts its input, and so keeps a copy of its own. `fused_attention`: queries, keys and
    values are one matrix with one adapter; its product is kept whole, or keys and values repeated for all heads.
    `float32_rest`: beside a quantized base, embeddings, norms and output layer are in float32, and with them the
    residual stream and the feed-forward block between its matrices. `quantizes_output`: the output layer, too, is
    quantized. `quantized_input_bytes`: of each value that products with quantized weights keep of their inputs.
    """

    copies_inputs: bool = False
    fused_attention: bool = False
    float32_rest: bool = False
    quantizes_output: bool = False
    quantized_input_bytes: int = 0


#: plain: adapters in the base's precision, as in torchtune. peft: float32 adapters under autocast (PEFT's
#: autocast_adapter_dtype, transformers' Trainer with bf16=True), and `prepare_model_for_kbit_training`
#: (https://github.com/huggingface/peft/blob/012c0d5a96744096ab28f87cde9bd9918f5367a1/src/peft/utils/other.py).
#: All are what PyTorch keeps, counted tensor by tensor, with PEFT 0.21, LitGPT 0.5 and bitsandbytes 0.50.
ADAPTER_CODE: dict[AdapterLibrary, AdapterCode] = {
    "plain": AdapterCode(),
    "peft": AdapterCode(copies_inputs=True, float32_rest=True),
    "litgpt": AdapterCode(fused_attention=True, quantizes_output=True),
}


@dataclass(frozen=True, slots=True)
class Adapters:
    """LoRA (https://arxiv.org/abs/2106.09685): two matrices of `rank` beside each target; the base is frozen, and with
    `quantization` kept in fewer bits (QLoRA). `dropout`: the adapters' inputs pass a dropout layer."""

    rank: int
    targets: AdapterTargets = "query-value"
    quantization: Quantization = "none"
    dropout: bool = False
    code: AdapterCode = ADAPTER_CODE["plain"]

    @property
    def float32_rest(self) -> bool:
        return self.quantization != "none" and self.code.float32_rest

    @property
    def copies_output_layer(self) -> bool:
        """Whether the loss needs the output layer's weights once more: in 16 bits, cast or dequantized."""
        return self.float32_rest or (self.quantization != "none" and self.code.quantizes_output)


@dataclass(frozen=True, slots=True)
class OptimizerSpec:
    """Bytes per trained parameter: weights, gradients and optimizer states (including a master copy of the weights).

    `activations`: bytes of a value in activations and gathered weights. `fp8`: matrix products in 8 bits; tensors
    between them stay in 16. `in_backward`: each layer is updated as soon as its gradient exists, which is then freed.
    `adapters`: only these are trained. `step`: a foreach step has temporaries of `foreach_temporaries` bytes a
    parameter, a fused one has none.
    """

    name: str
    weights: float
    gradients: float
    optimizer: float
    activations: int = 2
    fp8: bool = False
    in_backward: bool = False
    adapters: Adapters | None = None
    embedding_optimizer: float | None = None
    """Optimizer bytes per parameter of the input embedding, if it has others."""
    step: OptimizerStep = "fused"
    foreach_temporaries: float = 0.0


#: Mixed-precision Adam keeps a float32 copy, momentum and variance: 12 bytes (ZeRO, section 3.1: K = 12,
#: https://arxiv.org/abs/1910.02054). Megatron-LM and DeepSpeed's estimators assume gradients of 4 bytes. Pure bfloat16
#: has no copy; 8-bit states take a byte each (https://arxiv.org/abs/2110.02861), those of embeddings stay in 32 bits
#: (https://huggingface.co/docs/bitsandbytes/optimizers). AdamW's foreach step, PyTorch's default, has the square roots
#: of all variances at once (https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html).
OPTIMIZERS: dict[str, OptimizerSpec] = {
    each.name: each
    for each in (
        OptimizerSpec("adamw-mixed", 2, 2, 12, foreach_temporaries=4),
        OptimizerSpec("adamw-mixed-fp32-gradients", 2, 4, 12, foreach_temporaries=4),
        OptimizerSpec("adamw-mixed-bf16-states", 2, 2, 8, foreach_temporaries=2),
        OptimizerSpec("adamw-fp8", 2, 2, 12, fp8=True, foreach_temporaries=4),
        OptimizerSpec("adamw-fp32", 4, 4, 8, activations=4, foreach_temporaries=4),
        OptimizerSpec("adamw-bf16", 2, 2, 4, foreach_temporaries=2),
        OptimizerSpec("adamw-8bit-mixed", 2, 2, 6, embedding_optimizer=12),
        OptimizerSpec("adamw-8bit-bf16", 2, 2, 2, embedding_optimizer=8),
        OptimizerSpec("sgd-momentum-mixed", 2, 2, 8),
        OptimizerSpec("sgd-bf16", 2, 2, 0),
    )
}


@dataclass(frozen=True, slots=True)
class ParallelLayout:
    """`tensor` x `pipeline` x `context` x `data` GPUs. `zero` is the stage, 0 to 3 (3: FSDP); stages shard over the
    data- and context-parallel GPUs, or with `replicas` above 1 (HSDP) over that many fewer.

    `context` splits the sequence. `expert` splits the experts over that many of the data- and context-parallel GPUs.
    `micro_batch` samples per pass of a data-parallel rank, `accumulation` passes per optimizer step.
    `sequence_parallel` also splits the activations that tensor parallelism replicates. `flash_attention`: attention
    scores are never written to memory. `checkpointing`: full recomputes whole layers; selective keeps attention's
    output and every second matrix product. It applies to `checkpoint_ratio` of the layers. `loss`: how
    logits become a loss; `kernels`: whether norms and the like are compiled or fused. `gradient_sync`: whether
    gradients are reduced after each micro-batch or, unsharded until then, after the last one (PyTorch's `no_sync`).
    `fsdp_root`: whether embedding and output layer are units of ZeRO-3 of their own, or one with the root module.
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    zero: int = 0
    micro_batch: int = 1
    accumulation: int = 1
    checkpointing: Checkpointing = "none"
    offload: Offload = "none"
    sequence_parallel: bool = True
    flash_attention: bool = True
    context: int = 1
    expert: int = 1
    replicas: int = 1
    checkpoint_ratio: float = 1.0
    offload_activations: bool = False
    loss: Loss = "eager"
    kernels: Kernels = "fused"
    gradient_sync: GradientSync = "each"
    fsdp_root: FsdpRoot = "split"

    @property
    def gpus(self) -> int:
        return self.tensor * self.pipeline * self.context * self.data

    @property
    def global_batch(self) -> int:
        return self.micro_batch * self.accumulation * self.data

    @property
    def accumulates_whole_gradients(self) -> bool:
        """Whether gradients that a ZeRO stage shards are whole until the last micro-batch."""
        return self.gradient_sync == "last" and self.accumulation > 1 and self.zero >= 2

    @property
    def shards(self) -> int:
        """GPUs over which a ZeRO stage divides."""
        return self.data * self.context // self.replicas
