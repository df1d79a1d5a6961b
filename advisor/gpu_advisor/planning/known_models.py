"""Transformer shapes from a size such as 7b: the published model nearest in size."""

from __future__ import annotations

import re
from dataclasses import replace
from math import log

from gpu_advisor.hardware.errors import PlanError
from gpu_advisor.planning.transformer_shape import TransformerShape

DEFAULT_SEQUENCE = 2048

#: Model names are rounded: LLaMA-7B has 6.74 billion parameters.
SIZE_TOLERANCE_RATIO = 0.08


def _llama(layers: int, hidden: int, heads: int, kv_heads: int, ffn: int, vocabulary: int) -> TransformerShape:
    return TransformerShape(
        layers, hidden, heads, kv_heads, ffn, vocabulary, DEFAULT_SEQUENCE, gated=True, tied=False, biases=False,
        upcast_norm=True,
    )  # fmt: skip


#: Dimensions of published models, from their config.json: used if only a size is given.
KNOWN_SHAPES: dict[str, TransformerShape] = {
    "GPT-2": TransformerShape(12, 768, 12, 12, 3072, 50257, 1024, positions=1024, dropout=True),
    "GPT-2 XL": TransformerShape(48, 1600, 25, 25, 6400, 50257, 1024, positions=1024, dropout=True),
    "TinyLlama-1.1B": _llama(22, 2048, 32, 4, 5632, 32000),
    "OpenLLaMA-3B": _llama(26, 3200, 32, 32, 8640, 32000),
    "LLaMA-7B": _llama(32, 4096, 32, 32, 11008, 32000),
    "Llama-3-8B": _llama(32, 4096, 32, 8, 14336, 128256),
    "LLaMA-13B": _llama(40, 5120, 40, 40, 13824, 32000),
    "LLaMA-33B": _llama(60, 6656, 52, 52, 17920, 32000),
    "Llama-2-70B": _llama(80, 8192, 64, 8, 28672, 32000),
    "GPT-3": TransformerShape(96, 12288, 96, 96, 49152, 50257, DEFAULT_SEQUENCE, positions=2048, dropout=True),
    "Llama-3.1-405B": _llama(126, 16384, 128, 8, 53248, 128256),
}
_SCALES = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}


def parse_parameter_count(text: str) -> float:
    """Parse 7b, 1.3B, 350m or a plain number of parameters. Raises PlanError."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmbt]?)\s*", text, re.IGNORECASE)
    if not match or not float(match[1]):
        raise PlanError(f"{text!r} is not a number of parameters: write 7b, 1.3b or 350m")
    return float(match[1]) * _SCALES.get(match[2].lower(), 1.0)


def shape_from_size(text: str, sequence: int = DEFAULT_SEQUENCE) -> TransformerShape:
    """The published model nearest in size, with its number of layers adjusted to the size.

    Raises PlanError for an invalid size, or one far outside the published sizes.
    """
    parameters = parse_parameter_count(text)
    sizes = {name: shape.parameters for name, shape in KNOWN_SHAPES.items()}
    if not min(sizes.values()) / 4 <= parameters <= max(sizes.values()) * 4:
        raise PlanError(f"{text} parameters: no known model is close; give the dimensions (--layers, --hidden, ...)")
    nearest = min(sizes, key=lambda name: abs(log(sizes[name] / parameters)))
    model = KNOWN_SHAPES[nearest]
    rest = model.parameters - model.layers * model.layer_parameters
    layers = max(1, round((parameters - rest) / model.layer_parameters))
    if abs(model.parameters / parameters - 1) <= SIZE_TOLERANCE_RATIO:
        layers = model.layers
    of = "" if layers == model.layers else f" with {layers} layers"
    return replace(model, layers=layers, sequence=sequence, assumed=f"the dimensions of {nearest}{of}")
