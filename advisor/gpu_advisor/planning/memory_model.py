"""Training memory of one GPU, term by term, at the moment when it is fullest.

Model states follow ZeRO (Rajbhandari et al., 2020, https://arxiv.org/abs/1910.02054, section 5): with a degree of N,
stage 1 divides the optimizer's states by N, stage 2 the gradients too, stage 3 the weights too. FSDP is stage 3.

Three moments compete. At the loss, all activations and the logits exist, but in a step without accumulation no
gradients yet. At the end of the backward pass, all gradients exist, and of the activations those of one layer,
recomputed or not. In the optimizer's step, no activations, but the temporaries of a foreach implementation. The
breakdown is that of the largest one. Activations: `activation_model`.

FSDP gathers a unit's weights while it runs, those of the root from its forward to the end of its backward pass
(https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html): with a policy that wraps the layers alone, as
accelerate's, embedding and output layer are the root's.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import ceil

from gpu_advisor.planning.activation_model import kept_layer_activations, layer_activations, local_tokens
from gpu_advisor.planning.adapter_model import adapter_parameters, frozen_bytes
from gpu_advisor.planning.layout import Loss, OptimizerSpec, ParallelLayout
from gpu_advisor.planning.transformer_shape import TransformerShape

#: Assumed memory of driver context, libraries and communicators on each GPU, before any tensor is allocated. A profile
#: replaces it.
OVERHEAD_BYTES = 1 << 30

#: Bytes per logit at the loss with 16-bit values. Eager cross-entropy: the 16-bit logits, their float32 copy, the
#: log-softmax and its gradient (2 + 4 + 4 + 4); with logits that the model itself returns in float32, as those of
#: transformers did until 2024, 16; compiled, only the copy and its gradient besides rounding (8), as
#: https://pytorch.org/torchtune measured for Gemma 2 (28 and 16 GB); chunked: 16-bit logits, and the
#: rest for an eighth of them, compiled; fused with the output layer: an eighth of the eager one.
LOGIT_BYTES: dict[Loss, float] = {
    "eager": 14.0, "float32": 16.0, "compiled": 8.0, "chunked": 2 + 6 / 8, "fused": 14 / 8,
}  # fmt: skip
#: Splitting the vocabulary over tensor-parallel GPUs, eager cross-entropy makes one more copy and an exponential of it
#: (https://github.com/pytorch/pytorch/blob/main/torch/distributed/tensor/parallel/loss.py).
_SPLIT_LOSS_BYTES = 6.0
_FLOAT32_BYTES = 4


@dataclass(frozen=True, slots=True)
class MemoryBreakdown:
    """Bytes on the fullest GPU. `buffers`: weights that ZeRO-3 or offloading gathers, their gradients before they are
    sharded, activations that tensor parallelism gathers, and temporaries of the optimizer's step."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    buffers: float
    overhead: float
    logits: float = 0.0

    @property
    def total(self) -> float:
        return float(sum(getattr(self, field.name) for field in fields(self)))

    @property
    def states(self) -> float:
        return self.weights + self.gradients + self.optimizer


def logits(shape: TransformerShape, layout: ParallelLayout, bytes_a_value: int) -> float:
    """Bytes of the logits and what the loss makes of them, on a GPU with the output layer."""
    each = LOGIT_BYTES[layout.loss]
    if bytes_a_value == _FLOAT32_BYTES and layout.loss != "float32":
        each *= 12 / 14  # no 16-bit copy
    if layout.tensor > 1 and layout.loss in ("eager", "float32"):
        each += _SPLIT_LOSS_BYTES
    return each * local_tokens(shape, layout) * shape.vocabulary / layout.tensor


def activations(shape: TransformerShape, layout: ParallelLayout, bytes_a_value: int) -> float:
    """Bytes of activations and logits at the loss, on the pipeline's first or last stage, whichever needs more.

    The first stage keeps one micro-batch per stage (1F1B schedule; section 4.2.3 of Korthikanti), the last stage one
    micro-batch and the logits.
    """
    return sum(_fullest_stage(shape, layout, bytes_a_value, None))


def _fullest_stage(
    shape: TransformerShape, layout: ParallelLayout, bytes_a_value: int, recipe: OptimizerSpec | None
) -> tuple[float, float]:
    """Activations and logits, apart."""
    layers = ceil(shape.layers / layout.pipeline)
    kept, _ = kept_layer_activations(shape, layout, bytes_a_value, recipe.adapters if recipe else None)
    of_logits = logits(shape, layout, bytes_a_value)
    if layout.offload_activations:
        kept *= min(1.0, 2 / layers)  # two layers' are on their way
    first = layers * kept * min(layout.pipeline, layout.accumulation)
    last = layers * kept
    if layout.pipeline == 1:
        return first, of_logits
    return (first, 0.0) if first >= last + of_logits else (last, of_logits)


def states(parameters: float, layout: ParallelLayout, recipe: OptimizerSpec) -> tuple[float, float, float]:
    """Bytes of weights, gradients and optimizer states on a GPU with `parameters`, by ZeRO stage."""
    over = layout.shards
    weights = recipe.weights * parameters / (over if layout.zero >= 3 else 1)
    sharded = layout.zero >= 2 and not layout.accumulates_whole_gradients
    gradients = recipe.gradients * parameters / (over if sharded else 1)
    optimizer = recipe.optimizer * parameters / (over if layout.zero >= 1 else 1)
    if layout.offload != "none":
        optimizer, gradients = 0.0, gradients if layout.zero < 2 else 0.0
    if layout.offload == "all":
        weights = 0.0
    return weights, gradients, optimizer


def local_parameters(shape: TransformerShape, layout: ParallelLayout) -> float:
    """Parameters of the fullest pipeline stage on one GPU, before ZeRO; experts are divided by their own degree."""
    layers = ceil(shape.layers / layout.pipeline)
    ends = shape.embedding_parameters + (shape.output_parameters if layout.pipeline == 1 else 0)
    experts = layers * shape.layer_expert_parameters
    dense = layers * shape.layer_parameters - experts + ends
    # Experts split over data-parallel GPUs are sharded over so many fewer: with ZeRO-3 the product is the same.
    expert_split = layout.expert if layout.zero < 3 else 1
    return (dense + experts / expert_split) / layout.tensor


def memory(
    shape: TransformerShape,
    layout: ParallelLayout,
    recipe: OptimizerSpec,
    overhead_bytes: float = OVERHEAD_BYTES,
    activations_ratio: float = 1.0,
) -> MemoryBreakdown:
    """Memory of a layout's fullest GPU; `activations_ratio` scales activations and logits, from a profile."""
    parameters, weights, gradients, optimizer = _stage_states(shape, layout, recipe)
    at_loss, at_end = _buffers(shape, layout, recipe, parameters)
    kept, of_logits = _fullest_stage(shape, layout, recipe.activations, recipe)
    _, recomputed = kept_layer_activations(shape, layout, recipe.activations, recipe.adapters)
    one_layer = recomputed or layer_activations(shape, layout, recipe.activations, recipe.adapters)
    if layout.pipeline > 1:  # other micro-batches are in flight while a layer is recomputed
        kept += recomputed
    persistent = layout.accumulation > 1 or layout.pipeline > 1 or (layout.data > 1 and layout.zero < 3)
    loss = MemoryBreakdown(
        weights, gradients if persistent or recipe.in_backward else 0.0, optimizer, activations_ratio * kept, at_loss,
        overhead_bytes, activations_ratio * of_logits,
    )  # fmt: skip
    end = MemoryBreakdown(weights, gradients, optimizer, activations_ratio * one_layer, at_end, overhead_bytes)
    step = MemoryBreakdown(
        weights, gradients, optimizer, 0.0, _step_temporaries(parameters, layout, recipe), overhead_bytes
    )
    return max(loss, end, step, key=lambda each: each.total)


def _stage_states(
    shape: TransformerShape, layout: ParallelLayout, recipe: OptimizerSpec
) -> tuple[float, float, float, float]:
    """Trained parameters of the fullest stage on one GPU, and the bytes of weights, gradients and optimizer states."""
    parameters = local_parameters(shape, layout)
    frozen = 0.0
    if recipe.adapters:
        frozen = frozen_bytes(shape, recipe.adapters, recipe.weights) * parameters / shape.parameters
        frozen /= layout.shards if layout.zero >= 3 else 1
        frozen *= 0.0 if layout.offload == "all" else 1.0
        parameters = adapter_parameters(shape, recipe.adapters) / layout.pipeline / layout.tensor
    weights, gradients, optimizer = states(parameters, layout, recipe)
    if recipe.embedding_optimizer is not None and not recipe.adapters and layout.offload == "none":
        more = (recipe.embedding_optimizer - recipe.optimizer) * shape.embedding_parameters / layout.tensor
        optimizer += more / (layout.shards if layout.zero >= 1 else 1)
    if recipe.in_backward:
        layer, output = _layer_and_output(shape, layout)
        gradients = min(gradients, recipe.gradients * max(layer, output) * (not recipe.adapters))
    return parameters, weights + frozen, gradients, optimizer


def _layer_and_output(shape: TransformerShape, layout: ParallelLayout) -> tuple[float, float]:
    """Parameters of a layer, and of the output layer, on one GPU of a tensor-parallel group."""
    output = shape.output_parameters or shape.vocabulary * shape.hidden
    return shape.layer_parameters / layout.tensor, output / layout.tensor


def _buffers(
    shape: TransformerShape, layout: ParallelLayout, recipe: OptimizerSpec, parameters: float
) -> tuple[float, float]:
    """Bytes of gathered weights, gradients and inputs at the loss, and at the end of the backward pass."""
    value, trained = recipe.activations, 0.0 if recipe.adapters else 1.0
    layer, output = _layer_and_output(shape, layout)
    at_loss = at_end = 0.0
    if layout.zero >= 3 and layout.pipeline > 1:
        # Weights stay gathered from micro-batch to micro-batch, and gradients are reduced after the last one.
        at_loss = at_end = value * parameters + trained * _FLOAT32_BYTES * (parameters + layer)
    elif layout.zero >= 3 or layout.offload == "all":
        gathered = (
            frozen_bytes(shape, recipe.adapters, recipe.weights) / shape.parameters if recipe.adapters else float(value)
        )
        layer *= 1 - (1 - 1 / layout.expert) * shape.layer_expert_parameters / shape.layer_parameters
        at_loss = 2 * gathered * layer + value * output * (1 + trained)
        at_end = 2 * gathered * layer + trained * (value + _FLOAT32_BYTES) * layer
        if layout.zero >= 3 and layout.fsdp_root == "whole":
            root = (shape.embedding_parameters + shape.output_parameters) / layout.tensor
            at_loss += value * (root - output)
            at_end += value * root * (1 + trained)
    if recipe.adapters and recipe.adapters.copies_output_layer:
        at_loss += value * output
    if layout.tensor > 1 and layout.sequence_parallel:
        # Inputs of split matrices are gathered: the output layer's, and two of a layer.
        whole_input = value * local_tokens(shape, layout) * shape.hidden
        at_loss, at_end = at_loss + whole_input, at_end + 2 * whole_input
    return at_loss, at_end


def _step_temporaries(parameters: float, layout: ParallelLayout, recipe: OptimizerSpec) -> float:
    """Bytes that the optimizer's step needs beside its states; none if it runs layer by layer, or off the GPU."""
    if recipe.step == "fused" or recipe.in_backward or layout.offload != "none":
        return 0.0
    return recipe.foreach_temporaries * parameters / (layout.shards if layout.zero >= 1 else 1)
