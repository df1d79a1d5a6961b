"""Small models from [samples, tokens, FEATURES] to [samples, tokens, CLASSES], in float64 and without dropout."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchmarks.gradients.batches import CLASSES, FEATURES

WIDTH = 12


class Convolution(nn.Module):
    """Over the tokens, with a norm of each sample."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(FEATURES, WIDTH, 3, padding=1), norm, nn.Tanh(), nn.Conv1d(WIDTH, CLASSES, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.body(x.transpose(1, 2)).transpose(1, 2)
        return found


class Recurrent(nn.Module):
    def __init__(self, layer: nn.RNNBase, width: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.layer(x)[0])
        return found


class Transformer(nn.Module):
    """`causal`: each token attends to those before it."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.inputs = nn.Linear(FEATURES, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, dropout=0.0, batch_first=True, norm_first=causal)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype) if self.causal else None
        found: torch.Tensor = self.head(self.body(self.inputs(x), mask=mask, is_causal=self.causal))
        return found


class TiedMixture(nn.Module):
    """Experts chosen softly, and one matrix used twice: its gradient is accumulated within a backward pass, too."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(FEATURES, 3)
        self.experts = nn.ModuleList(nn.Linear(FEATURES, FEATURES) for _ in range(3))
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        share = self.gate(x).softmax(-1)
        mixed = torch.stack([expert(x).tanh() for expert in self.experts], -1) @ share.unsqueeze(-1)
        found: torch.Tensor = self.head((self.experts[0](mixed.squeeze(-1)) + x).tanh())
        return found


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.GELU()) for _ in range(3))
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False)
        found: torch.Tensor = self.head(x)
        return found


class FrozenFeatures(nn.Module):
    """Frozen features, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Linear(FEATURES, WIDTH).requires_grad_(False)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.features(x).relu())
        return found


def _mlp(*norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, WIDTH), *norm, nn.Tanh(), nn.Linear(WIDTH, CLASSES))


#: Every sample has an output of its own: an exact weight exists.
SEPARABLE: Mapping[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(FEATURES, CLASSES),
    "mlp": _mlp,
    "layer norm": lambda: _mlp(nn.LayerNorm(WIDTH)),
    "convolution, group norm": lambda: Convolution(nn.GroupNorm(3, WIDTH)),
    "convolution, instance norm": lambda: Convolution(nn.InstanceNorm1d(WIDTH, affine=True)),
    "gru": lambda: Recurrent(nn.GRU(FEATURES, WIDTH, batch_first=True), WIDTH),
    "bidirectional lstm": lambda: Recurrent(nn.LSTM(FEATURES, WIDTH, batch_first=True, bidirectional=True), 2 * WIDTH),
    "transformer encoder": lambda: Transformer(causal=False),
    "causal transformer": lambda: Transformer(causal=True),
    "tied mixture": TiedMixture,
    "checkpointed": Checkpointed,
    "frozen features": FrozenFeatures,
}
#: The output of a sample depends on the others of its forward pass.
COUPLED: Mapping[str, Callable[[], nn.Module]] = {
    "convolution, batch norm": lambda: Convolution(nn.BatchNorm1d(WIDTH)),
    "convolution, batch norm without statistics": lambda: Convolution(nn.BatchNorm1d(WIDTH, track_running_stats=False)),
}
MODELS = {**SEPARABLE, **COUPLED}


def make_model(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return MODELS[name]().double().train()
