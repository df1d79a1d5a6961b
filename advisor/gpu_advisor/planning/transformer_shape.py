"""Dimensions of a transformer, which determine its parameters and memory."""

from __future__ import annotations

from dataclasses import dataclass

from gpu_advisor.hardware.errors import PlanError


@dataclass(frozen=True, slots=True)
class ParameterCounts:
    """Parameters as counted tensor by tensor; `experts` (part of `layers`): of all routed experts of all layers."""

    embedding: int
    output: int
    layers: int
    experts: int
    other: int


@dataclass(frozen=True, slots=True)
class TransformerShape:
    """A stack of decoder layers. Counts, no units; `sequence` in tokens.

    `ffn`: inner width of the feed-forward block, of each expert if there are several; `gated`: the block has a gate
    (SwiGLU). `kv_heads` below `heads` is grouped-query attention. `tied`: the output layer shares the embedding's
    weights. `positions`: number of learned positions. `experts`: feed-forward blocks per layer, of which each token
    uses `experts_used`, and further blocks of `shared_ffn` in all. `dense_layers` have one block of `dense_ffn`.
    `value_width`: of attention's output, `latent_width`: of compressed keys and queries (MLA). `upcast_norm`: norms
    that eager code computes in float32 (RMSNorm). `composed_gelu`: an activation that eager code computes in several
    operations, each of which keeps a tensor; `relu`: one that keeps its output alone. `cross_layers`: of `layers`,
    those that also attend to an encoder.
    `counts`: exact numbers from the table of architectures.
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
    shared_ffn: int = 0
    dense_layers: int = 0
    dense_ffn: int = 0
    value_width: int = 0
    latent_width: int = 0
    upcast_norm: bool = False
    composed_gelu: bool = False
    relu: bool = False
    cross_layers: int = 0
    counts: ParameterCounts | None = None

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "heads", "kv_heads", "ffn", "vocabulary", "sequence", "experts"):
            if getattr(self, name) < 1:
                raise PlanError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.heads % self.kv_heads and not self.counts:
            raise PlanError(f"heads ({self.heads}) must be a multiple of the key-value heads ({self.kv_heads})")
        if not self.head_width and self.hidden % self.heads and not self.counts:
            raise PlanError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads}), or set head_width")

    @property
    def query_width(self) -> int:
        return self.heads * (self.head_width or self.hidden // self.heads)

    @property
    def key_value_width(self) -> int:
        return self.kv_heads * (self.head_width or self.hidden // self.heads)

    @property
    def output_width(self) -> int:
        """Of attention's output before its projection."""
        return self.value_width or self.query_width

    @property
    def attentions(self) -> float:
        """Attention blocks of a layer, the mean of the layers."""
        return 1 + self.cross_layers / self.layers

    @property
    def used_ffn(self) -> float:
        """Inner width that a token passes, averaged over the layers."""
        routed = self.ffn * self.experts_used + self.shared_ffn
        dense = self.dense_ffn or self.ffn
        return (self.dense_layers * dense + (self.layers - self.dense_layers) * routed) / self.layers

    @property
    def layer_parameters(self) -> float:
        """Parameters of one layer, the mean of the layers."""
        return self.counts.layers / self.layers if self.counts else self.uncounted_layer_parameters

    @property
    def uncounted_layer_parameters(self) -> int:
        """By formula: projections, feed-forward blocks, router, norms, biases."""
        attention = 2 * self.hidden * self.query_width + 2 * self.hidden * self.key_value_width
        router = self.hidden * self.experts if self.experts > 1 else 0
        norms = 4 * self.hidden if self.biases else 2 * self.hidden
        biases = 0
        if self.biases:
            biases = self.query_width + 2 * self.key_value_width + self.hidden
            biases += (self.ffn * (2 if self.gated else 1) + self.hidden) * self.experts
        return attention + self._block_parameters * self.experts + router + norms + biases

    @property
    def _block_parameters(self) -> int:
        return (3 if self.gated else 2) * self.hidden * self.ffn

    @property
    def layer_expert_parameters(self) -> float:
        """Parameters of a layer's routed experts, of `layer_parameters`."""
        if self.counts:
            return self.counts.experts / self.layers
        return self._block_parameters * self.experts if self.experts > 1 else 0

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the input: token and learned position embeddings."""
        return self.counts.embedding if self.counts else (self.vocabulary + self.positions) * self.hidden

    @property
    def output_parameters(self) -> int:
        """Parameters of the output layer without the final norm; 0 if tied to the embedding."""
        if self.counts:
            return self.counts.output
        return 0 if self.tied else self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        if self.counts:
            return self.counts.embedding + self.counts.output + self.counts.layers + self.counts.other
        last_norm = self.hidden * (2 if self.biases else 1)
        ends = self.embedding_parameters + self.output_parameters + last_norm
        return self.layers * self.uncounted_layer_parameters + ends

    @property
    def used_parameters(self) -> float:
        """Parameters that a token passes: without the experts that it does not use."""
        unused = self.layers * self.layer_expert_parameters * (1 - min(1.0, self.experts_used / self.experts))
        return self.parameters - unused
