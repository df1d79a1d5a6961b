"""Settings of frameworks: the layout's numbers in the right place, and none where the layout has no such part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from gpu_advisor.hardware.cluster_spec import ClusterSpec
from gpu_advisor.hardware.errors import PlanError
from gpu_advisor.planning.known_models import KNOWN_SHAPES
from gpu_advisor.planning.launch_configs import deepspeed_config, fsdp_arguments, megatron_arguments, torchrun_command
from gpu_advisor.planning.layout import OPTIMIZERS, Offload, ParallelLayout
from gpu_advisor.planning.layout_search import PinnedLayout, PlanRequest, search_layouts
from gpu_advisor.planning.torchtitan_config import torchtitan_toml

MIXED, FULL = OPTIMIZERS["adamw-mixed"], OPTIMIZERS["adamw-fp32"]
DATA = ParallelLayout(data=4, micro_batch=2, accumulation=8)


@pytest.mark.parametrize(("nodes", "words"), [(1, ["--standalone"]), (2, ["--nnodes=2", "--rdzv-backend=c10d"])])
def test_torchrun_on_one_node_and_on_several(nodes: int, words: list[str]) -> None:
    line = torchrun_command(ClusterSpec("X", nodes, 8, 1), "my.py")
    assert {*words, "--nproc-per-node=8", "my.py"} <= set(line.split())
    assert ("--standalone" in line) is (nodes == 1)
    assert ("--rdzv-endpoint" in line) is (nodes > 1)


@pytest.mark.parametrize(
    ("change", "zero"),
    [
        ({}, {"stage": 0}),
        ({"zero": 1}, {"stage": 1, "overlap_comm": True, "contiguous_gradients": True}),
        (
            {"zero": 2, "offload": "optimizer"},
            {
                "stage": 2, "overlap_comm": True, "contiguous_gradients": True,
                "offload_optimizer": {"device": "cpu", "pin_memory": True},
            },
        ),
        (
            {"zero": 3, "offload": "all"},
            {
                "stage": 3, "overlap_comm": True, "contiguous_gradients": True,
                "offload_optimizer": {"device": "cpu", "pin_memory": True},
                "offload_param": {"device": "cpu", "pin_memory": True},
            },
        ),
    ],
)  # fmt: skip
def test_deepspeed(change: dict[str, Any], zero: dict[str, Any]) -> None:
    config = deepspeed_config(replace(DATA, **change), MIXED)
    assert config is not None
    assert config["zero_optimization"] == zero
    assert config["train_batch_size"] == 64
    assert config["train_micro_batch_size_per_gpu"] == 2
    assert config["gradient_accumulation_steps"] == 8
    assert config["bf16"] == {"enabled": True}
    assert "activation_checkpointing" not in config
    full = deepspeed_config(DATA, FULL)
    assert full is not None
    assert full["bf16"] == {"enabled": False}
    assert deepspeed_config(DATA, replace(MIXED, in_backward=True)) is None


@pytest.mark.parametrize(("offload", "stage"), [("none", 0), ("optimizer", 2), ("all", 3)])
def test_deepspeed_offloads_what_it_shards_on_one_gpu_too(offload: Offload, stage: int) -> None:
    config = deepspeed_config(ParallelLayout(micro_batch=2, offload=offload), MIXED)
    assert config is not None
    assert config["zero_optimization"]["stage"] == stage
    assert ("offload_optimizer" in config["zero_optimization"]) == (offload != "none")


@pytest.mark.parametrize(
    ("gpus", "pinned"),
    [(1, {}), (8, {}), (8, {"zero": 0}), (8, {"zero": 2}), (8, {"tensor": 2}), (8, {"tensor": 2, "pipeline": 2})],
)
@pytest.mark.parametrize("name", ["adamw-mixed", "adamw-bf16 in backward"])
def test_every_plan_of_a_search_can_be_carried_out(gpus: int, pinned: dict[str, Any], name: str) -> None:
    """Some framework has it: off-loading only of what is sharded, one backward pass where each is an update."""
    recipe = replace(OPTIMIZERS[name.split()[0]], in_backward="backward" in name)
    cluster = ClusterSpec("A100", 1, gpus, 80 << 30)
    request = PlanRequest(KNOWN_SHAPES["LLaMA-7B"], cluster, recipe, 64, pinned=PinnedLayout(**pinned))
    if recipe.in_backward and pinned.get("pipeline"):
        with pytest.raises(PlanError, match="cannot accumulate"):
            search_layouts(request, 50)
        return
    found = search_layouts(request, 50)
    assert found.tried > 0
    for layout in (plan.layout for plan in found.best):
        sharing = layout.data * layout.context
        assert layout.offload == "none" or sharing == 1 or layout.zero > 0
        assert layout.accumulation == 1 or not recipe.in_backward
        exports = (deepspeed_config(layout, recipe), fsdp_arguments(layout, recipe), megatron_arguments(layout, recipe),
                   torchtitan_toml(layout, recipe, 2048))  # fmt: skip
        assert any(exports) or recipe.in_backward  # which is the training loop's own code


@pytest.mark.parametrize(("ratio", "option"), [(0.5, "2"), (0.75, "1"), (0.4, "2"), (0.25, "4"), (1 / 3, "3")])
def test_torchtitan_checkpoints_the_planned_share_of_the_layers_at_least(ratio: float, option: str) -> None:
    text = torchtitan_toml(replace(DATA, zero=3, checkpointing="full", checkpoint_ratio=ratio), MIXED, 2048)
    assert text is not None
    assert f'selective_ac_option = "{option}"' in text


@pytest.mark.parametrize("change", [{"pipeline": 2}, {"expert": 2}])
def test_torchtitan_has_no_optimizer_in_the_backward_pass_of_stages_and_experts(change: dict[str, Any]) -> None:
    layout = replace(DATA, zero=3, accumulation=1)
    recipe = replace(OPTIMIZERS["adamw-bf16"], in_backward=True)
    assert torchtitan_toml(layout, recipe, 2048) is not None
    assert torchtitan_toml(replace(layout, **change), recipe, 2048) is None


@pytest.mark.parametrize(("tensor", "partitioned"), [(1, False), (2, True)])
def test_checkpoints_are_partitioned_over_tensor_ranks(tensor: int, partitioned: bool) -> None:
    config = deepspeed_config(replace(DATA, checkpointing="full", tensor=tensor), MIXED)
    assert config is not None
    assert config["activation_checkpointing"] == {"partition_activations": partitioned}


@pytest.mark.parametrize(
    ("zero", "strategy"), [(0, "NO_SHARD"), (1, "SHARD_GRAD_OP"), (2, "SHARD_GRAD_OP"), (3, "FULL_SHARD")]
)
def test_fsdp(zero: int, strategy: str) -> None:
    plain = fsdp_arguments(replace(DATA, zero=zero), MIXED)
    assert plain is not None
    fully_shard = plain["fully_shard"]
    assert (plain["sharding_strategy"], plain["mixed_precision"]) == (strategy, "bfloat16")
    assert (plain["cpu_offload"], plain["activation_checkpointing"]) == (False, False)
    assert fully_shard["mesh"] == ({"replicate": 1, "shard": 4} if zero else {"replicate": 4, "shard": 1})
    assert fully_shard["reshard_after_forward"] is (zero == 3)
    assert fully_shard["model_dtype"] == "float32"
    saving = fsdp_arguments(replace(DATA, zero=zero, offload="all", checkpointing="full"), FULL)
    assert saving is not None
    assert (saving["mixed_precision"], saving["cpu_offload"], saving["activation_checkpointing"]) == (None, True, True)


def test_gradients_that_are_reduced_last() -> None:
    """FSDP has no_sync; DeepSpeed, Megatron-LM and torchtitan reduce what they shard after each micro-batch."""
    last = replace(DATA, zero=3, accumulation=4, gradient_sync="last")
    each = replace(last, gradient_sync="each")
    found = [fsdp_arguments(layout, MIXED) for layout in (last, each, replace(last, accumulation=1))]
    assert [arguments and arguments["no_sync"] for arguments in found] == [True, False, False]
    assert deepspeed_config(last, MIXED) is None is torchtitan_toml(last, MIXED, 2048)
    assert megatron_arguments(replace(last, tensor=2), MIXED) is None
    assert None not in (deepspeed_config(each, MIXED), torchtitan_toml(each, MIXED, 2048))
    assert deepspeed_config(replace(last, zero=1), MIXED) is not None


@pytest.mark.parametrize("change", [{"pipeline": 2}, {"data": 1}, {"offload": "optimizer", "zero": 3}])
def test_fsdp_needs_data_parallelism_no_pipeline_and_off_loads_all_or_nothing(change: dict[str, Any]) -> None:
    assert fsdp_arguments(replace(DATA, **change), MIXED) is None
    assert fsdp_arguments(replace(DATA, data=2), MIXED) is not None


@pytest.mark.parametrize(
    ("change", "present", "absent"),
    [
        ({"tensor": 2}, ["--tensor-model-parallel-size 2", "--pipeline-model-parallel-size 1", "--sequence-parallel"],
         ["--use-distributed-optimizer", "--recompute-granularity"]),
        ({"tensor": 2, "sequence_parallel": False}, [], ["--sequence-parallel"]),
        ({"pipeline": 4}, ["--tensor-model-parallel-size 1", "--pipeline-model-parallel-size 4"],
         ["--sequence-parallel"]),
        ({"tensor": 2, "zero": 1}, ["--use-distributed-optimizer"], []),
        ({"tensor": 2, "checkpointing": "full"}, ["--recompute-granularity full", "--recompute-method uniform"], []),
        ({"tensor": 2, "flash_attention": False}, ["--micro-batch-size 2", "--global-batch-size 64"],
         ["--use-flash-attn"]),
        ({"tensor": 2}, ["--use-flash-attn"], []),
    ],
)  # fmt: skip
def test_megatron(change: dict[str, Any], present: list[str], absent: list[str]) -> None:
    line = megatron_arguments(replace(DATA, **change))
    assert line is not None
    assert all(each in line for each in present)
    assert not any(each in line for each in absent)


def test_megatron_is_for_models_that_are_split() -> None:
    assert megatron_arguments(DATA) is None
