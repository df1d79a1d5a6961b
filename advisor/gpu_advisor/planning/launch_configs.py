"""Launch settings of a plan: torchrun, DeepSpeed, FSDP and Megatron-LM."""

from __future__ import annotations

from typing import Any

from gpu_advisor.hardware.cluster_spec import ClusterSpec
from gpu_advisor.planning.layout import OptimizerSpec, ParallelLayout


def torchrun_command(machines: ClusterSpec, script: str = "train.py") -> str:
    """The command to run on each node."""
    if machines.nodes == 1:
        return f"torchrun --standalone --nproc-per-node={machines.gpus_per_node} {script}"
    return (
        f"torchrun --nnodes={machines.nodes} --nproc-per-node={machines.gpus_per_node} "
        f"--rdzv-backend=c10d --rdzv-endpoint=$HEAD_NODE:29500 {script}"
    )


def deepspeed_config(layout: ParallelLayout, recipe: OptimizerSpec) -> dict[str, Any]:
    """DeepSpeed's configuration, without tensor and pipeline parallelism: the model's code sets those."""
    zero: dict[str, Any] = {"stage": layout.zero}
    if layout.zero:
        zero |= {"overlap_comm": True, "contiguous_gradients": True}
    if layout.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if layout.offload == "all":
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    settings: dict[str, Any] = {
        "train_batch_size": layout.global_batch,
        "train_micro_batch_size_per_gpu": layout.micro_batch,
        "gradient_accumulation_steps": layout.accumulation,
        "zero_optimization": zero,
        "bf16": {"enabled": recipe.activations == 2},
    }
    if layout.checkpointing == "full":
        settings["activation_checkpointing"] = {"partition_activations": layout.tensor > 1}
    return settings


def fsdp_arguments(layout: ParallelLayout, recipe: OptimizerSpec) -> dict[str, Any] | None:
    """Arguments of PyTorch's FullyShardedDataParallel; None for pipeline plans or without data parallelism."""
    if layout.pipeline > 1 or layout.data == 1:
        return None
    strategy = {0: "NO_SHARD", 1: "SHARD_GRAD_OP", 2: "SHARD_GRAD_OP", 3: "FULL_SHARD"}[layout.zero]
    return {
        "sharding_strategy": strategy,
        "mixed_precision": "bfloat16" if recipe.activations == 2 else None,
        "cpu_offload": layout.offload != "none",
        "activation_checkpointing": layout.checkpointing == "full",
    }


def megatron_arguments(layout: ParallelLayout) -> str | None:
    """Megatron-LM's arguments; None without tensor or pipeline parallelism."""
    if layout.tensor == layout.pipeline == 1:
        return None
    arguments = [
        f"--tensor-model-parallel-size {layout.tensor}",
        f"--pipeline-model-parallel-size {layout.pipeline}",
        f"--micro-batch-size {layout.micro_batch}",
        f"--global-batch-size {layout.global_batch}",
    ]
    arguments += ["--sequence-parallel"] if layout.tensor > 1 and layout.sequence_parallel else []
    arguments += ["--use-distributed-optimizer"] if layout.zero else []
    arguments += ["--use-flash-attn"] if layout.flash_attention else []
    arguments += (
        ["--recompute-granularity full", "--recompute-method uniform"] if layout.checkpointing == "full" else []
    )
    return " ".join(arguments)
