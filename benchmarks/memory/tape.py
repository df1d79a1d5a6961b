"""A model as the list of its operations, and that list as the allocations of a training step.

Only sizes are modelled. An activation is a number of elements per sample; `Tape` has a method for each operation that
says what it makes, what autograd keeps of it for the backward pass, and how many parameters it has. The rules of what
is kept are those of PyTorch's derivative formulas (tools/autograd/derivatives.yaml in
https://github.com/pytorch/pytorch).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Tensor:
    """An activation: `channels * height * width` elements a sample."""

    key: int
    channels: int
    height: int
    width: int

    @property
    def elements(self) -> int:
        return self.channels * self.height * self.width


@dataclass(frozen=True, slots=True)
class Convolution:
    """What the choice of an algorithm depends on."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    groups: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Op:
    """One operation. `saved` is kept for the backward pass, and `extra_bytes` a sample beside it."""

    inputs: tuple[Tensor, ...]
    output: Tensor
    saved: tuple[Tensor, ...] = ()
    extra_bytes: int = 0
    parameters: int = 0
    convolution: Convolution | None = None
    in_place: bool = False
    full_precision: bool = False


@dataclass
class Tape:
    """The operations of a model, recorded by building it."""

    ops: list[Op] = field(default_factory=list)
    _count: int = 0

    @property
    def parameters(self) -> int:
        return sum(op.parameters for op in self.ops)

    def tensor(self, channels: int, height: int, width: int = 1) -> Tensor:
        self._count += 1
        return Tensor(self._count, channels, height, width)

    def _record(self, op: Op) -> Tensor:
        self.ops.append(op)
        return op.output

    def conv(self, x: Tensor, channels: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> Tensor:
        height, width = -(-x.height // stride), -(-x.width // stride)
        spec = Convolution(x.channels, channels, kernel, stride, groups, height, width)
        weights = x.channels // groups * channels * kernel * kernel
        return self._record(Op((x,), self.tensor(channels, height, width), (x,), parameters=weights, convolution=spec))

    def batch_norm(self, x: Tensor) -> Tensor:
        return self._record(Op((x,), self._like(x), (x,), parameters=2 * x.channels))

    def layer_norm(self, x: Tensor) -> Tensor:
        return self._record(Op((x,), self._like(x), (x,), 8 * x.height * x.width, 2 * x.channels, full_precision=True))

    def relu(self, x: Tensor, in_place: bool = True) -> Tensor:
        out = self._like(x)
        return self._record(Op((x,), out, (out,), in_place=in_place))

    def smooth(self, x: Tensor) -> Tensor:
        """SiLU, GELU, hard swish: the input is kept."""
        return self._record(Op((x,), self._like(x), (x,)))

    def dropout(self, x: Tensor) -> Tensor:
        return self._record(Op((x,), self._like(x), (), x.elements))

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return self._record(Op((x, y), self._like(x)))

    def multiply(self, x: Tensor, gate: Tensor) -> Tensor:
        return self._record(Op((x, gate), self._like(x), (x, gate)))

    def max_pool(self, x: Tensor, stride: int = 2) -> Tensor:
        out = self.tensor(x.channels, -(-x.height // stride), -(-x.width // stride))
        return self._record(Op((x,), out, (x,), 8 * out.elements))

    def mean_pool(self, x: Tensor, stride: int = 0) -> Tensor:
        size = (-(-x.height // stride), -(-x.width // stride)) if stride else (1, 1)
        return self._record(Op((x,), self.tensor(x.channels, *size)))

    def linear(self, x: Tensor, channels: int) -> Tensor:
        out = self.tensor(channels, x.height, x.width)
        return self._record(Op((x,), out, (x,), parameters=x.channels * channels + channels))

    def concat(self, *parts: Tensor) -> Tensor:
        channels = sum(part.channels for part in parts)
        return self._record(Op(parts, self.tensor(channels, parts[0].height, parts[0].width)))

    def reshape(self, x: Tensor, channels: int, height: int, width: int = 1) -> Tensor:
        """A copy in another order (window partition, patch merging)."""
        return self._record(Op((x,), self.tensor(channels, height, width)))

    def attention(self, x: Tensor, heads: int, fused: bool, window: int = 0) -> Tensor:
        """Self-attention over the positions of x; `window` positions attend to each other, 0 for all."""
        positions = x.height * x.width
        span = window or positions
        qkv = self.linear(x, 3 * x.channels)
        if fused:
            out = self._like(x)
            mixed = self._record(Op((qkv,), out, (qkv, out), 4 * heads * positions))
        else:
            scores = self._record(Op((qkv,), self.tensor(heads, positions, span), (qkv,)))
            weights = self._like(scores)
            self._record(Op((scores,), weights, (weights,), full_precision=True))
            mixed = self._record(Op((weights, qkv), self._like(x), (weights, qkv)))
        return self.linear(mixed, x.channels)

    def _like(self, x: Tensor) -> Tensor:
        return self.tensor(x.channels, x.height, x.width)


Precision = Literal["float32", "mixed"]
