"""Properties of the search, readings of GPUs and models, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from gpu_advisor.cli import cli
from gpu_advisor.hardware.cluster_spec import ClusterSpec, parse_cluster
from gpu_advisor.hardware.errors import PlanError
from gpu_advisor.hardware.gpu_types import GIB
from gpu_advisor.planning.known_models import (
    KNOWN_SHAPES,
    SIZE_TOLERANCE_RATIO,
    parse_parameter_count,
    shape_from_size,
)
from gpu_advisor.planning.layout import OPTIMIZERS, ParallelLayout
from gpu_advisor.planning.layout_search import PlanRequest, search_layouts
from gpu_advisor.planning.memory_model import activations, memory
from gpu_advisor.planning.model_configs import shape_from_config
from hypothesis import given
from hypothesis import strategies as st

MIXED = OPTIMIZERS["adamw-mixed"]
LLAMA = KNOWN_SHAPES["LLaMA-7B"]


@pytest.mark.parametrize(
    ("text", "nodes", "each", "gib"),
    [
        ("8xA100-80GB", 1, 8, 80),
        ("4x8xH100", 4, 8, 80),
        ("64xH100", 8, 8, 80),
        ("H200", 1, 1, 141),
        ("2xNVIDIA A100-SXM4-40GB", 1, 2, 40),
        ("1xRTX 4090", 1, 1, 24),
        ("3x96GiB", 1, 3, 96),
        ("nvidia-rtx-a6000", 1, 1, 48),
    ],
)
def test_gpus_as_people_write_them(text: str, nodes: int, each: int, gib: int) -> None:
    found = parse_cluster(text)
    assert (found.nodes, found.gpus_per_node, found.memory_bytes) == (nodes, each, gib * GIB)


@pytest.mark.parametrize(
    ("text", "fix"),
    [("8xA100", "A100-40GB or A100-80GB"), ("8xXYZ", "add its memory"), ("0xH100", "8xA100-80GB"), ("", "8xA100-80GB"),
     ("12xH100", "number of nodes"), ("8xFOO-0GB", "no GPU has"), ("-3xH100", "add its memory")],
)  # fmt: skip
def test_gpus_that_are_none(text: str, fix: str) -> None:
    with pytest.raises(PlanError, match=fix):
        parse_cluster(text)


@given(st.floats(0.05, 1000))
def test_a_size_is_met_as_well_as_models_are_named(billions: float) -> None:
    shape = shape_from_size(f"{billions:.3f}b")
    off = abs(shape.parameters - billions * 1e9)
    assert off <= max(0.51 * shape.layer_parameters, SIZE_TOLERANCE_RATIO * billions * 1e9) + 1e6 or shape.layers == 1
    assert "dimensions of" in shape.assumed


@pytest.mark.parametrize("text", ["", "b", "-7b", "0b", "7x", "1e99b", "99999t"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(PlanError):
        shape_from_size(text)
    assert parse_parameter_count("1.3B") == 1.3e9


def test_configs() -> None:
    gpt2 = {"model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257}
    assert shape_from_config(gpt2).parameters == KNOWN_SHAPES["GPT-2"].parameters
    llama = {
        "model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8,
        "num_hidden_layers": 32, "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
    }  # fmt: skip
    assert shape_from_config(llama).parameters == KNOWN_SHAPES["Llama-3-8B"].parameters
    assert shape_from_config(llama).sequence == 4096
    with pytest.raises(PlanError, match="num_hidden_layers"):
        shape_from_config({"hidden_size": 8, "num_attention_heads": 2, "vocab_size": 5})


layouts = st.builds(
    ParallelLayout,
    tensor=st.sampled_from([1, 2, 4, 8]),
    pipeline=st.sampled_from([1, 2, 4]),
    data=st.sampled_from([1, 2, 8]),
    zero=st.integers(0, 3),
    micro_batch=st.integers(1, 8),
    accumulation=st.integers(1, 8),
    checkpointing=st.sampled_from(["none", "full"]),
    sequence_parallel=st.booleans(),
    flash_attention=st.booleans(),
)


@given(layouts)
def test_what_saves_memory_saves_memory(layout: ParallelLayout) -> None:
    need = memory(LLAMA, layout, MIXED)
    assert min(need.weights, need.optimizer, need.activations) > 0
    if layout.zero < 3:
        assert memory(LLAMA, replace(layout, zero=layout.zero + 1), MIXED).states <= need.states
    assert memory(LLAMA, replace(layout, micro_batch=layout.micro_batch + 1), MIXED).total > need.total
    assert activations(LLAMA, replace(layout, sequence_parallel=True), 2) <= activations(LLAMA, layout, 2)
    assert activations(LLAMA, replace(layout, flash_attention=True), 2) <= activations(LLAMA, layout, 2)
    assert memory(LLAMA, replace(layout, tensor=layout.tensor * 2), MIXED).total < need.total


@given(
    st.sampled_from(sorted(KNOWN_SHAPES)),
    st.sampled_from(["1xRTX4090", "4xL40S", "8xA100-80GB", "2x8xH100"]),
    st.sampled_from([1, 8, 48, 256, 1000]),
    st.sampled_from([0.0, 0.1, 0.5]),
)
def test_what_is_proposed_fits_and_adds_up(name: str, gpus: str, batch: int, margin: float) -> None:
    hardware = parse_cluster(gpus)
    question = PlanRequest(KNOWN_SHAPES[name], hardware, MIXED, batch, margin)
    try:
        found = search_layouts(question, 5)
    except PlanError:
        assert hardware.gpus > 1
        return
    for plan in found.best:
        layout = plan.layout
        assert plan.memory.total <= (1 - margin) * hardware.memory_bytes
        assert layout.gpus == hardware.gpus
        assert layout.global_batch == batch
        assert layout.tensor <= hardware.gpus_per_node
    assert [plan.cost for plan in found.best] == sorted(plan.cost for plan in found.best)
    assert (found.nearest is None) == bool(found.best)
    assert sum(count for _, count in found.ruled_out) <= found.tried


def test_more_memory_never_costs_more() -> None:
    costs = []
    for gib in (24, 40, 80, 141):
        found = search_layouts(PlanRequest(LLAMA, ClusterSpec("X", 1, 8, gib * GIB), MIXED, 64), 1)
        costs.append(found.best[0].cost)
    assert costs == sorted(costs, reverse=True)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["plan", *arguments])


def test_the_command(tmp_path: Path) -> None:
    reported = run("--params", "7b", "--gpus", "8xA100-80GB")
    assert reported.exit_code == 0
    assert "LLaMA-7B" in reported.output
    assert "ZeRO-2" in reported.output
    found = json.loads(run("--params", "70b", "--gpus", "4x8xH100", "--format", "json").output)
    plan = found["plans"][0]
    assert sum(plan["memory_bytes"].values()) == pytest.approx(plan["total_bytes"], abs=10)
    assert plan["settings"]["deepspeed"]["train_batch_size"] == 256
    assert "--nnodes=4" in plan["settings"]["torchrun"]
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps({"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 99})
    )
    assert run("--config", str(config), "--gpus", "1xT4").exit_code == 0
    assert run("--layers", "2", "--hidden", "64", "--heads", "4", "--gpus", "1xT4").exit_code == 0


@pytest.mark.parametrize("arguments", [("8x8xH100", 64 * 10**9), ("1000000000x8xH100", 64 * 10**9)])
def test_sizes_that_nobody_has_take_no_longer(arguments: tuple[str, int]) -> None:
    gpus, batch = arguments
    reported = run("--params", "7b", "--gpus", gpus, "--global-batch", str(batch), "--format", "json")
    assert reported.exit_code == 0
    assert all(1 <= each["layout"]["micro_batch"] <= 64 for each in json.loads(reported.output)["plans"])


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000, '{"hidden_size": ' + "1" * 5000 + "}", "\udcff"])
def test_a_file_that_is_no_model_is_refused(text: str, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_bytes(text.encode(errors="surrogateescape"))
    refused = run("--config", str(config), "--gpus", "1xT4")
    assert refused.exit_code == 1
    assert f"{config}: not " in refused.output
    assert "config.json" in refused.output.partition("give ")[2]


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (["--gpus", "8xH100"], "--params 7b"),
        (["--params", "7b", "--gpus", "8xA100"], "A100-40GB or A100-80GB"),
        (
            ["--layers", "2", "--hidden", "9", "--heads", "1", "--gpus", "8xH200", "--global-batch=3"],
            "cannot be split",
        ),
        (["--params", "7b", "--gpus", "8xH100", "--global-batch", "0"], "at least 1 sample"),
        (["--params", "405b", "--gpus", "1xT4"], "Nothing fits"),
        (["--layers", "2", "--hidden", "63", "--heads", "4", "--gpus", "1xT4"], "multiple of heads"),
    ],
)
def test_a_question_that_cannot_be_answered_says_what_to_change(arguments: list[str], fix: str) -> None:
    reported = run(*arguments)
    assert reported.exit_code == 1
    assert fix in reported.output


def plan(*arguments: str) -> Any:
    reported = run(*arguments, "--format", "json")
    assert reported.exit_code == 0, reported.output
    return json.loads(reported.output)["plans"]


def test_what_is_pinned_is_kept() -> None:
    (first, *_) = plan("--params", "70b", "--gpus", "32x8xH100", "--tp", "8", "--zero", "3", "--micro-batch", "2",
                       "--pp", "1", "--checkpoint", "selective", "--checkpoint-fraction", "0.5")  # fmt: skip
    layout = first["layout"]
    assert (layout["tensor"], layout["pipeline"], layout["zero"], layout["micro_batch"]) == (8, 1, 3, 2)
    assert (layout["checkpointing"], layout["checkpoint_ratio"]) == ("selective", 0.5)
    assert layout["data"] == 32
    (long, *_) = plan("--params", "8b", "--sequence", "65536", "--gpus", "8xH100", "--cp", "4", "--loss", "fused",
                    "--tp", "1", "--pp", "1")  # fmt: skip
    assert (long["layout"]["context"], long["layout"]["data"]) == (4, 2)
    (shards, *_) = plan("--params", "7b", "--gpus", "2x8xA100-80GB", "--replicas", "2", "--zero", "3", "--tp", "1")
    assert shards["settings"]["fsdp"]["fully_shard"]["mesh"] == {"replicate": 2, "shard": 8}
    impossible = run("--params", "7b", "--gpus", "8xH100", "--micro-batch", "7", "--tp", "1")
    assert impossible.exit_code == 1
    assert "micro_batch 7" in impossible.output


def test_adapters_and_quantized_bases_need_less() -> None:
    base = ("--params", "8b", "--gpus", "1xH100", "--global-batch", "2", "--micro-batch", "2", "--no-offload",
            "--checkpoint", "full")  # fmt: skip
    full = run(*base, "--optimizer", "adamw-bf16", "--format", "json")
    lora, qlora = plan(*base, "--lora", "16"), plan(*base, "--lora", "16", "--quantize", "nf4-dq")
    totals = [json.loads(full.output)["plans"][0]["total_bytes"], lora[0]["total_bytes"], qlora[0]["total_bytes"]]
    assert totals[0] > 2 * totals[1] > 2 * totals[2]
    wide = plan(*base, "--lora", "16", "--optimizer", "adamw-fp32")[0]["memory_bytes"]["weights"]
    assert wide == pytest.approx(2 * lora[0]["memory_bytes"]["weights"], rel=0.01)
    assert "add --lora" in run(*base, "--quantize", "nf4").output
    peft = plan(*base, "--lora", "16", "--lora-library", "peft", "--lora-dropout", "--quantize", "nf4-dq")
    assert peft[0]["total_bytes"] > qlora[0]["total_bytes"]
    pure = run(*base, "--lora", "16", "--lora-library", "peft", "--optimizer", "adamw-8bit-bf16")
    assert "use --optimizer adamw-8bit-mixed" in pure.output


def test_tokens_give_hours_and_cost() -> None:
    arguments = ("--params", "7b", "--gpus", "8xA100-80GB", "--tokens", "1b")
    found = plan(*arguments, "--price", "2.5")[0]["throughput"]
    assert found["hours"] == pytest.approx(1e9 / found["tokens_per_second"] / 3600)
    assert found["cost"] == pytest.approx(found["hours"] * 8 * 2.5)
    catalogue = plan(*arguments)[0]["throughput"]
    assert 0.5 < catalogue["price_per_gpu_hour"] < 6
    assert catalogue["price_source"]
    assert plan("--params", "7b", "--gpus", "8x80GiB")[0]["throughput"] is None  # its speed is not known


def test_a_slow_network_moves_splits_into_the_node() -> None:
    arguments = ("--params", "13b", "--gpus", "4x8xH100", "--global-batch", "512")
    fast, slow = (plan(*arguments, "--network", gbits)[0] for gbits in ("400", "5"))
    assert slow["throughput"]["tokens_per_second"] < fast["throughput"]["tokens_per_second"]
    assert slow["layout"] != fast["layout"]


def test_experts_are_split_and_counted(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({
        "model_type": "mixtral", "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8,
        "num_hidden_layers": 32, "intermediate_size": 14336, "vocab_size": 32000, "num_local_experts": 8,
        "num_experts_per_tok": 2,
    }))  # fmt: skip
    (found, *_) = plan("--config", str(config), "--gpus", "8x8xH100", "--ep", "8", "--tp", "1", "--pp", "1")
    assert found["layout"]["expert"] == 8
    refused = run("--config", str(config), "--gpus", "8x8xH100", "--ep", "3")
    assert "must divide the model's 8 experts" in refused.output
