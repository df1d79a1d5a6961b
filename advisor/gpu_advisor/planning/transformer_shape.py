"""Dimensions of a transformer, which determine its parameters and memory."""

from __future__ import annotations

from dataclasses import dataclass

from gpu_advisor.hardware.errors import PlanError


@dataclass(frozen=True, slots=True)
class TransformerShape:
    """A stack of equal decoder layers. Counts, no units; `sequence` in tokens.

    `ffn`: inner width of the feed-forward block; `gated`: the block has a gate (SwiGLU). `kv_heads` below `heads` is
    grouped-query attention. `tied`: the output layer shares the embedding's weights. `positions`: number of learned
    positions. `experts`: feed-forward blocks per layer, of which each token uses `experts_used`.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    vocabulary: int
    sequence: int
    gated: bool = False
    tied: bool = True
    biases: bool = True
    positions: int = 0
    head_width: int = 0
    experts: int = 1
    experts_used: int = 1
    dropout: bool = False
    assumed: str = ""
    """Source of the dimensions that were not given."""

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "heads", "kv_heads", "ffn", "vocabulary", "sequence", "experts"):
            if getattr(self, name) < 1:
                raise PlanError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.heads % self.kv_heads:
            raise PlanError(f"heads ({self.heads}) must be a multiple of the key-value heads ({self.kv_heads})")
        if not self.head_width and self.hidden % self.heads:
            raise PlanError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads}), or set head_width")

    @property
    def query_width(self) -> int:
        return self.heads * (self.head_width or self.hidden // self.heads)

    @property
    def key_value_width(self) -> int:
        return self.kv_heads * (self.head_width or self.hidden // self.heads)

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer: projections, feed-forward blocks, router, norms, biases."""
        attention = 2 * self.hidden * self.query_width + 2 * self.hidden * self.key_value_width
        feed_forward = (3 if self.gated else 2) * self.hidden * self.ffn
        router = self.hidden * self.experts if self.experts > 1 else 0
        norms = 4 * self.hidden if self.biases else 2 * self.hidden
        biases = 0
        if self.biases:
            biases = self.query_width + 2 * self.key_value_width + self.hidden
            biases += (self.ffn * (2 if self.gated else 1) + self.hidden) * self.experts
        return attention + feed_forward * self.experts + router + norms + biases

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the input: token and learned position embeddings."""
        return (self.vocabulary + self.positions) * self.hidden

    @property
    def output_parameters(self) -> int:
        """Parameters of the output layer without the final norm; 0 if tied to the embedding."""
        return 0 if self.tied else self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        last_norm = self.hidden * (2 if self.biases else 1)
        return self.layers * self.layer_parameters + self.embedding_parameters + self.output_parameters + last_norm
