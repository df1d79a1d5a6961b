"""Training memory of one GPU, term by term.

Model states follow ZeRO (Rajbhandari et al., 2020, https://arxiv.org/abs/1910.02054, section 5): with a degree of N,
stage 1 divides the optimizer's states by N, stage 2 the gradients too, stage 3 the weights too.

Activations follow Korthikanti et al., 2022 (https://arxiv.org/abs/2205.05198, section 4): of a GPT layer with 16-bit
values, sequence s, micro-batch b, width h and a heads they are s*b*h*(34 + 5*a*s/h) bytes, of which tensor parallelism
divides all but 10*s*b*h, and sequence parallelism these too. The code counts the 34 operation by operation, so that
grouped-query attention, gated feed-forward parts, experts and models without dropout come out right; for the paper's
models the sum is the paper's. The term 5*a*s/h is that of the scores; FlashAttention does not keep them
(https://arxiv.org/abs/2205.14135), nor does the paper's selective recomputation.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import ceil

from gpu_advisor.planning.layout import OptimizerSpec, ParallelLayout
from gpu_advisor.planning.transformer_shape import TransformerShape

#: Assumed memory of driver context, libraries and communicators on each GPU, before any tensor is allocated. A profile
#: replaces it.
OVERHEAD_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class MemoryBreakdown:
    """Bytes on the fullest GPU. `buffers`: weights of two layers that ZeRO-3 or offloading gathers."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    buffers: float
    overhead: float

    @property
    def total(self) -> float:
        return float(sum(getattr(self, field.name) for field in fields(self)))

    @property
    def states(self) -> float:
        return self.weights + self.gradients + self.optimizer


@dataclass(frozen=True, slots=True)
class ActivationBytes:
    """Bytes per token that one layer keeps for its backward pass. `divided`: split by tensor parallelism; `whole`: not
    split; `scores`: attention scores, which grow with the sequence."""

    divided: float
    whole: float
    scores: float


def activation_bytes_per_token(shape: TransformerShape, bytes_a_value: int) -> ActivationBytes:
    """Activation bytes of one layer, per token."""
    value, mask = bytes_a_value, 1 if shape.dropout else 0
    norms_and_inputs = (
        2 * value * shape.hidden + 2 * value * shape.hidden
    )  # inputs of the two norms, and of both blocks' first matmul
    queries = value * shape.query_width
    keys_values = 2 * value * shape.key_value_width
    to_output = value * shape.query_width
    tensors = 4 if shape.gated else 2  # gate, its activation, up projection and product; or input and output of GELU
    feed_forward = tensors * value * shape.ffn * shape.experts_used
    # The softmax output; with dropout also its mask and output.
    scores = (2 * value + 1 if shape.dropout else value) * shape.heads * shape.sequence
    return ActivationBytes(
        divided=queries + keys_values + to_output + feed_forward,
        whole=norms_and_inputs + 2 * mask * shape.hidden,
        scores=scores,
    )


def layer_activations(shape: TransformerShape, layout: ParallelLayout, bytes_a_value: int) -> float:
    """Bytes that one layer keeps for one micro-batch on one GPU, without recomputation."""
    of = activation_bytes_per_token(shape, bytes_a_value)
    whole = of.whole / (layout.tensor if layout.sequence_parallel else 1)
    scores = 0.0 if layout.flash_attention else of.scores / layout.tensor
    return shape.sequence * layout.micro_batch * (whole + of.divided / layout.tensor + scores)


def activations(shape: TransformerShape, layout: ParallelLayout, bytes_a_value: int) -> float:
    """Bytes of activations on the pipeline's first or last stage, whichever needs more.

    The first stage keeps one micro-batch per stage (1F1B schedule; section 4.2.3 of Korthikanti), the last stage one
    micro-batch, the logits in float32 and their gradient. With full checkpointing a layer keeps its input only, and one
    layer at a time is recomputed in full.
    """
    layers = ceil(shape.layers / layout.pipeline)
    full_layer = layer_activations(shape, layout, bytes_a_value)
    each, recomputed = full_layer, 0.0
    tokens = shape.sequence * layout.micro_batch
    if layout.checkpointing == "full":
        each = bytes_a_value * tokens * shape.hidden / (layout.tensor if layout.sequence_parallel else 1)
        recomputed = full_layer
    logits = (4 + bytes_a_value) * tokens * shape.vocabulary / layout.tensor
    in_flight = min(layout.pipeline, layout.accumulation)
    first = layers * each * in_flight + recomputed
    last = layers * each + recomputed + logits
    return max(first + (logits if layout.pipeline == 1 else 0.0), last)


def states(parameters: float, layout: ParallelLayout, recipe: OptimizerSpec) -> tuple[float, float, float]:
    """Bytes of weights, gradients and optimizer states on a GPU with `parameters`, by ZeRO stage."""
    over = layout.data
    weights = recipe.weights * parameters / (over if layout.zero >= 3 else 1)
    gradients = recipe.gradients * parameters / (over if layout.zero >= 2 else 1)
    optimizer = recipe.optimizer * parameters / (over if layout.zero >= 1 else 1)
    if layout.offload != "none":
        optimizer, gradients = 0.0, gradients if layout.zero < 2 else 0.0
    if layout.offload == "all":
        weights = 0.0
    return weights, gradients, optimizer


def memory(
    shape: TransformerShape,
    layout: ParallelLayout,
    recipe: OptimizerSpec,
    overhead_bytes: float = OVERHEAD_BYTES,
    activations_ratio: float = 1.0,
) -> MemoryBreakdown:
    """Memory of a layout's fullest GPU; `activations_ratio` scales the activations, from a profile."""
    layers = ceil(shape.layers / layout.pipeline)
    ends = shape.embedding_parameters + (shape.output_parameters if layout.pipeline == 1 else 0)
    parameters = (layers * shape.layer_parameters + ends) / layout.tensor
    weights, gradients, optimizer = states(parameters, layout, recipe)
    gathers_weights = layout.zero >= 3 or layout.offload == "all"
    largest = max(shape.layer_parameters, shape.embedding_parameters) / layout.tensor
    buffers = 2 * recipe.weights * largest if gathers_weights else 0.0
    kept_values = activations_ratio * activations(shape, layout, recipe.activations)
    return MemoryBreakdown(weights, gradients, optimizer, kept_values, buffers, overhead_bytes)
