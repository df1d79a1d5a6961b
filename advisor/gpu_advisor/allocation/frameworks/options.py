"""What may be said about a setup beside the allocation itself, and what follows for its memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpu_advisor.allocation.errors import InvalidRequestError
from gpu_advisor.allocation.memory_strategy import MemoryShare, MemoryStrategy, ModelMemory, memory_share
from gpu_advisor.allocation.model import Allocation
from gpu_advisor.hardware.cluster_spec import GIB

#: Where processes meet: torchrun's default port, and TensorFlow's in its own examples is any that is free.
DEFAULT_PORT = 29500


@dataclass(frozen=True, slots=True)
class SetupOptions:
    """Without a `strategy` the request's own gpu_memory_fraction holds. `version` is the framework's, as 2.4.1.

    `script` stands in the line that starts the job. `growth` (TensorFlow): take memory as it is needed, without a
    limit, since one excludes the other. `devices_given`: a pod or a scheduler shows the process its own GPUs
    alone, so no variable may name any.
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
            raise InvalidRequestError("port", f"{self.port}: give a port from 1 to 65535")
        if not self.script.strip():
            raise InvalidRequestError("script", "give the name of the script that trains, as train.py")


def gpu_memory_bytes(allocation: Allocation) -> float | None:
    """Of the smallest GPU; None if not known. Cards are sold by GB of 2**30 bytes."""
    return None if allocation.memory_per_gpu is None else allocation.memory_per_gpu * GIB


def framework_memory_share(allocation: Allocation, options: SetupOptions) -> MemoryShare:
    """How much of each GPU the framework may take. Raises InvalidRequestError."""
    if options.strategy is None:
        ratio = allocation.request.gpu_memory_fraction
        return MemoryShare(ratio, f"gpu_memory_fraction of the request: {ratio:g} of each GPU")
    return memory_share(
        options.strategy, gpu_memory_bytes(allocation), options.need, allocation.request.mixed_precision
    )
