"""What the planner exports is accepted by the target's own library, and says there what the plan says.

DeepSpeed 0.19.8, megatron-core 0.16.1 and torchtitan 0.2.2 are installed by `make test-frameworks`; PyTorch is a
dependency of the tests anyway.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import shlex
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gpu_advisor.planning.launch_configs import deepspeed_config, fsdp_arguments, megatron_arguments
from gpu_advisor.planning.layout import OPTIMIZERS, Adapters, ParallelLayout
from gpu_advisor.planning.torchtitan_config import torchtitan_toml

MIXED, BF16 = OPTIMIZERS["adamw-mixed"], OPTIMIZERS["adamw-bf16"]
LAYOUTS = {
    "data": ParallelLayout(data=4, micro_batch=2, accumulation=3),
    "zero-1": ParallelLayout(data=4, zero=1, micro_batch=2),
    "zero-2": ParallelLayout(data=8, zero=2, offload="optimizer", accumulation=2),
    "fsdp": ParallelLayout(data=8, zero=3, micro_batch=2, checkpointing="selective"),
    "offloaded": ParallelLayout(data=8, zero=3, offload="all", checkpointing="full", offload_activations=True),
    "hsdp": ParallelLayout(data=8, zero=3, replicas=2, checkpointing="full", checkpoint_ratio=0.5),
    "context": ParallelLayout(data=2, context=4, zero=3, checkpointing="full"),
    "tensor": ParallelLayout(tensor=8, data=4, zero=1, micro_batch=4, checkpointing="full"),
    "3d": ParallelLayout(tensor=8, pipeline=8, data=8, zero=3, micro_batch=4, accumulation=8, checkpointing="full"),
    "experts": ParallelLayout(tensor=2, data=8, expert=8, zero=1, accumulation=4),
}


@pytest.mark.parametrize("name", sorted(set(LAYOUTS) - {"hsdp"}))
@pytest.mark.parametrize("recipe", ["adamw-mixed", "adamw-bf16", "adamw-fp32", "adamw-mixed-fp32-gradients"])
def test_deepspeed(name: str, recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config_module = pytest.importorskip("deepspeed.runtime.config")
    layout = LAYOUTS[name]

    class Ranks:
        def get_data_parallel_world_size(self) -> int:
            return layout.data

    monkeypatch.setattr(config_module.dist, "get_rank", lambda: 0)
    config = deepspeed_config(layout, OPTIMIZERS[recipe])
    assert config is not None
    read = config_module.DeepSpeedConfig(config, mpu=Ranks())
    assert read.train_batch_size == layout.global_batch
    assert read.train_micro_batch_size_per_gpu == layout.micro_batch
    assert read.gradient_accumulation_steps == layout.accumulation
    assert read.zero_config.stage == layout.zero
    assert (read.zero_config.offload_optimizer is not None) == (layout.offload != "none")
    assert (read.zero_config.offload_param is not None) == (layout.offload == "all")
    assert read.bfloat16_config.enabled == (recipe != "adamw-fp32")
    assert read.bfloat16_config.bf16_optimizer_states == (recipe == "adamw-bf16" and layout.zero > 0)
    unknown = set(config) - set(inspect.getsource(config_module).split('"')) - _known_keys()
    assert not unknown


def _known_keys() -> set[str]:
    """Keys that DeepSpeed reads elsewhere than in its main module."""
    import deepspeed

    root = Path(str(deepspeed.__file__)).parent
    text = "".join((root / name).read_text() for name in ("runtime/constants.py", "runtime/zero/config.py",
                   "runtime/tensor_parallel/config.py", "runtime/activation_checkpointing/config.py",
                   "runtime/precision_config.py"))  # fmt: skip
    return {word for word in text.replace("'", '"').split('"') if word.isidentifier()} | {"sequence_parallel_size",
                                                                                         "tensor_parallel"}  # fmt: skip


def test_replicas_of_shards_are_not_for_deepspeed() -> None:
    assert deepspeed_config(LAYOUTS["hsdp"], MIXED) is None


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_fsdp2(name: str) -> None:
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    import torch

    layout = LAYOUTS[name]
    found = fsdp_arguments(layout, MIXED)
    if layout.pipeline > 1 or layout.offload == "optimizer":
        assert found is None
        return
    assert found is not None
    of = found["fully_shard"]
    assert of["mesh"]["replicate"] * of["mesh"]["shard"] == layout.data * layout.context
    policy = fsdp.MixedPrecisionPolicy(**{k: getattr(torch, v) for k, v in of["mp_policy"].items()})
    assert policy.param_dtype is torch.bfloat16
    assert {"mesh", "reshard_after_forward", "mp_policy", "offload_policy"} <= set(
        inspect.signature(fsdp.fully_shard).parameters
    )
    if of["offload_policy"]:
        assert fsdp.CPUOffloadPolicy(**of["offload_policy"]).pin_memory
    assert hasattr(fsdp.ShardingStrategy, found["sharding_strategy"])


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_megatron(name: str) -> None:
    """Each option is a field of megatron-core's configurations, with the plan's value."""
    pytest.importorskip("megatron.core")
    from megatron.core.distributed import DistributedDataParallelConfig
    from megatron.core.optimizer import OptimizerConfig
    from megatron.core.transformer import TransformerConfig

    layout = LAYOUTS[name]
    line = megatron_arguments(layout, MIXED)
    if line is None:
        assert max(layout.tensor, layout.pipeline, layout.context, layout.expert) == 1 or layout.offload == "all"
        return
    options = _options(line)
    assert options.pop("micro_batch_size") == layout.micro_batch
    assert options.pop("global_batch_size") == layout.global_batch
    assert options.pop("use_flash_attn") is True  # since replaced by attention_backend, and kept
    fields = {
        field.name
        for config in (TransformerConfig, DistributedDataParallelConfig, OptimizerConfig)
        for field in dataclasses.fields(config)
    } | {"num_distributed_optimizer_instances"}  # of parallel_state.initialize_model_parallel
    assert options.keys() <= fields | {"use_megatron_fsdp"}
    model: dict[str, Any] = {k: v for k, v in options.items() if k in _names(TransformerConfig)}
    if layout.pipeline > 1:
        import torch

        model["pipeline_dtype"] = torch.bfloat16
    experts: dict[str, Any] = {"num_moe_experts": 8, "add_bias_linear": False} if layout.expert > 1 else {}
    read = TransformerConfig(num_layers=64, hidden_size=64, num_attention_heads=8, **experts, **model)
    assert read.tensor_model_parallel_size == layout.tensor
    assert read.pipeline_model_parallel_size == layout.pipeline
    assert read.context_parallel_size == layout.context
    assert read.recompute_granularity == ("full" if layout.checkpointing == "full" else None)


def _names(config: type) -> set[str]:
    return {field.name for field in dataclasses.fields(config)}


def _options(line: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    words = shlex.split(line)
    for word, following in zip(words, [*words[1:], "--"], strict=True):
        if word.startswith("--"):
            name = word[2:].replace("-", "_")
            found[name] = True if following.startswith("--") else int(following) if following.isdigit() else following
    return found


@pytest.fixture(scope="module")
def titan() -> Iterator[Any]:
    """torchtitan's configuration, without importing its kernels."""
    spec = importlib.util.find_spec("torchtitan")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("torchtitan is not installed")
    package = types.ModuleType("torchtitan")
    package.__path__ = list(spec.submodule_search_locations)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchtitan", package)
        logging = types.ModuleType("torchtitan.tools.logging")
        logging.logger = __import__("logging").getLogger("torchtitan")  # type: ignore[attr-defined]
        patch.setitem(sys.modules, "torchtitan.tools", types.ModuleType("torchtitan.tools"))
        patch.setitem(sys.modules, "torchtitan.tools.logging", logging)
        yield importlib.import_module("torchtitan.config.manager")


@pytest.mark.parametrize("recipe", ["adamw-mixed", "adamw-bf16", "adamw-fp8"])
@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_torchtitan(name: str, recipe: str, titan: Any, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    text = torchtitan_toml(layout, OPTIMIZERS[recipe], 4096)
    if text is None:
        assert layout.zero == 1 or layout.offload == "optimizer"
        return
    file = tmp_path / "plan.toml"
    file.write_text(text, encoding="utf-8")
    read = titan.ConfigManager().parse_args([f"--job.config_file={file}"])
    of = read.parallelism
    data = of.data_parallel_replicate_degree * of.data_parallel_shard_degree
    assert data == layout.data
    assert data * of.context_parallel_degree * of.tensor_parallel_degree * of.pipeline_parallel_degree == layout.gpus
    assert read.training.global_batch_size == layout.global_batch
    assert read.training.seq_len == 4096
    passes = layout.accumulation if layout.pipeline > 1 else 1
    assert read.training.local_batch_size == layout.micro_batch * passes
    assert read.training.global_batch_size % (read.training.local_batch_size * data) == 0
    assert (read.activation_checkpoint.mode == "none") == (layout.checkpointing == "none")
    assert read.training.enable_cpu_offload == (layout.offload == "all")


def test_what_torchtitan_and_megatron_cannot_carry_out() -> None:
    lora = replace(BF16, adapters=Adapters(8))
    assert torchtitan_toml(LAYOUTS["fsdp"], lora, 4096) is None
    assert torchtitan_toml(LAYOUTS["fsdp"], OPTIMIZERS["adamw-8bit-bf16"], 4096) is None
    assert megatron_arguments(LAYOUTS["tensor"], lora) is None
    assert megatron_arguments(replace(LAYOUTS["tensor"], checkpointing="selective"), MIXED) is None
