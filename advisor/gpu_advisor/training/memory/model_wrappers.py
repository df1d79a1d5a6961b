"""What kind of model it is: what is inside a wrapper, and whether a rank can go through it alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from gpu_advisor.training.memory.errors import MemoryManagerError

#: Wrappers, by name: their classes need not be installed. Their forward pass gathers weights from other ranks.
_SHARDED_WRAPPERS = ("FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine")


class UnwrappedModel(NamedTuple):
    """group: of the gradients, None is the default one. shared_buffers: whether all take the first rank's buffers."""

    module: nn.Module
    distributed: bool
    group: Any
    shared_buffers: bool


def unwrap_model(model: nn.Module) -> UnwrappedModel:
    """The model without DistributedDataParallel. Raises MemoryManagerError where ranks wait for each other within."""
    if isinstance(getattr(model, "_orig_mod", None), DistributedDataParallel):
        raise MemoryManagerError(
            "compile the model before it is wrapped: DistributedDataParallel(torch.compile(model))"
        )
    names = {base.__name__ for module in model.modules() for base in type(module).__mro__}
    for name in _SHARDED_WRAPPERS:
        if name in names:
            raise MemoryManagerError(
                f"{name}: its forward pass waits for other ranks, so one that runs out of memory cannot say so; find a "
                "micro-batch that fits beforehand, with gpu-advisor probe"
            )
    if isinstance(model, DataParallel):
        raise MemoryManagerError("DataParallel is not supported; use DistributedDataParallel, one process a GPU")
    world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if not isinstance(model, DistributedDataParallel):
        found = UnwrappedModel(model, world > 1, None, False)
    else:
        found = UnwrappedModel(model.module, world > 1, model.process_group, model.broadcast_buffers)
    if found.distributed and any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        raise MemoryManagerError(
            "SyncBatchNorm waits for other ranks in the forward pass, so a rank that runs out of memory cannot say so; "
            "use GroupNorm or BatchNorm"
        )
    return found


def count_batch_norms(model: nn.Module) -> int:
    """How many layers normalise by their batch."""
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
