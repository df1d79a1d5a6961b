"""The formulas by numbers: parameters of published models, bytes of a layer, and what each way to split divides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from gpu_advisor.hardware.cluster_spec import ClusterSpec
from gpu_advisor.hardware.errors import PlanError
from gpu_advisor.hardware.gpu_types import GIB
from gpu_advisor.planning.activation_model import activation_bytes_per_token, layer_activations
from gpu_advisor.planning.known_models import (
    KNOWN_SHAPES,
    SIZE_TOLERANCE_RATIO,
    parse_parameter_count,
    shape_from_size,
)
from gpu_advisor.planning.layout import OPTIMIZERS, Loss, OptimizerSpec, ParallelLayout
from gpu_advisor.planning.layout_search import PlanRequest, search_layouts
from gpu_advisor.planning.memory_model import LOGIT_BYTES, activations, memory
from gpu_advisor.planning.model_configs import shape_from_config
from gpu_advisor.planning.throughput import step_time
from gpu_advisor.planning.transformer_shape import TransformerShape
from hypothesis import given
from hypothesis import strategies as st

MIXED = OPTIMIZERS["adamw-mixed"]
LLAMA, GPT2 = KNOWN_SHAPES["LLaMA-7B"], KNOWN_SHAPES["GPT-2"]
MIXTRAL = {
    "model_type": "mixtral", "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8,
    "num_hidden_layers": 32, "intermediate_size": 14336, "vocab_size": 32000, "max_position_embeddings": 32768,
    "tie_word_embeddings": False, "num_local_experts": 8, "num_experts_per_tok": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [
        (GPT2, 124_439_808),
        (KNOWN_SHAPES["GPT-2 XL"], 1_557_611_200),
        (KNOWN_SHAPES["TinyLlama-1.1B"], 1_100_048_384),
        (LLAMA, 6_738_415_616),
        (KNOWN_SHAPES["Llama-3-8B"], 8_030_261_248),
        (KNOWN_SHAPES["Llama-2-70B"], 68_976_648_192),
        (shape_from_config(MIXTRAL), 46_702_792_704),
    ],
)
def test_parameters_are_those_of_the_published_weights(shape: TransformerShape, parameters: int) -> None:
    assert shape.parameters == parameters
    assert isinstance(shape.parameters, int)


@pytest.mark.parametrize(
    ("gated", "biases", "experts", "layer"),
    [
        # hidden 8, queries 8, keys and values 4 each, feed-forward 16: 192 of attention, 128 a feed-forward matrix
        (False, False, 1, 192 + 2 * 128 + 2 * 8),
        (True, False, 1, 192 + 3 * 128 + 2 * 8),
        (True, False, 4, 192 + 4 * 3 * 128 + 2 * 8 + 8 * 4),
        (False, True, 1, 192 + 2 * 128 + 4 * 8 + (8 + 2 * 4 + 8) + (16 + 8)),
        (True, True, 2, 192 + 2 * 3 * 128 + 4 * 8 + 8 * 2 + (8 + 2 * 4 + 8) + 2 * (2 * 16 + 8)),
    ],
)
def test_a_layer_is_its_projections_norms_biases_and_router(
    gated: bool, biases: bool, experts: int, layer: int
) -> None:
    shape = TransformerShape(3, 8, 4, 2, 16, 50, 10, gated=gated, biases=biases, experts=experts, tied=False)
    assert (shape.query_width, shape.key_value_width) == (8, 4)
    assert shape.layer_parameters == layer
    assert shape.parameters == 3 * layer + 2 * 50 * 8 + 8 * (2 if biases else 1)
    assert replace(shape, tied=True, positions=7).parameters == shape.parameters - 50 * 8 + 7 * 8


def test_a_head_width_that_is_given_counts() -> None:
    shape = TransformerShape(1, 9, 4, 2, 16, 50, 10, head_width=3)
    assert (shape.query_width, shape.key_value_width) == (12, 6)


@pytest.mark.parametrize("name", ["layers", "hidden", "heads", "kv_heads", "ffn", "vocabulary", "sequence", "experts"])
def test_dimensions_are_positive(name: str) -> None:
    with pytest.raises(PlanError, match=name):
        replace(GPT2, **dict[str, Any]({name: 0}))
    assert TransformerShape(1, 1, 1, 1, 1, 1, 1).experts == 1


# Sizes


@pytest.mark.parametrize(
    ("text", "number"), [("7b", 7e9), ("1.3B", 1.3e9), ("350m", 350e6), (" 5k ", 5e3), ("1T", 1e12), ("123", 123.0)]
)
def test_sizes_as_written(text: str, number: float) -> None:
    assert parse_parameter_count(text) == pytest.approx(number)


@given(st.sampled_from(sorted(KNOWN_SHAPES)), st.floats(-0.06, 0.06))
def test_a_size_near_a_published_model_has_its_layers(name: str, off: float) -> None:
    model = KNOWN_SHAPES[name]
    if min(abs(model.parameters / each.parameters - 1) for each in KNOWN_SHAPES.values() if each is not model) < 0.2:
        return  # another one is as near
    found = shape_from_size(f"{model.parameters * (1 + off):.0f}")
    assert (found.layers, found.hidden) == (model.layers, model.hidden)
    assert "layers" not in found.assumed


@pytest.mark.parametrize("off", [-0.2, 0.25])
def test_a_size_between_models_has_other_layers(off: float) -> None:
    wanted = LLAMA.parameters * (1 + off) if off < 0 else KNOWN_SHAPES["LLaMA-33B"].parameters * (1 + off)
    found = shape_from_size(f"{wanted:.0f}")
    assert abs(found.parameters - wanted) <= 0.51 * found.layer_parameters
    assert f"with {found.layers} layers" in found.assumed
    assert abs(off) > SIZE_TOLERANCE_RATIO


@pytest.mark.parametrize(("factor", "known"), [(0.26, True), (0.24, False)])
def test_sizes_far_below_all_models_are_refused(factor: float, known: bool) -> None:
    text = f"{GPT2.parameters * factor:.0f}"
    if known:
        assert shape_from_size(text).layers >= 1
    else:
        with pytest.raises(PlanError):
            shape_from_size(text)


@pytest.mark.parametrize(("factor", "known"), [(3.9, True), (4.1, False)])
def test_sizes_far_above_all_models_are_refused(factor: float, known: bool) -> None:
    text = f"{KNOWN_SHAPES['Llama-3.1-405B'].parameters * factor:.0f}"
    if known:
        assert shape_from_size(text).layers > 126
    else:
        with pytest.raises(PlanError):
            shape_from_size(text)


# Activations


@pytest.mark.parametrize(
    ("shape", "divided", "whole", "scores"),
    [
        # Korthikanti et al.: 34 bytes of hidden width, 24 of which tensor parallelism divides; 5 a score
        (TransformerShape(1, 8, 4, 4, 32, 50, 10, dropout=True), 24 * 8, 10 * 8, 5 * 4 * 10),
        (TransformerShape(1, 8, 4, 4, 32, 50, 10), 24 * 8, 8 * 8, 2 * 4 * 10),
        (TransformerShape(1, 8, 4, 2, 32, 50, 10), 24 * 8 - 2 * 2 * 4, 8 * 8, 2 * 4 * 10),
        (TransformerShape(1, 8, 4, 4, 32, 50, 10, gated=True), 24 * 8 + 2 * 2 * 32, 8 * 8, 2 * 4 * 10),
        (TransformerShape(1, 8, 4, 4, 32, 50, 10, experts=4, experts_used=2), 24 * 8 + 2 * 2 * 32, 8 * 8, 2 * 4 * 10),
    ],
)
def test_bytes_a_token_that_a_layer_keeps(shape: TransformerShape, divided: int, whole: int, scores: int) -> None:
    found = activation_bytes_per_token(shape, 2)
    assert (found.divided, found.whole, found.scores) == (divided, whole, scores)


def test_what_a_layer_keeps_on_each_gpu() -> None:
    shape = TransformerShape(4, 8, 4, 4, 32, 50, 10, dropout=True)
    for tensor, sequence_parallel, flash, each in (
        (1, False, False, 24 * 8 + 10 * 8 + 5 * 4 * 10),
        (1, False, True, 24 * 8 + 10 * 8),
        (2, False, False, 12 * 8 + 10 * 8 + 5 * 2 * 10),
        (2, True, False, 12 * 8 + 5 * 8 + 5 * 2 * 10),
    ):
        layout = ParallelLayout(tensor, micro_batch=3, sequence_parallel=sequence_parallel, flash_attention=flash)
        assert layer_activations(shape, layout, 2) == 3 * 10 * each


@given(st.integers(1, 4), st.integers(1, 8), st.sampled_from([2, 4]))
def test_the_fuller_of_first_and_last_stage_counts(pipeline: int, accumulation: int, value: int) -> None:
    shape = TransformerShape(8, 8, 4, 4, 32, 5000, 10)
    layout = ParallelLayout(pipeline=pipeline, accumulation=accumulation)
    layers, layer = -(-8 // pipeline), layer_activations(shape, layout, value)
    logits = (14 if value == 2 else 12) * 10 * 5000
    held = layers * layer * min(pipeline, accumulation)
    expected = held + logits if pipeline == 1 else max(held, layers * layer + logits)
    assert activations(shape, layout, value) == pytest.approx(expected)
    full = replace(layout, checkpointing="full")
    kept = layers * value * 10 * 8
    first = kept * min(pipeline, accumulation)
    expected = first + logits if pipeline == 1 else max(first, kept + logits)
    assert activations(shape, full, value) == pytest.approx(expected)


# States and buffers


@pytest.mark.parametrize(
    ("zero", "offload", "states"),
    [
        (0, "none", (2, 2, 12)),
        (1, "none", (2, 2, 3)),
        (2, "none", (2, 0.5, 3)),
        (3, "none", (0.5, 0.5, 3)),
        (0, "optimizer", (2, 2, 0)),
        (1, "optimizer", (2, 2, 0)),
        (2, "optimizer", (2, 0, 0)),
        (3, "optimizer", (0.5, 0, 0)),
        (0, "all", (0, 2, 0)),
        (3, "all", (0, 0, 0)),
    ],
)
def test_states_a_parameter_with_four_ranks(zero: int, offload: Any, states: tuple[float, float, float]) -> None:
    layout = ParallelLayout(data=4, zero=zero, accumulation=2, offload=offload)
    need = memory(LLAMA, layout, MIXED, overhead_bytes=5.0)
    last_norm = LLAMA.hidden
    parameters = LLAMA.parameters - last_norm
    assert (need.weights, need.gradients, need.optimizer) == pytest.approx(tuple(each * parameters for each in states))
    brought_in = zero == 3 or offload == "all"
    # Two layers, and the output layer with its gradient.
    assert need.buffers == (2 * 2 * (LLAMA.layer_parameters + LLAMA.output_parameters) if brought_in else 0)
    assert need.states == pytest.approx(need.weights + need.gradients + need.optimizer)
    assert need.total == pytest.approx(need.states + need.activations + need.logits + need.buffers + 5.0)
    assert memory(LLAMA, layout, MIXED, 5.0, 1.5).activations == pytest.approx(1.5 * need.activations)


def test_a_pipelines_first_stage_has_the_embedding_and_not_the_output() -> None:
    need = memory(LLAMA, ParallelLayout(pipeline=3), MIXED)
    assert need.weights == pytest.approx(2 * (11 * LLAMA.layer_parameters + LLAMA.embedding_parameters))
    split = memory(LLAMA, ParallelLayout(tensor=4), MIXED)
    assert split.weights == pytest.approx(2 * (LLAMA.parameters - LLAMA.hidden) / 4)


# Costs and the search


def request(shape: TransformerShape = LLAMA, gib: int = 80, gpus: int = 8, batch: int = 64, **more: Any) -> PlanRequest:
    return PlanRequest(shape, ClusterSpec("X", 1, gpus, gib * GIB), MIXED, batch, **more)


def relative(shape: TransformerShape = LLAMA, recipe: OptimizerSpec = MIXED, **layout: Any) -> float:
    machines = ClusterSpec("A100", 2, 8, 80 * GIB)
    return step_time(shape, ParallelLayout(**layout), recipe, machines).relative


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        ({}, 1.1),  # 2,048 tokens at once: a tenth
        ({"micro_batch": 4}, 1.025),
        ({"checkpointing": "full"}, 1.1 * 4 / 3),
        ({"checkpointing": "full", "checkpoint_ratio": 0.5}, 1.1 * (1 + 1 / 6)),
        ({"checkpointing": "selective"}, 1.1 * (1 + 1 / 6)),
        ({"pipeline": 3, "accumulation": 8}, 1.1 * 1.25),
    ],
)
def test_time_of_layouts_relative_to_computation(change: dict[str, Any], factor: float) -> None:
    assert relative(**change) == pytest.approx(factor, rel=1e-3)
    if not change:
        assert relative(replace(LLAMA, sequence=4096)) == pytest.approx(1.05, rel=1e-3)


def test_time_grows_with_communication_and_shrinks_with_its_speed() -> None:
    assert relative(tensor=8) > relative(tensor=2) > relative()
    assert relative(data=16, zero=3) > relative(data=16, zero=1) > relative()
    assert relative(offload="all") > relative(offload="optimizer") > relative()
    assert relative(recipe=OPTIMIZERS["adamw-fp8"]) < relative()
    layout = ParallelLayout(data=16, zero=3)
    slow, fast = (
        step_time(LLAMA, layout, MIXED, ClusterSpec("A100", 2, 8, 80 * GIB, network_gbits=gbits)).seconds
        for gbits in (10, 400)
    )
    assert slow > 2 * fast


def test_throughput_of_published_runs() -> None:
    """LLM Foundry's 13 B on 8 A100 (2,262 tokens/s a GPU, micro-batch 2) and 7 B on 8 H100 (10,643, micro-batch 6)."""
    mpt = TransformerShape(40, 5120, 40, 40, 20480, 50368, 2048, biases=False, positions=2048)
    small = replace(mpt, layers=32, hidden=4096, heads=32, kv_heads=32, ffn=16384)
    for shape, gpu, micro, published in ((mpt, "A100", 2, 2262), (small, "H100", 6, 10643)):
        layout = ParallelLayout(data=8, zero=3, micro_batch=micro)
        found = step_time(shape, layout, MIXED, ClusterSpec(gpu, 1, 8, 80 * GIB))
        assert found.tokens_per_second / 8 == pytest.approx(published, rel=0.2)


@pytest.mark.parametrize(
    ("margin", "batch", "fits"), [(0.0, 1, True), (0.99, 1, True), (1.0, 1, False), (-0.01, 1, False), (0.0, 0, False)]
)
def test_margins_and_batches_within_reason(margin: float, batch: int, fits: bool) -> None:
    question = request(GPT2, gpus=1, batch=batch, margin_ratio=margin)
    if fits:
        assert search_layouts(question).tried > 0
    else:
        with pytest.raises(PlanError):
            search_layouts(question)


def test_what_is_tried_is_every_sensible_split() -> None:
    """With one GPU there is nothing to split: micro-batches, checkpointing and off-loading are left."""
    for batch, sizes in ((1, 1), (12, 6), (128, 7)):  # divisors up to 64
        assert search_layouts(request(GPT2, gpus=1, batch=batch, offloading=False)).tried == sizes * 3
        assert search_layouts(request(GPT2, gpus=1, batch=batch)).tried == sizes * 3 * 3
    # Two GPUs: data, with four stages of ZeRO, off-loading what is sharded; tensor; pipeline, not off-loaded.
    assert search_layouts(request(GPT2, gpus=2, batch=2)).tried == (1 * 3 * (4 + 3 + 1) + 2 * 3 * 3 + 2 * 3)
    # An odd batch cannot be split over two by data; three key-value heads cannot be split over two by tensor.
    assert search_layouts(request(GPT2, gpus=2, batch=1)).tried == 1 * 3 * 3 + 1 * 3
    odd = replace(GPT2, heads=3, kv_heads=3, layers=1)  # and one layer by no pipeline
    assert search_layouts(request(odd, gpus=2, batch=2)).tried == 1 * 3 * (4 + 3 + 1)


def test_the_nearest_is_the_one_that_needs_least() -> None:
    found = search_layouts(request(KNOWN_SHAPES["Llama-3.1-405B"], gib=16, gpus=1, batch=4))
    assert not found.best
    assert found.nearest is not None
    assert found.nearest.layout.offload == "all"
    assert found.nearest.layout.micro_batch == 1
    assert sum(count for _, count in found.ruled_out) == found.tried


@pytest.mark.parametrize(("gib", "states"), [(16, True), (115, False)])
def test_what_ruled_layouts_out(gib: int, states: bool) -> None:
    """7 billion parameters of 16 bytes: 100 GiB."""
    found = search_layouts(request(gib=gib, gpus=1, batch=64, offloading=False, margin_ratio=0.0))
    assert any("states" in reason and "alone" in reason for reason, _ in found.ruled_out) is states
    assert any("activations" in reason for reason, _ in found.ruled_out) is not states


def test_one_plan_for_each_way_to_split_and_no_more_than_asked_for() -> None:
    question = request(GPT2, gpus=4)
    every = search_layouts(question, 100).best
    ways = [(each.layout.tensor, each.layout.pipeline, each.layout.zero, each.layout.offload) for each in every]
    assert len(set(ways)) == len(ways) > 3
    assert search_layouts(question, 3).best == every[:3]
    assert [each.cost for each in every] == sorted(each.cost for each in every)


# Configurations


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ({}, "sequence", 4096),  # not all of 32,768
        ({"max_position_embeddings": 512}, "sequence", 512),
        ({}, "positions", 0),
        ({"model_type": "opt", "max_position_embeddings": 512}, "positions", 512),
        ({"model_type": "opt"}, "gated", False),
        ({}, "gated", True),
        ({"head_dim": 256}, "head_width", 256),
        ({}, "head_width", 128),
        ({}, "experts_used", 2),
        ({"num_experts_per_tok": None}, "experts_used", 1),
        ({"num_local_experts": None}, "experts", 1),
        ({"num_key_value_heads": None}, "kv_heads", 32),
        ({"intermediate_size": None}, "ffn", 4 * 4096),
        ({"intermediate_size": True}, "ffn", 4 * 4096),  # no number
        ({"intermediate_size": 0}, "ffn", 4 * 4096),
        ({"tie_word_embeddings": None, "model_type": "gpt2"}, "tied", False),
    ],
)
def test_fields_of_a_config(change: dict[str, Any], field: str, value: object) -> None:
    assert getattr(shape_from_config({**MIXTRAL, **change}), field) == value
    assert shape_from_config(MIXTRAL, 77).sequence == 77


@pytest.mark.parametrize("loss", ["eager", "float32"])
def test_bytes_of_a_logit_are_those_that_pytorch_allocates(loss: Loss) -> None:
    torch = pytest.importorskip("torch")
    from gpu_advisor.calibration.memory_tracker import MemoryTracker

    tokens, vocabulary = 256, 8000
    labels = torch.randint(0, vocabulary, (1, tokens))
    hidden, weight = (
        torch.randn(*size, 16, dtype=torch.bfloat16, requires_grad=True) for size in ((1, tokens), (vocabulary,))
    )

    def forward() -> tuple[Any, Any]:
        """Logits and loss of transformers' causal language models: today's, and those until 2024."""
        logits = hidden @ weight.T
        if loss == "float32":
            logits = logits.float()
            shifted, targets = logits[..., :-1, :].contiguous(), labels[..., 1:]
        else:
            shifted, targets = logits.float(), torch.nn.functional.pad(labels, (0, 1), value=-100)[..., 1:]
        return logits, torch.nn.functional.cross_entropy(shifted.view(-1, vocabulary), targets.reshape(-1))

    with MemoryTracker() as tracker:
        output = forward()
        output[1].backward()
    assert tracker.peak_bytes / tokens / vocabulary == pytest.approx(LOGIT_BYTES[loss], rel=0.03)
