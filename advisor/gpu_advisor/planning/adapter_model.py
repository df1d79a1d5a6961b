"""Parameters of LoRA adapters, the inputs that they keep, and bytes of the frozen base under them."""

from __future__ import annotations

from gpu_advisor.planning.layout import FROZEN_BYTES, Adapters, AdapterTargets
from gpu_advisor.planning.transformer_shape import TransformerShape


def adapter_parameters(shape: TransformerShape, adapters: Adapters) -> float:
    """rank * (inputs + outputs) of each target in each layer; routed experts have none."""
    hidden, ffn = shape.hidden, shape.ffn if shape.experts == 1 else shape.shared_ffn
    query = hidden + shape.query_width
    key_value = hidden + shape.key_value_width
    output = shape.output_width + hidden
    feed_forward = (3 if shape.gated else 2) * (hidden + ffn) if ffn else 0
    widths: dict[AdapterTargets, float] = {
        "query-value": query + key_value,
        "attention": query + 2 * key_value + output,
        "all": query + 2 * key_value + output + feed_forward,
    }
    return adapters.rank * shape.layers * widths[adapters.targets]


def kept_input_bytes(shape: TransformerShape, adapters: Adapters, bytes_a_value: int) -> float:
    """Bytes per token that a layer keeps of its matrices' inputs, beside attention's output, which it keeps anyway.

    The gradient of an adapter's first matrix needs its input. Adapters beside matrices with the same input share it,
    unless dropout or a cast makes a copy for each; dropout also keeps a mask of one byte.
    """
    code = adapters.code
    ffn = shape.used_ffn if shape.experts == 1 else float(shape.shared_ffn)
    to_ffn = (2 if shape.gated else 1) if adapters.targets == "all" and ffn else 0
    product = ffn if to_ffn else 0.0
    to_attention = 1 if code.fused_attention else 2 if adapters.targets == "query-value" else 3
    output = 0 if adapters.targets == "query-value" else shape.output_width
    copied = shape.attentions * (to_attention * shape.hidden + output) + to_ffn * shape.hidden + product
    if adapters.dropout:
        kept = copied * (bytes_a_value + 1)
    elif code.copies_inputs:
        kept = copied * bytes_a_value
    else:
        shared = shape.attentions * shape.hidden + (shape.hidden if to_ffn else 0) + (0 if shape.relu else product)
        kept = shared * bytes_a_value
    return kept + _quantized_input_bytes(shape, adapters, bytes_a_value)


def _quantized_input_bytes(shape: TransformerShape, adapters: Adapters, bytes_a_value: int) -> float:
    each = adapters.code.quantized_input_bytes if adapters.quantization != "none" else 0
    if each <= bytes_a_value:  # matrices share their input
        return each * ((1 + shape.attentions) * shape.hidden + shape.used_ffn)
    to_attention = 1 if adapters.code.fused_attention else 3
    attention = shape.attentions * (to_attention * shape.hidden + shape.output_width)
    return each * (attention + (2 if shape.gated else 1) * shape.hidden + shape.used_ffn)


def fused_attention_bytes(shape: TransformerShape, adapters: Adapters, bytes_a_value: int) -> float:
    """Bytes per token that a layer keeps where queries, keys and values are one matrix with one adapter, in addition to
    what it keeps where they are three: the whole product, of which the values are a part, or with grouped queries
    keys and values repeated for each head; and the adapter's result, padded where only some are adapted."""
    if not adapters.code.fused_attention:
        return 0.0
    repeated = 2 * (shape.query_width - shape.key_value_width)
    more: float = repeated or shape.query_width + shape.key_value_width
    if adapters.targets == "query-value":
        more += shape.query_width + shape.key_value_width
    return bytes_a_value * more * shape.attentions


def frozen_bytes(shape: TransformerShape, adapters: Adapters, weights: float) -> float:
    """Of the whole base: its layers, or all but the embedding, in the quantization's bytes, the rest in those of the
    optimizer's weights, or in float32."""
    if adapters.quantization == "none":
        return weights * shape.parameters
    quantized = shape.layers * shape.layer_parameters
    quantized += shape.output_parameters if adapters.code.quantizes_output else 0
    rest = 4.0 if adapters.float32_rest else weights
    return FROZEN_BYTES[adapters.quantization] * quantized + rest * (shape.parameters - quantized)
