"""Launch settings that carry out a plan: torchrun, DeepSpeed, PyTorch's FSDP2 and Megatron-LM.

A function returns None, or leaves a part out, where its framework cannot carry out the layout. The tests check the
results with the frameworks' own libraries where these are installed (`make test-frameworks`): DeepSpeed 0.19.8,
megatron-core 0.16.1, torch 2.13; Megatron-LM's options also by
https://github.com/NVIDIA/Megatron-LM/blob/d98e8a64ddf34856e74b24714e3bedb2f5a39553/megatron/training/arguments.py.
"""

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


def deepspeed_config(layout: ParallelLayout, recipe: OptimizerSpec) -> dict[str, Any] | None:
    """DeepSpeed's configuration, without pipeline parallelism and checkpointing of a part of the layers: the model's
    code sets those. None for replicas of shards, which it has no more (deepspeedai/DeepSpeed#8489), and for an
    optimizer in the backward pass. It off-loads what it shards, so a single GPU shards over itself, and reduces
    gradients that it shards after each micro-batch."""
    if layout.replicas > 1 or recipe.in_backward or layout.accumulates_whole_gradients:
        return None
    stage = layout.zero or {"none": 0, "optimizer": 2, "all": 3}[layout.offload]
    zero: dict[str, Any] = {"stage": stage}
    if stage:
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
    if recipe.activations == 2 and not recipe.adapters and recipe.weights + recipe.optimizer <= 6 and stage:
        settings["bf16"] |= {"bf16_master_weights_and_grads": True, "bf16_optimizer_states": True}
    if recipe.activations == 2 and recipe.gradients == 4:
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
    if layout.tensor > 1 and layout.pipeline == 1:
        settings["tensor_parallel"] = {"autotp_size": layout.tensor}
    if layout.context > 1:
        settings["sequence_parallel_size"] = layout.context
    if layout.checkpointing == "full":
        settings["activation_checkpointing"] = {"partition_activations": layout.tensor > 1}
        if layout.offload_activations:
            settings["activation_checkpointing"]["cpu_checkpointing"] = True
    return settings


def fsdp_arguments(layout: ParallelLayout, recipe: OptimizerSpec) -> dict[str, Any] | None:
    """Arguments of PyTorch's FSDP; None for pipeline plans, without data parallelism, or for an off-loaded optimizer:
    FSDP off-loads weights, gradients and optimizer together. `no_sync`: for all micro-batches but the last.

    `sharding_strategy` to `activation_checkpointing` are those of FullyShardedDataParallel; `fully_shard` has those of
    FSDP2: the sizes of a (replicate, shard) mesh, and its policies' fields. FSDP2 shards the weights from stage 1 on,
    in the data type that the optimizer keeps.
    """
    if layout.pipeline > 1 or layout.data * layout.context == 1 or layout.offload == "optimizer":
        return None
    strategy = {0: "NO_SHARD", 1: "SHARD_GRAD_OP", 2: "SHARD_GRAD_OP", 3: "FULL_SHARD"}[layout.zero]
    if layout.replicas > 1:
        strategy = {"FULL_SHARD": "HYBRID_SHARD", "SHARD_GRAD_OP": "_HYBRID_SHARD_ZERO2"}.get(strategy, strategy)
    replicas = layout.data * layout.context if layout.zero == 0 else layout.replicas
    half = recipe.activations == 2
    keeps_master = recipe.optimizer > 4 and not recipe.adapters
    return {
        "sharding_strategy": strategy,
        "mixed_precision": "bfloat16" if half else None,
        "cpu_offload": layout.offload != "none",
        "activation_checkpointing": layout.checkpointing == "full",
        "no_sync": layout.gradient_sync == "last" and layout.accumulation > 1,
        "fully_shard": {
            "mesh": {"replicate": replicas, "shard": layout.data * layout.context // replicas},
            "reshard_after_forward": layout.zero == 3,
            "model_dtype": "float32" if not half or keeps_master else "bfloat16",
            "mp_policy": {"param_dtype": "bfloat16" if half else None, "reduce_dtype": "float32" if half else None},
            "offload_policy": {"pin_memory": True} if layout.offload != "none" else None,
        },
        "activation_checkpointing_mode": layout.checkpointing,
        "activation_checkpointing_ratio": layout.checkpoint_ratio,
    }


def megatron_arguments(layout: ParallelLayout, recipe: OptimizerSpec | None = None) -> str | None:
    """Megatron-LM's arguments; None without model parallelism, or where it has no such layout (off-loaded weights,
    adapters, checkpointing of every second matrix product, gradients that are sharded after the last micro-batch)."""
    splits = (layout.tensor, layout.pipeline, layout.context, layout.expert)
    if layout.accumulates_whole_gradients:
        return None
    if max(splits) == 1 or layout.offload == "all" or (recipe and (recipe.adapters or recipe.in_backward)):
        return None
    if layout.checkpointing == "selective":
        return None
    arguments = [
        f"--tensor-model-parallel-size {layout.tensor}",
        f"--pipeline-model-parallel-size {layout.pipeline}",
        f"--micro-batch-size {layout.micro_batch}",
        f"--global-batch-size {layout.global_batch}",
    ]
    arguments += [f"--context-parallel-size {layout.context}"] if layout.context > 1 else []
    arguments += [f"--expert-model-parallel-size {layout.expert}"] if layout.expert > 1 else []
    arguments += ["--sequence-parallel"] if layout.tensor > 1 and layout.sequence_parallel else []
    arguments += _megatron_sharding(layout)
    arguments += ["--use-flash-attn"] if layout.flash_attention else []
    arguments += ["--bf16"] if recipe and recipe.activations == 2 else []
    arguments += ["--fp8-format hybrid"] if recipe and recipe.fp8 else []
    arguments += ["--optimizer-cpu-offload"] if layout.offload == "optimizer" else []
    if layout.checkpointing == "full":
        arguments += ["--recompute-granularity full", "--recompute-method uniform", "--recompute-num-layers 1"]
    return " ".join(arguments)


def _megatron_sharding(layout: ParallelLayout) -> list[str]:
    if layout.zero == 0:
        return []
    instances = [f"--num-distributed-optimizer-instances {layout.replicas}"] if layout.replicas > 1 else []
    if layout.zero == 1:
        return ["--use-distributed-optimizer", *instances]
    strategy = "optim_grads" if layout.zero == 2 else "optim_grads_params"
    return ["--use-megatron-fsdp", f"--data-parallel-sharding-strategy {strategy}", *instances]
