"""A plan as torchtitan's configuration file (TOML, as of torchtitan 0.2.2; 0.3 replaced it by Python registries).

Fields: https://github.com/pytorch/torchtitan/blob/v0.2.2/torchtitan/config/job_config.py.
"""

from __future__ import annotations

from gpu_advisor.planning.layout import OptimizerSpec, ParallelLayout

_Value = str | int | bool | list[str]


def torchtitan_toml(layout: ParallelLayout, recipe: OptimizerSpec, sequence: int) -> str | None:
    """None where torchtitan 0.2 has no such layout: adapters, 8-bit or SGD states, ZeRO-1, an off-loaded optimizer, an
    optimizer in the backward pass of pipeline stages or experts, gradients that are sharded after the last micro-batch.
    """
    kept = (int(recipe.optimizer), recipe.activations)
    states = {(12, 2): "float32", (8, 4): "float32", (4, 2): "bfloat16"}.get(kept)
    if recipe.adapters or states is None or layout.zero == 1 or layout.offload == "optimizer":
        return None
    if layout.accumulates_whole_gradients:
        return None
    if recipe.in_backward and max(layout.pipeline, layout.expert) > 1:
        return None
    sharing = layout.data
    replicas = sharing if layout.zero == 0 else layout.replicas
    pipelined = layout.pipeline > 1
    sections: dict[str, dict[str, _Value]] = {
        "training": {
            "local_batch_size": layout.micro_batch * (layout.accumulation if pipelined else 1),
            "global_batch_size": layout.global_batch,
            "seq_len": sequence,
            "dtype": states,
            "mixed_precision_param": "float32" if recipe.activations == 4 else "bfloat16",
            "enable_cpu_offload": layout.offload == "all",
        },
        "parallelism": {
            "data_parallel_replicate_degree": replicas,
            "data_parallel_shard_degree": sharing // replicas,
            "fsdp_reshard_after_forward": "default" if layout.zero == 3 else "never",
            "tensor_parallel_degree": layout.tensor,
            "pipeline_parallel_degree": layout.pipeline,
            "context_parallel_degree": layout.context,
            "expert_parallel_degree": layout.expert,
        },
        "activation_checkpoint": _checkpointing(layout),
        "compile": _compiling(layout),
        "optimizer": {"name": "AdamW", "early_step_in_backward": recipe.in_backward},
    }
    if pipelined:
        sections["parallelism"] |= {
            "pipeline_parallel_schedule": "1F1B", "pipeline_parallel_microbatch_size": layout.micro_batch,
        }  # fmt: skip
    if recipe.fp8:
        sections["model"] = {"converters": ["quantize.linear.float8"]}
    return "\n".join(line for name, section in sections.items() for line in [f"[{name}]", *_lines(section), ""])


def _checkpointing(layout: ParallelLayout) -> dict[str, _Value]:
    if layout.checkpointing == "full" and layout.checkpoint_ratio < 1:
        if layout.checkpoint_ratio == 0:
            return {"mode": "none"}
        # Every n-th layer: at least the share that is planned.
        return {"mode": "selective", "selective_ac_option": str(int(1 / layout.checkpoint_ratio + 1e-9))}
    if layout.checkpointing == "selective":
        return {"mode": "selective", "selective_ac_option": "op"}
    return {"mode": layout.checkpointing}


def _compiling(layout: ParallelLayout) -> dict[str, _Value]:
    components = ["model"] if layout.kernels == "fused" else []
    components += ["loss"] if layout.loss in ("compiled", "chunked", "fused") else []
    return {"enable": bool(components), "components": list(components)}


def _lines(section: dict[str, _Value]) -> list[str]:
    return [f"{name} = {_toml(value)}" for name, value in section.items()]


def _toml(value: _Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
