"""A layer's activations beside a frozen base by formula, against the tensors that PyTorch keeps of transformers' Llama
with adapters that run as PEFT's do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from gpu_advisor.planning.activation_model import kept_layer_activations, layer_activations
from gpu_advisor.planning.adapter_model import frozen_bytes
from gpu_advisor.planning.known_models import KNOWN_SHAPES
from gpu_advisor.planning.layout import ADAPTER_CODE, OPTIMIZERS, Adapters, ParallelLayout
from gpu_advisor.planning.memory_model import states
from gpu_advisor.planning.transformer_shape import TransformerShape

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

SEQUENCE, HIDDEN, FFN, HEADS, KEY_VALUE_HEADS = 256, 256, 704, 8, 4
MATRICES = {
    "query-value": ("q_proj", "v_proj"),
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "all": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}


class FrozenMatrix(torch.nn.Module):  # type: ignore[misc, name-defined]
    """A base matrix; quantized ones compute in bfloat16 and answer in their input's type, as bitsandbytes' do."""

    def __init__(self, weight: Any, quantized: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight.detach(), requires_grad=False)
        self.quantized = quantized

    def forward(self, x: Any) -> Any:
        if not self.quantized:
            return torch.nn.functional.linear(x, self.weight)
        with torch.autocast("cpu", enabled=False):
            return torch.nn.functional.linear(x.to(torch.bfloat16), self.weight).to(x.dtype)


class AdaptedMatrix(torch.nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self, base: FrozenMatrix, rank: int, dropout: bool, dtype: Any) -> None:
        super().__init__()
        out_features, in_features = base.weight.shape
        self.base, self.dropout = base, dropout
        self.first = torch.nn.Linear(in_features, rank, bias=False, dtype=dtype)
        self.second = torch.nn.Linear(rank, out_features, bias=False, dtype=dtype)

    def forward(self, x: Any) -> Any:
        result = self.base(x)
        x = x.to(self.first.weight.dtype)
        if self.dropout:
            x = torch.native_dropout(x, 0.1, True)[0]  # on a CPU, too, its mask has a byte for each value
        return (result + 2.0 * self.second(self.first(x))).to(result.dtype)


def kept_bytes(layers: int, adapters: Adapters) -> int:
    """What a forward pass keeps, without parameters."""
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=layers,
        num_attention_heads=HEADS, num_key_value_heads=KEY_VALUE_HEADS, use_cache=False,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").to(torch.bfloat16)
    quantized, peft = adapters.quantization != "none", adapters.code.copies_inputs
    model.requires_grad_(False)
    if peft and quantized:
        model.to(torch.float32)
    for name, matrix in list(model.model.layers.named_modules()):
        if isinstance(matrix, torch.nn.Linear):
            parent, _, own = name.rpartition(".")
            new: Any = FrozenMatrix(matrix.weight.to(torch.bfloat16), quantized)
            if own in MATRICES[adapters.targets]:
                new = AdaptedMatrix(new, adapters.rank, adapters.dropout, torch.float32 if peft else torch.bfloat16)
            setattr(model.model.layers.get_submodule(parent), own, new)
    model.enable_input_require_grads()
    own = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}
    kept: dict[int, Any] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # the reference keeps its address from being used again
        return tensor

    ids = torch.randint(2, 64, (1, SEQUENCE))
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=peft),
    ):
        output = model(input_ids=ids)
    assert output.logits.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("dropout", [False, True], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize("library", ["plain", "peft"])
@pytest.mark.parametrize("targets", MATRICES)
def test_what_a_layer_keeps_beside_a_frozen_base(targets: Any, library: Any, quantization: Any, dropout: bool) -> None:
    adapters = Adapters(4, targets, quantization, dropout, ADAPTER_CODE[library])
    shape = TransformerShape(
        1, HIDDEN, HEADS, KEY_VALUE_HEADS, FFN, 64, SEQUENCE, gated=True, biases=False, upcast_norm=True
    )
    planned = layer_activations(shape, ParallelLayout(kernels="eager"), 2, adapters)
    assert planned == pytest.approx(kept_bytes(2, adapters) - kept_bytes(1, adapters), rel=0.05)


#: Bytes per token and unit of hidden width that a layer of LitGPT 0.5.13 keeps in bfloat16 with adapters and
#: dropout: key-value heads of 8 and targets. Counted in saved_tensors_hooks, with masks of one byte, as on GPUs.
LITGPT_COUNTED = {(8, "query-value"): 43.8, (8, "all"): 57.0, (2, "query-value"): 38.3, (2, "all"): 53.0,
                  (1, "query-value"): 38.0, (1, "all"): 53.0}  # fmt: skip


@pytest.mark.parametrize(("kv_heads", "targets"), LITGPT_COUNTED)
def test_a_layer_of_litgpt(kv_heads: int, targets: Any) -> None:
    adapters = Adapters(4, targets, dropout=True, code=ADAPTER_CODE["litgpt"])
    shape = TransformerShape(
        1, HIDDEN, HEADS, kv_heads, FFN, 64, SEQUENCE, gated=True, biases=False, upcast_norm=True
    )  # fmt: skip
    planned = layer_activations(shape, ParallelLayout(kernels="eager"), 2, adapters) / SEQUENCE / HIDDEN
    assert planned == pytest.approx(LITGPT_COUNTED[kv_heads, targets], rel=0.02)


def test_gradients_that_are_reduced_last_are_not_sharded_until_then() -> None:
    shape, recipe = KNOWN_SHAPES["LLaMA-7B"], OPTIMIZERS["adamw-bf16"]
    each = ParallelLayout(data=4, zero=3, accumulation=4)
    last = replace(each, gradient_sync="last")
    assert states(shape.parameters, last, recipe)[1] == 4 * states(shape.parameters, each, recipe)[1]
    once = [replace(layout, accumulation=1) for layout in (each, last)]
    assert states(shape.parameters, once[0], recipe) == states(shape.parameters, once[1], recipe)


def test_float32_beside_a_quantized_base() -> None:
    shape = KNOWN_SHAPES["LLaMA-7B"]
    full = ParallelLayout(checkpointing="full")
    plain, peft = (Adapters(16, "all", "nf4", code=each) for each in (ADAPTER_CODE["plain"], ADAPTER_CODE["peft"]))
    rest = shape.parameters - shape.layers * shape.layer_parameters
    assert frozen_bytes(shape, peft, 2) - frozen_bytes(shape, plain, 2) == pytest.approx(2 * rest)
    kept = [kept_layer_activations(shape, full, 2, each)[0] for each in (plain, peft)]
    assert kept[1] == 2 * kept[0]
    unquantized = Adapters(16, "all", code=ADAPTER_CODE["peft"])
    assert frozen_bytes(shape, unquantized, 2) == 2 * shape.parameters
