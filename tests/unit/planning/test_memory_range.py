"""The range that a description leaves open, and the optimizer's step as PyTorch runs it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from gpu_advisor.cli import cli
from gpu_advisor.planning.known_models import KNOWN_SHAPES
from gpu_advisor.planning.layout import OPTIMIZERS, Adapters, OptimizerSpec, ParallelLayout
from gpu_advisor.planning.memory_model import OVERHEAD_BYTES, memory
from gpu_advisor.planning.memory_range import RESERVED_RATIO, WAYS, memory_range
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fresh_runs import FRESH
from benchmarks.later_runs import LATER, summary

torch = pytest.importorskip("torch")

SHAPE = KNOWN_SHAPES["TinyLlama-1.1B"]
OPTIONS = tuple(WAYS)
LORA = replace(OPTIMIZERS["adamw-mixed"], adapters=Adapters(8, "all", "nf4"))


@given(
    st.sets(st.sampled_from(OPTIONS)), st.sampled_from([*OPTIMIZERS.values(), LORA]), st.sampled_from([0, 1, 2, 3]),
    st.sampled_from(["none", "selective", "full"]), st.sampled_from([1, 4]),
)  # fmt: skip
def test_the_plan_is_in_its_range_and_less_stated_is_wider(
    unstated: set[str], recipe: OptimizerSpec, zero: int, checkpointing: str, steps: int
) -> None:
    layout = ParallelLayout(data=4, zero=zero, micro_batch=2, accumulation=steps, checkpointing=checkpointing)  # type: ignore[arg-type]
    total = memory(SHAPE, layout, recipe, OVERHEAD_BYTES).total
    of = memory_range(SHAPE, layout, recipe, OVERHEAD_BYTES, unstated)
    wider = memory_range(SHAPE, layout, recipe, OVERHEAD_BYTES, OPTIONS)
    assert wider.low <= of.low <= total <= of.high <= wider.high
    assert of.shown_high - OVERHEAD_BYTES == pytest.approx(RESERVED_RATIO * (of.high - OVERHEAD_BYTES))
    assert set(of.open) <= unstated
    if not unstated:
        assert of.low == of.high == total


@pytest.mark.parametrize(
    ("name", "dtype"), [("adamw-bf16", torch.bfloat16), ("adamw-fp32", torch.float32)], ids=["bf16", "fp32"]
)
@pytest.mark.parametrize("step", ["fused", "foreach"])
def test_temporaries_of_the_optimizers_step_are_what_pytorch_has(name: str, dtype: object, step: str) -> None:
    from gpu_advisor.calibration.memory_tracker import MemoryTracker

    parameters = [torch.nn.Parameter(torch.zeros(300, 400, dtype=dtype)) for _ in range(5)]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW(parameters, foreach=step == "foreach", fused=step == "fused")
    optimizer.step()  # makes the states
    with MemoryTracker() as tracker:
        optimizer.step()
    count = sum(parameter.numel() for parameter in parameters)
    expected = OPTIMIZERS[name].foreach_temporaries * count if step == "foreach" else 0.0
    # Tensors that existed before count once they are touched in place; fused steps touch states, too.
    states = sum(
        each.numel() * each.element_size()
        for parameter in parameters
        for each in (parameter, parameter.grad, *optimizer.state[parameter].values())
    )
    assert tracker.peak_bytes - expected <= states * 1.01
    made = tracker.peak_bytes - tracker.current_bytes
    assert made == pytest.approx(expected, abs=0.02 * states)


def test_the_step_counts_where_it_is_the_fullest_moment_and_is_sharded_with_the_states() -> None:
    checkpointed = ParallelLayout(checkpointing="full")
    fused = OPTIMIZERS["adamw-bf16"]
    foreach = replace(fused, step="foreach")
    more = memory(SHAPE, checkpointed, foreach, 0.0).total - memory(SHAPE, checkpointed, fused, 0.0).total
    assert 0 < more <= 2 * SHAPE.parameters
    assert memory(SHAPE, checkpointed, foreach, 0.0).activations == 0.0
    assert memory(SHAPE, checkpointed, foreach, 0.0).buffers == pytest.approx(2 * SHAPE.parameters, rel=1e-4)
    short = replace(SHAPE, sequence=16)
    sharded = replace(checkpointed, data=8, zero=2)
    assert memory(short, sharded, foreach, 0.0).buffers == pytest.approx(2 * SHAPE.parameters / 8, rel=1e-4)
    for without in (replace(foreach, in_backward=True), replace(OPTIMIZERS["adamw-8bit-bf16"], step="foreach")):
        assert memory(SHAPE, checkpointed, without, 0.0) == memory(
            SHAPE, checkpointed, replace(without, step="fused"), 0.0
        )


def test_a_whole_root_keeps_the_embedding_gathered_beside_the_output_layer() -> None:
    sharded = ParallelLayout(data=8, zero=3, checkpointing="full", loss="fused")
    whole = replace(sharded, fsdp_root="whole")
    recipe = OPTIMIZERS["adamw-bf16"]
    more = memory(SHAPE, whole, recipe, 0.0).total - memory(SHAPE, sharded, recipe, 0.0).total
    embedding, output = SHAPE.embedding_parameters, SHAPE.output_parameters
    assert embedding > 0 < output
    # At the loss the embedding's weights, at the end of the backward pass all weights of the root and their gradients.
    assert 2 * embedding <= more <= 4 * (embedding + output)
    unsharded = replace(whole, zero=2)
    assert memory(SHAPE, unsharded, recipe, 0.0) == memory(SHAPE, replace(unsharded, fsdp_root="split"), recipe, 0.0)


def test_the_command_shows_the_range_of_what_is_not_given() -> None:
    plan = ["plan", "--params", "7b", "--gpus", "1xA100-80GB", "--optimizer", "adamw-bf16", "--checkpoint", "full",
            "--micro-batch", "8", "--global-batch", "8", "--no-offload"]  # fmt: skip
    shown = CliRunner().invoke(cli, plan).output
    assert "depending on what is not given (--optimizer-step)" in shown
    document = json.loads(CliRunner().invoke(cli, [*plan, "--format", "json"]).output)["plans"][0]
    of = document["range"]
    assert of["unstated"] == ["optimizer_step"]
    assert of["allocated_low_bytes"] <= document["total_bytes"] < of["allocated_high_bytes"] < of["shown_high_bytes"]
    stated = CliRunner().invoke(cli, [*plan, "--optimizer-step", "foreach"]).output
    assert "not given" not in stated
    assert "nvidia-smi shows up to 24%" in stated


def test_published_figures_are_in_the_range_that_their_description_leaves_open() -> None:
    """Of figures that the planner was not made for."""
    one_length = summary(tuple(run for run in LATER if not run.varied))
    assert one_length["figures"] >= 15
    assert one_length["in_range"] / one_length["figures"] >= 0.85
    assert summary(LATER)["in_range"] / summary(LATER)["figures"] >= 0.95
    assert all(run.source.startswith("https://") for run in (*FRESH, *LATER))
