"""Parameters of LoRA adapters, and bytes of the frozen base under them."""

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


def frozen_bytes(shape: TransformerShape, adapters: Adapters, weights: float) -> float:
    """Of the whole base: the layers in the quantization's bytes, the rest in those of the optimizer's weights."""
    layers = shape.layers * shape.layer_parameters
    each = weights if adapters.quantization == "none" else FROZEN_BYTES[adapters.quantization]
    return each * layers + weights * (shape.parameters - layers)
