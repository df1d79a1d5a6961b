"""How much of a GPU's memory a framework may take: a strategy as a share, with its reason. Pure.

- conservative: 0.8. Room for a second process, for libraries outside of the framework's allocator, for what was
  not foreseen.
- aggressive: 0.95. One process alone on its GPU; the rest is for the driver's context, which no framework counts.
- dynamic: as much as a model of this size is likely to need, between the two bounds below:

      share = MEMORY_MARGIN * (states + activations) / memory,  not below 0.3, not above 0.95

  States are parameters * 18 bytes in mixed precision with AdamW, 16 bytes in float32: weights, gradients, optimizer
  (https://huggingface.co/docs/transformers/model_memory_anatomy). Activations hang on the batch, which a model's size
  does not tell: without a figure they are taken to be as large as the states, a rule of thumb. Where there is a plan
  (`gpu-advisor plan`) or a measured peak, give its bytes instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import ceil, isfinite

from gpu_advisor.allocation.errors import InvalidRequestError
from gpu_advisor.hardware.cluster_spec import GIB


class MemoryStrategy(str, Enum):
    CONSERVATIVE = "conservative"
    AGGRESSIVE = "aggressive"
    DYNAMIC = "dynamic"


STRATEGY_RATIOS = {MemoryStrategy.CONSERVATIVE: 0.8, MemoryStrategy.AGGRESSIVE: 0.95}
#: Bounds of the dynamic share.
MIN_DYNAMIC_RATIO, MAX_DYNAMIC_RATIO = 0.3, 0.95
#: The same tenth that plans leave free: an allocator reserves more than its tensors take.
MEMORY_MARGIN = 1.1
MIXED_STATE_BYTES, FULL_STATE_BYTES = 18, 16


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """What a model needs on each GPU. `parameters` are those that one GPU holds: all of them without sharding.

    `activation_bytes`: on one GPU, if known. `peak_bytes`: of everything, from a plan or measured; then the rest does
    not count.
    """

    parameters: float | None = None
    activation_bytes: float | None = None
    peak_bytes: float | None = None

    def total_bytes(self, mixed_precision: bool) -> float:
        """Raises InvalidRequestError."""
        for field in ("parameters", "activation_bytes", "peak_bytes"):
            value = getattr(self, field)
            if value is not None and not (isfinite(value) and value > 0):
                raise InvalidRequestError(f"model_{field}", f"{value:g}: give a number above 0")
        if self.peak_bytes is not None:
            return self.peak_bytes
        if self.parameters is None:
            raise InvalidRequestError(
                "model_parameters",
                "the dynamic strategy goes by the model's size: give its number of parameters, as 7e9, or "
                "model_peak_bytes from a plan",
            )
        states = self.parameters * (MIXED_STATE_BYTES if mixed_precision else FULL_STATE_BYTES)
        return states + (states if self.activation_bytes is None else self.activation_bytes)


@dataclass(frozen=True, slots=True)
class MemoryShare:
    """`ratio` (0..1) of each GPU's memory, and why so much."""

    ratio: float
    why: str


def strategy(name: str) -> MemoryStrategy:
    """Raises InvalidRequestError."""
    try:
        return MemoryStrategy(name)
    except ValueError as error:
        raise InvalidRequestError(
            "memory_strategy", f"{name!r}: give {', '.join(each.value for each in MemoryStrategy)}"
        ) from error


def memory_share(
    wanted: MemoryStrategy, memory_bytes: float | None, need: ModelMemory | None = None, mixed_precision: bool = False
) -> MemoryShare:
    """`memory_bytes` is that of one GPU, needed by the dynamic strategy alone. Raises InvalidRequestError."""
    if wanted is not MemoryStrategy.DYNAMIC:
        return MemoryShare(STRATEGY_RATIOS[wanted], f"{wanted.value}: {STRATEGY_RATIOS[wanted]:g} of each GPU")
    needed = (need or ModelMemory()).total_bytes(mixed_precision)
    if memory_bytes is None:
        raise InvalidRequestError(
            "memory_gb", "the memory of these GPUs is not known, and the dynamic strategy goes by it: give memory_gb"
        )
    share = MEMORY_MARGIN * needed / memory_bytes
    ratio = ceil(100 * min(max(share, MIN_DYNAMIC_RATIO), MAX_DYNAMIC_RATIO) - 1e-9) / 100
    why = f"dynamic: about {needed / GIB:.1f} GiB of {memory_bytes / GIB:.0f} GiB, and a tenth more"
    if share > MAX_DYNAMIC_RATIO:
        why += "; it is not likely to fit: see `gpu-advisor plan` for a way to split it"
    elif share < MIN_DYNAMIC_RATIO:
        why += f"; not below {MIN_DYNAMIC_RATIO:g}"
    return MemoryShare(ratio, why)
