"""Options of a framework's setup, and the memory share that follows from them."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpu_advisor.allocation.errors import InvalidRequestError
from gpu_advisor.allocation.memory_strategy import MemoryShare, MemoryStrategy, ModelMemory, memory_share
from gpu_advisor.allocation.model import Allocation
from gpu_advisor.hardware.gpu_types import GIB

#: Rendezvous port: torchrun's default; TensorFlow accepts any free port.
DEFAULT_PORT = 29500


@dataclass(frozen=True, slots=True)
class SetupOptions:
    """Without a `strategy`, the request's gpu_memory_fraction applies. `version`: of the framework, as 2.4.1.

    `script`: in the command that starts the job. `growth` (TensorFlow): allocate memory as needed, without a limit
    (they exclude each other). `devices_given`: a pod or scheduler shows the process only its own GPUs, so no variable
    may name any.
    """

    strategy: MemoryStrategy | None = None
    need: ModelMemory = field(default_factory=ModelMemory)
    script: str = "train.py"
    port: int = DEFAULT_PORT
    version: str = ""
    growth: bool = False
    devices_given: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise InvalidRequestError("port", f"{self.port}: must be from 1 to 65535")
        if not self.script.strip():
            raise InvalidRequestError("script", "is empty; give the name of the training script, as train.py")


def gpu_memory_bytes(allocation: Allocation) -> float | None:
    """Of the smallest GPU; None if unknown. Nominal GB are 2**30 bytes."""
    return None if allocation.memory_per_gpu is None else allocation.memory_per_gpu * GIB


def framework_memory_share(allocation: Allocation, options: SetupOptions) -> MemoryShare:
    """The share of each GPU's memory that the framework may use. Raises InvalidRequestError."""
    if options.strategy is None:
        ratio = allocation.request.gpu_memory_fraction
        return MemoryShare(ratio, f"gpu_memory_fraction of the request: {ratio:g} of each GPU")
    return memory_share(
        options.strategy, gpu_memory_bytes(allocation), options.need, allocation.request.mixed_precision
    )
