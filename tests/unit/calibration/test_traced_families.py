"""The trace of ten families of models, beside the same steps really run on a CPU: as much memory, growing as fast.

The CPU's own kernels keep as much as the trace's in these: attention without dropout, and no LSTM.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gpu_advisor.calibration.device_meters import CpuMeter
from gpu_advisor.calibration.memory_estimate import estimate_memory
from gpu_advisor.calibration.workloads import BUILT_IN, build_step
from torch import nn
from torch.nn import functional as F  # noqa: N812

transformers: Any = pytest.importorskip("transformers")

Loss = Callable[[int], tuple[nn.Module, Callable[[nn.Module], torch.Tensor]]]
SMALL = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
         "num_attention_heads": 4}  # fmt: skip


def conv(before: int, after: int, *more: nn.Module, **options: Any) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, **options), nn.BatchNorm2d(after), *more)


class Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> Any:
        return x + self.body(x)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.below = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, 1)
        self.up, self.out = nn.Upsample(scale_factor=2), nn.Conv2d(24, 10, 3, padding=1)

    def forward(self, x: torch.Tensor) -> Any:
        wide = F.silu(self.down(x))
        return self.out(torch.cat([wide, self.up(F.silu(self.below(wide)))], dim=1)).mean((2, 3))


def images(*layers: nn.Module) -> Loss:
    def of(size: int) -> Any:
        pixels, labels = torch.randn(size, 3, 32, 32), torch.randint(10, (size,))
        return nn.Sequential(*layers), lambda model: F.cross_entropy(model(pixels), labels)

    return of


def head(width: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)


def tokens(model_class: str, **fields: Any) -> Loss:
    """A language model of transformers."""

    def of(size: int) -> Any:
        ids = torch.randint(2, 300, (size, 24))
        kind = getattr(transformers, model_class)
        return kind(kind.config_class(**fields)), lambda model: model(input_ids=ids, labels=ids).loss

    return of


def vit(size: int) -> Any:
    config = transformers.ViTConfig(**SMALL | {"image_size": 32, "patch_size": 8, "num_labels": 10})
    pixels, labels = torch.randn(size, 3, 32, 32), torch.randint(10, (size,))
    model = transformers.ViTForImageClassification(config)
    return model, lambda model: model(pixel_values=pixels, labels=labels).loss


FAMILIES: dict[str, Loss] = {
    "ResNet": images(conv(3, 16), Residual(conv(16, 16, nn.ReLU(), *conv(16, 16))), *head(16)),
    "VGG": images(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4096, 10)),
    "EfficientNet": images(
        conv(3, 16), Residual(nn.Sequential(nn.Conv2d(16, 64, 1), nn.SiLU(), conv(64, 64, groups=64), nn.SiLU(),
                                            nn.Conv2d(64, 16, 1))), *head(16)),
    "UNet": images(UNet()),
    "GPT": tokens("GPT2LMHeadModel", vocab_size=300, n_positions=24, n_embd=32, n_layer=2, n_head=4, attn_pdrop=0.0),
    "Llama": tokens("LlamaForCausalLM", num_key_value_heads=2, **SMALL),
    "BERT": tokens("BertForMaskedLM", attention_probs_dropout_prob=0.0, **SMALL),
    "T5": tokens("T5ForConditionalGeneration", vocab_size=300, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
                 decoder_start_token_id=0, dropout_rate=0.0),
    "ViT": vit,
    "MoE": tokens("MixtralForCausalLM", num_key_value_heads=2, num_local_experts=4, **SMALL),
}  # fmt: skip


def workload(family: Loss) -> Callable[..., Callable[[], object]]:
    def factory(batch_size: int, _device: torch.device, _precision: str) -> Callable[[], object]:
        model, loss = family(batch_size)
        optimizer = torch.optim.AdamW(model.parameters())

        def step() -> None:
            optimizer.zero_grad()
            loss(model).backward()
            optimizer.step()

        return step

    return factory


def run_bytes(name: str, size: int) -> int:
    _, found = CpuMeter(None).memory(lambda: build_step(name, size, torch.device("cpu"), "float32"))
    return found.peak_bytes


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trace_grows_as_a_run_does(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setitem(BUILT_IN, family, workload(FAMILIES[family]))
    traced = [estimate_memory(family, size).allocated_bytes for size in (4, 8)]
    ran = [run_bytes(family, size) for size in (4, 8)]
    assert traced[1] - traced[0] == pytest.approx(ran[1] - ran[0], rel=0.03)
    assert traced[1] == pytest.approx(ran[1], rel=0.1)


def attention(dropout: float) -> Loss:
    def of(size: int) -> Any:
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout, batch_first=True)
        x = torch.randn(size, 64, 32)
        for part in (layer.dropout, layer.dropout1, layer.dropout2):
            part.p = 0.0
        return layer, lambda model: model(x).square().mean()

    return of


def grown(loss: Loss, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setitem(BUILT_IN, "tried", workload(loss))
    return estimate_memory("tried", 8).allocated_bytes - estimate_memory("tried", 4).allocated_bytes


def test_attention_with_dropout_writes_no_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, whose fused kernels draw the numbers again in the backward pass."""
    assert grown(attention(0.1), monkeypatch) == pytest.approx(grown(attention(0.0), monkeypatch), rel=0.1)


def test_an_lstm_keeps_its_gates_for_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def lstm(size: int) -> Any:
        x = torch.randn(size, 24, 32)
        return nn.LSTM(32, 64, batch_first=True), lambda model: model(x)[0].square().mean()

    a_value = 4 * (8 - 4) * 24 * 64
    assert 5 * a_value < grown(lstm, monkeypatch) < 20 * a_value  # four gates and the cell at least


def test_what_a_trace_changes_is_put_back() -> None:
    def patched() -> list[Any]:
        return [F.scaled_dot_product_attention, nn.init._no_grad_trunc_normal_, nn.Module.to, torch.Tensor.__deepcopy__]

    before = patched()
    estimate_memory("mlp", 2)
    assert patched() == before


def test_copied_layers_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of `nn.TransformerEncoder`: a copy of a fake tensor must share its storage with its views."""

    def copies(size: int) -> Any:
        layer = nn.Linear(256, 256)
        x = torch.randn(size, 256)
        return nn.Sequential(*(copy.deepcopy(layer) for _ in range(6))), lambda model: model(x).square().mean()

    monkeypatch.setitem(BUILT_IN, "tried", workload(copies))
    assert estimate_memory("tried", 4).allocated_bytes == pytest.approx(run_bytes("tried", 4), rel=0.01)


def test_a_model_reads_numbers_made_of_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_rates(size: int) -> Any:
        rates = [part.tolist() for part in torch.split(torch.linspace(0, 0.3, 4), [1, 3])]
        assert [len(part) for part in rates] == [1, 3]
        assert rates[1] == pytest.approx([0.1, 0.2, 0.3])
        x = torch.randn(size, 8)
        return nn.Linear(8, 8), lambda model: model(x).square().mean() + torch.tensor([1.0, 2.0]).mean().item()

    monkeypatch.setitem(BUILT_IN, "tried", workload(with_rates))
    assert estimate_memory("tried", 4).allocated_bytes > 0
