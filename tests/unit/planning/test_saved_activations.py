"""A layer's activations by formula, against the tensors that PyTorch keeps of transformers' own layers."""

from __future__ import annotations

from typing import Any

import pytest
from gpu_advisor.planning.activation_model import layer_activations
from gpu_advisor.planning.layout import ParallelLayout
from gpu_advisor.planning.model_configs import shape_from_config
from gpu_advisor.planning.transformer_shape import TransformerShape

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

BATCH, SEQUENCE = 2, 64
NUMBERS_OF_LAYERS = ("num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers", "num_hidden_layers")
COMMON = {"vocab_size": 64, "use_cache": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1,
          "decoder_start_token_id": 1}  # fmt: skip
T5 = {"d_model": 128, "d_kv": 16, "d_ff": 256, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 8,
      "dropout_rate": 0.0}  # fmt: skip
BART = {"d_model": 128, "encoder_ffn_dim": 256, "decoder_ffn_dim": 512, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": 8, "decoder_attention_heads": 8, "dropout": 0.0}  # fmt: skip
GPT2 = {"n_embd": 128, "num_hidden_layers": 1, "n_head": 8, "resid_pdrop": 0, "attn_pdrop": 0, "embd_pdrop": 0}
OPT = {"hidden_size": 128, "ffn_dim": 512, "num_hidden_layers": 1, "num_attention_heads": 8,
       "word_embed_proj_dim": 128, "dropout": 0.0}  # fmt: skip
LLAMA = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 1, "num_attention_heads": 8,
         "num_key_value_heads": 4}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "T5": ("t5", T5, "eager"),
    "T5, gated": ("t5", T5 | {"feed_forward_proj": "gated-gelu", "num_heads": 4}, "eager"),
    "BART": ("bart", BART | {"decoder_ffn_dim": 256}, "eager"),
    "BART, flash attention": ("bart", BART | {"decoder_ffn_dim": 256}, "sdpa"),
    "GPT-2": ("gpt2", GPT2, "eager"),
    "OPT": ("opt", OPT, "eager"),
    "Llama": ("llama", LLAMA, "eager"),
}


def kept_bytes(model_type: str, fields: dict[str, Any], attention: str) -> tuple[int, TransformerShape]:
    """Of a forward pass in float32, without parameters, and the model's shape."""
    config = transformers.CONFIG_MAPPING[model_type](**COMMON, **fields)
    encoder = config.is_encoder_decoder
    auto = transformers.AutoModelForSeq2SeqLM if encoder else transformers.AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation=attention)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # the reference keeps its address from being used again
        return tensor

    ids = torch.randint(2, 64, (BATCH, SEQUENCE))
    inputs = {"input_ids": ids, **({"decoder_input_ids": ids} if encoder else {})}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(**inputs)
    assert output.logits.requires_grad
    whole = config.to_dict() | {"architectures": [type(model).__name__]}
    return sum(storage.nbytes() for storage in kept.values()), shape_from_config(whole, SEQUENCE)


@pytest.mark.parametrize("name", CASES)
def test_what_a_layer_keeps(name: str) -> None:
    model_type, fields, attention = CASES[name]
    more = {key: 2 for key in NUMBERS_OF_LAYERS if key in fields}
    (one, small), (two, large) = (kept_bytes(model_type, fields | change, attention) for change in ({}, more))
    layout = ParallelLayout(micro_batch=BATCH, flash_attention=attention == "sdpa", kernels="eager")
    added = layer_activations(large, layout, 4) * (large.layers - small.layers)
    assert added == pytest.approx(two - one, rel=0.05)
    assert large.cross_layers == (2 if "decoder_layers" in str(fields) else 0)
