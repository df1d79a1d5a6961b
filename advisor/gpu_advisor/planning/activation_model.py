"""Activations that a layer keeps for its backward pass, operation by operation.

Of a GPT layer with 16-bit values, sequence s, micro-batch b, width h and a heads they are s*b*h*(34 + 5*a*s/h) bytes,
of which tensor parallelism divides all but 10*s*b*h, and sequence parallelism these too (Korthikanti et al., 2022,
https://arxiv.org/abs/2205.05198, section 4). The table of kept tensors gives the same, and also grouped-query and
latent attention, gates, experts, models without dropout, and adapters beside a frozen base. The term
5*a*s/h is that of the scores; FlashAttention does not keep them (https://arxiv.org/abs/2205.14135), nor does the
paper's selective recomputation. A layer that also attends to an encoder keeps a second attention, with its norm and
its input; the encoder's output is one for all layers.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpu_advisor.planning.adapter_model import fused_attention_bytes, kept_input_bytes
from gpu_advisor.planning.layout import Adapters, Kernels, ParallelLayout
from gpu_advisor.planning.transformer_shape import TransformerShape

#: Tensors of the feed-forward width that 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) keeps beside its input and
#: output, written out as in transformers' NewGELUActivation
#: (https://github.com/huggingface/transformers/blob/main/src/transformers/activations.py).
COMPOSED_GELU_TENSORS = 3


@dataclass(frozen=True, slots=True)
class ActivationBytes:
    """Bytes per token that one layer keeps for its backward pass. `divided`: split by tensor parallelism; `whole`: not
    split; `scores`: attention scores, which grow with the sequence."""

    divided: float
    whole: float
    scores: float


def activation_bytes_per_token(
    shape: TransformerShape, bytes_a_value: int, kernels: Kernels = "fused", adapters: Adapters | None = None
) -> ActivationBytes:
    """Activation bytes of one layer, per token, without recomputation."""
    value, mask = bytes_a_value, 1 if shape.dropout else 0
    between = 4 if adapters and adapters.float32_rest else value
    eager_norm = (kernels == "eager" and shape.upcast_norm) or between > value
    # Inputs of the two norms: eager RMSNorm keeps a float32 copy; with trained weights also its output in 16 bits.
    blocks = 1 + shape.attentions
    norm_inputs: float = blocks * (4 if eager_norm else value) * shape.hidden
    if eager_norm and adapters is None:
        norm_inputs += blocks * value * shape.hidden
    attention: float = value * (shape.query_width + 2 * shape.key_value_width + shape.output_width + shape.latent_width)
    attention *= shape.attentions
    # Gate, its activation, up projection and product; or input and output of GELU. ReLU needs its output alone.
    tensors = (4 if shape.gated else 2) - shape.relu
    if kernels == "eager" and shape.composed_gelu:
        tensors += COMPOSED_GELU_TENSORS
    matmul_inputs = blocks * value * shape.hidden
    if adapters is not None:
        matmul_inputs = kept_input_bytes(shape, adapters, value)
        attention += fused_attention_bytes(shape, adapters, value)
        tensors -= 0 if shape.relu else 1  # the last matrix's input, if kept, is among those
    feed_forward = tensors * between * shape.used_ffn
    # The softmax output; with dropout also its mask and output.
    scores = (2 * value + 1 if shape.dropout else value) * shape.heads * shape.sequence * shape.attentions
    return ActivationBytes(
        divided=attention + feed_forward,
        whole=norm_inputs + matmul_inputs + blocks * mask * shape.hidden,
        scores=scores,
    )


def selective_bytes_per_token(shape: TransformerShape, bytes_a_value: int) -> ActivationBytes:
    """What selective checkpointing keeps: the layer's input, attention's output with a float32 statistic per head, and
    every second matrix product (queries, values, the first feed-forward product and, with a gate, the last), as
    PyTorch's selective activation checkpointing is used in torchtitan
    (https://github.com/pytorch/torchtitan/blob/main/torchtitan/distributed/activation_checkpoint.py)."""
    value = bytes_a_value
    attention = shape.query_width + shape.key_value_width + shape.output_width
    divided = value * (shape.attentions * attention + shape.used_ffn)
    return ActivationBytes(
        divided + 4 * shape.attentions * shape.heads, value * shape.hidden * (2 if shape.gated else 1), 0.0
    )


def layer_bytes(of: ActivationBytes, shape: TransformerShape, layout: ParallelLayout) -> float:
    """Bytes of one layer for one micro-batch on one GPU."""
    whole = of.whole / (layout.tensor if layout.sequence_parallel else 1)
    scores = 0.0 if layout.flash_attention else of.scores / layout.tensor
    return local_tokens(shape, layout) * (whole + of.divided / layout.tensor + scores)


def local_tokens(shape: TransformerShape, layout: ParallelLayout) -> float:
    """Tokens of one micro-batch on one GPU."""
    return shape.sequence * layout.micro_batch / layout.context


def layer_activations(
    shape: TransformerShape, layout: ParallelLayout, bytes_a_value: int, adapters: Adapters | None = None
) -> float:
    """Bytes that one layer keeps for one micro-batch on one GPU, without recomputation."""
    return layer_bytes(activation_bytes_per_token(shape, bytes_a_value, layout.kernels, adapters), shape, layout)


def kept_layer_activations(
    shape: TransformerShape, layout: ParallelLayout, bytes_a_value: int, adapters: Adapters | None = None
) -> tuple[float, float]:
    """Bytes that a layer keeps until its backward pass, the mean of all layers; bytes of a layer recomputed then."""
    full_layer = layer_activations(shape, layout, bytes_a_value, adapters)
    if layout.checkpointing == "none":
        return full_layer, 0.0
    if layout.checkpointing == "full":
        stream = 4 if adapters and adapters.float32_rest else bytes_a_value
        kept = layer_bytes(ActivationBytes(0.0, stream * shape.hidden, 0.0), shape, layout)
    else:
        kept = min(full_layer, layer_bytes(selective_bytes_per_token(shape, bytes_a_value), shape, layout))
    ratio = layout.checkpoint_ratio
    return ratio * kept + (1 - ratio) * full_layer, full_layer
