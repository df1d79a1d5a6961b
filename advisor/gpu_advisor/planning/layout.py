"""Parallel layout of a training job, and its memory-saving options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Checkpointing = Literal["none", "full"]
Offload = Literal["none", "optimizer", "all"]


@dataclass(frozen=True, slots=True)
class OptimizerSpec:
    """Bytes per parameter: weights, gradients and optimizer states (including its master copy of the weights)."""

    name: str
    weights: float
    gradients: float
    optimizer: float
    activations: int = 2  # bytes per value


#: Mixed-precision Adam keeps a float32 copy, momentum and variance: 12 bytes (ZeRO, section 3.1: K = 12,
#: https://arxiv.org/abs/1910.02054). Megatron-LM and DeepSpeed's estimators assume gradients of 4 bytes.
OPTIMIZERS: dict[str, OptimizerSpec] = {
    each.name: each
    for each in (
        OptimizerSpec("adamw-mixed", 2, 2, 12),
        OptimizerSpec("adamw-mixed-fp32-gradients", 2, 4, 12),
        OptimizerSpec("adamw-fp32", 4, 4, 8, activations=4),
        OptimizerSpec("adamw-8bit-mixed", 2, 2, 6),
        OptimizerSpec("sgd-momentum-mixed", 2, 2, 8),
    )
}


@dataclass(frozen=True, slots=True)
class ParallelLayout:
    """`tensor` x `pipeline` x `data` GPUs. `zero` is the stage, 0 to 3; stages shard over the data-parallel GPUs.

    `micro_batch` samples per pass of a data-parallel rank, `accumulation` passes per optimizer step.
    `sequence_parallel` also splits the activations that tensor parallelism replicates. `flash_attention`: attention
    scores are never written to memory.
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

    @property
    def gpus(self) -> int:
        return self.tensor * self.pipeline * self.data

    @property
    def global_batch(self) -> int:
        return self.micro_batch * self.accumulation * self.data
