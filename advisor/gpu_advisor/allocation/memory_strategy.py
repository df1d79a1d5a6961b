"""The share of a GPU's memory that a framework may use, by strategy, with its reason. Pure.

- conservative: 0.8. Leaves memory for a second process and for libraries outside the framework's allocator.
- aggressive: 0.95. One process per GPU; the rest is for the CUDA context, which frameworks do not count.
- dynamic: what a model of this size is likely to need, within bounds:

      share = MEMORY_MARGIN * (states + activations) / memory,  at least 0.3, at most 0.95

  States are parameters * 18 bytes in mixed precision with AdamW, 16 bytes in float32: weights, gradients, optimizer
  (https://huggingface.co/docs/transformers/model_memory_anatomy). Activations depend on the batch
  size: if unknown, they are assumed to be as large as the states, a rule of thumb. With a plan (`gpu-advisor plan`) or
  a measured peak, give its bytes instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import ceil, isfinite

from gpu_advisor.allocation.errors import InvalidRequestError
from gpu_advisor.hardware.gpu_types import GIB


class MemoryStrategy(str, Enum):
    CONSERVATIVE = "conservative"
    AGGRESSIVE = "aggressive"
    DYNAMIC = "dynamic"


STRATEGY_RATIOS = {MemoryStrategy.CONSERVATIVE: 0.8, MemoryStrategy.AGGRESSIVE: 0.95}
#: Bounds of the dynamic share.
MIN_DYNAMIC_RATIO, MAX_DYNAMIC_RATIO = 0.3, 0.95
#: The same margin as in plans: an allocator reserves more memory than its tensors use.
MEMORY_MARGIN = 1.1
MIXED_STATE_BYTES, FULL_STATE_BYTES = 18, 16


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """Memory that a model needs on each GPU. `parameters`: on one GPU, that is all of them without sharding.

    `activation_bytes`: on one GPU, if known. `peak_bytes`: total, from a plan or measured; overrides the other fields.
    """

    parameters: float | None = None
    activation_bytes: float | None = None
    peak_bytes: float | None = None

    def total_bytes(self, mixed_precision: bool) -> float:
        """Raises InvalidRequestError."""
        for field in ("parameters", "activation_bytes", "peak_bytes"):
            value = getattr(self, field)
            if value is not None and not (isfinite(value) and value > 0):
                raise InvalidRequestError(f"model_{field}", f"{value:g}: must be above 0")
        if self.peak_bytes is not None:
            return self.peak_bytes
        if self.parameters is None:
            raise InvalidRequestError(
                "model_parameters",
                "the dynamic strategy needs the model's size: set the number of parameters, as 7e9, or "
                "model_peak_bytes from a plan",
            )
        states = self.parameters * (MIXED_STATE_BYTES if mixed_precision else FULL_STATE_BYTES)
        return states + (states if self.activation_bytes is None else self.activation_bytes)


@dataclass(frozen=True, slots=True)
class MemoryShare:
    """`ratio` (0..1) of each GPU's memory, and its reason."""

    ratio: float
    why: str


def memory_share(
    strategy: MemoryStrategy, memory_bytes: float | None, need: ModelMemory | None = None, mixed_precision: bool = False
) -> MemoryShare:
    """`memory_bytes`: of one GPU, for the dynamic strategy. Raises InvalidRequestError."""
    if strategy is not MemoryStrategy.DYNAMIC:
        return MemoryShare(STRATEGY_RATIOS[strategy], f"{strategy.value}: {STRATEGY_RATIOS[strategy]:g} of each GPU")
    needed = (need or ModelMemory()).total_bytes(mixed_precision)
    if memory_bytes is None:
        raise InvalidRequestError(
            "memory_gb", "the memory of these GPUs is unknown, and the dynamic strategy needs it: set memory_gb"
        )
    share = MEMORY_MARGIN * needed / memory_bytes
    ratio = ceil(100 * min(max(share, MIN_DYNAMIC_RATIO), MAX_DYNAMIC_RATIO) - 1e-9) / 100
    why = f"dynamic: about {needed / GIB:.1f} GiB of {memory_bytes / GIB:.0f} GiB, plus a margin of 10 %"
    if share > MAX_DYNAMIC_RATIO:
        why += "; it is unlikely to fit: see `gpu-advisor plan` for a way to split it"
    elif share < MIN_DYNAMIC_RATIO:
        why += f"; at least {MIN_DYNAMIC_RATIO:g}"
    return MemoryShare(ratio, why)
