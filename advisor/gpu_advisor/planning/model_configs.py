"""A model's shape from its config.json, for every type in the table of architectures.

The table counts the parameters exactly. What the memory of activations also needs is found in the fields: widths of
attention (grouped-query, latent), of feed-forward blocks (dense, routed and shared experts), and the kind of norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from gpu_advisor.hardware.errors import PlanError
from gpu_advisor.planning.architecture_table import (
    SEQ2SEQ,
    TensorGroup,
    architecture_table,
    holds,
    parameters_of_tensors,
    with_defaults,
)
from gpu_advisor.planning.counted_model import count_on_meta
from gpu_advisor.planning.transformer_shape import ParameterCounts, TransformerShape

_MAX_DEFAULT_SEQUENCE = 4096
#: The type of a config without one.
_UNNAMED = "llama"
_USED_EXPERTS = (
    "num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_topk", "moe_k", "top_k_experts",
    "num_selected_experts",
)  # fmt: skip
_REQUIRED = ("hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
#: Configs that hold the language model's config, whose type is then another entry.
_TEXT_CONFIGS = ("text_config", "llm_config", "language_config", "thinker_config")


def shape_from_config(config: Mapping[str, Any], sequence: int | None = None) -> TransformerShape:
    """Raises PlanError for a type that is neither in the table nor in an installed transformers."""
    inner = _inner(config)
    model_type = inner.get("model_type") or _UNNAMED
    missing = [name for name in _REQUIRED if name not in inner]
    if missing and not inner.get("model_type"):
        raise PlanError(f"the config has neither model_type nor {missing[0]}: give a model's complete config.json")
    # A multimodal model as a whole, if transformers can build it; else its language model.
    groups, fields = (count_on_meta(config) if inner is not config else None) or _tensors(inner, model_type)
    counts = _counts(groups)
    if counts is None:
        raise PlanError(
            f"the config of a {model_type} lacks fields that its shape depends on: give a complete config.json"
        )
    read = _Fields(fields, inner)
    positions = read.number("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", default=2048)
    chosen = sequence or min(positions, _MAX_DEFAULT_SEQUENCE)
    assumed = "the config's dimensions" + ("" if sequence else f", sequences of {chosen} tokens")
    assumed += "" if inner.get("model_type") else f", the layers of {_UNNAMED} (it has no model_type)"
    if _has_encoder(groups) and not inner.get("architectures"):
        assumed += ", encoder and decoder (for the decoder alone: is_encoder_decoder false)"
    return TransformerShape(**_dimensions(read, counts, groups), sequence=chosen, counts=counts, assumed=assumed)


def _tensors(config: Mapping[str, Any], model_type: str) -> tuple[list[TensorGroup], Mapping[str, Any]]:
    """With the fields that they follow from."""
    table = architecture_table()
    entry = table["types"].get(model_type)
    if _is_encoder_decoder(config):
        entry = table["types"].get(model_type + SEQ2SEQ, entry)
    reason = table["exceptions"].get(model_type)
    if entry is not None:
        fields = with_defaults(entry, config)
        if holds(entry, config, fields):
            return list(parameters_of_tensors(entry, fields)), fields
        reason = "not with these widths or kinds of layers"
    counted = count_on_meta(config)
    if counted is not None:
        return counted
    why = f"is not in the planner's table ({reason})" if reason else "is unknown"
    raise PlanError(
        f"model_type {model_type!r} {why}: install transformers and torch to count its parameters, give the dimensions "
        "(--layers, --hidden, --heads ...), or trace the model with --module"
    )


def _is_encoder_decoder(config: Mapping[str, Any]) -> bool:
    """Of a type whose decoder is a model of its own, too: the class that the config names decides, else its fields."""
    names = [str(each) for each in config.get("architectures") or ()]
    if names:
        return not any(name.endswith("ForCausalLM") for name in names)
    given = config.get("is_encoder_decoder")
    return given if isinstance(given, bool) else any(name.startswith("encoder_") for name in config)


def _inner(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's part of a multimodal config, unless the whole is a type of the table."""
    entry = architecture_table()["types"].get(config.get("model_type"))
    if entry is not None and holds(entry, config, with_defaults(entry, config)):
        return config
    for name in _TEXT_CONFIGS:
        part = config.get(name)
        if isinstance(part, Mapping):
            tied = {k: config[k] for k in ("tie_word_embeddings",) if k in config}
            return _inner(tied | dict(part))
    return config


def _is_expert(group: TensorGroup) -> bool:
    return (
        "expert" in group.name
        and "shared" not in group.name
        and len(group.shape) > 1
        and "gate.weight" not in group.name
    )


def _counts(groups: list[TensorGroup]) -> ParameterCounts | None:
    """By place: tensors with a number in their name belong to layers, whatever layers are called. None if a number is
    missing."""
    embedding = output = layers = experts = other = 0.0
    for group in groups:
        if "*" in group.name:
            layers += group.numbers
            experts += group.numbers if _is_expert(group) else 0.0
        elif any(
            word in group.name for word in ("lm_head", "output", "embed_out", "decoder.weight", "cls.predictions")
        ):
            output += group.numbers
        elif any(word in group.name for word in ("embed", "wte", "wpe", "embd", "shared.weight", "tok")):
            embedding += group.numbers
        else:
            other += group.numbers
    if not isfinite(embedding + output + layers + other):
        return None
    return ParameterCounts(*map(round, (embedding, output, layers, experts, other)))


class _Fields:
    """Numbers of a config by any of their names, also in nested configs."""

    def __init__(self, fields: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        self._fields = fields
        self._config = config

    def number(self, *names: str, default: int = 0) -> int:
        """What the config says counts before defaults, and before what follows from other fields."""
        for source in (self._config, self._fields):
            for name in names:
                for key in (name, f"text_config.{name}", f"decoder.{name}"):
                    value = source.get(key)
                    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                        return value
        return default

    def has(self, word: str) -> bool:
        """Whether a field of the config, of whatever type, has the word in its name."""
        return any(word in name for name in self._config)

    def says(self, *words: str) -> bool:
        """Whether a field's value is one of the words."""
        return any(value in words for value in self._config.values() if isinstance(value, str))


def _dimensions(read: _Fields, counts: ParameterCounts, groups: list[TensorGroup]) -> dict[str, Any]:
    hidden = read.number("hidden_size", "n_embd", "d_model", "model_dim", default=1)
    heads = read.number("num_attention_heads", "n_head", "num_heads", "n_heads", "decoder_attention_heads", default=1)
    layers = read.number("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", default=1)
    cross_layers = 0
    if _has_encoder(groups):
        cross_layers = read.number("num_decoder_layers", "decoder_layers", default=layers)
        layers = cross_layers + read.number("encoder_layers", "num_layers", "num_hidden_layers", default=layers)
    experts = read.number("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts",
                          default=1) if counts.experts else 1  # fmt: skip
    ffn = read.number("intermediate_size", "n_inner", "ffn_dim", "d_ff", "decoder_ffn_dim", "ffn_hidden_size",
                      default=4 * hidden)  # fmt: skip
    routed = read.number("moe_intermediate_size", "expert_ffn_hidden_size", default=ffn) if experts > 1 else ffn
    shared = read.number("shared_expert_intermediate_size", "shared_intermediate_size")
    shared = shared or routed * read.number("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
    latent, rope = read.number("kv_lora_rank"), read.number("qk_rope_head_dim")
    head_width = read.number("head_dim", "d_kv", default=max(1, hidden // heads))
    value_width = 0
    if latent:
        head_width = read.number("qk_nope_head_dim") + rope or head_width
        value_width = heads * read.number("v_head_dim", default=head_width)
    names = " ".join(group.name for group in groups)
    learned_positions = "position" in names or "wpe" in names
    return {
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": heads if latent else read.number("num_key_value_heads", "num_kv_heads", default=heads),
        "ffn": routed,
        "vocabulary": read.number("vocab_size", default=1),
        "gated": any(word in names for word in ("gate_proj", "gate_up", "w3.", ".wi_1", "gate.weight", "w1.weight")),
        "tied": counts.output == 0,
        "biases": "mlp" in names and ".bias" in names and not read.has("rms"),
        "positions": read.number("max_position_embeddings", "n_positions") if learned_positions else 0,
        "head_width": head_width,
        "experts": experts,
        "experts_used": min(experts, read.number(*_USED_EXPERTS, default=1)),
        "dropout": False,
        "shared_ffn": shared if experts > 1 else 0,
        "dense_layers": min(layers, read.number("first_k_dense_replace", "num_dense_layers")) if experts > 1 else 0,
        "dense_ffn": ffn if experts > 1 else 0,
        "value_width": value_width,
        "latent_width": latent + read.number("q_lora_rank") if latent else 0,
        "upcast_norm": read.has("rms_norm_eps") or (read.has("layer_norm_epsilon") and "DenseReluDense" in names),
        "composed_gelu": read.says("gelu_new", "gated-gelu"),
        "relu": read.says("relu"),
        "cross_layers": cross_layers,
    }  # fmt: skip


def _has_encoder(groups: list[TensorGroup]) -> bool:
    return any("encoder." in group.name for group in groups) and any("decoder." in group.name for group in groups)
