"""Unwraps a model, and checks that a rank can run it without waiting for other ranks."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from gpu_advisor.training.memory.errors import MemoryManagerError

#: Wrappers whose forward pass gathers weights from other ranks, by name: they may not be installed.
_SHARDED_WRAPPERS = ("FullyShardedDataParallel", "FSDPModule", "DeepSpeedEngine")


class UnwrappedModel(NamedTuple):
    """group: for the gradients, None is the default group. shared_buffers: whether rank 0's buffers are broadcast."""

    module: nn.Module
    distributed: bool
    group: Any
    shared_buffers: bool


def unwrap_model(model: nn.Module) -> UnwrappedModel:
    """The model without its DDP wrapper. Raises MemoryManagerError if its forward pass waits for other ranks."""
    if isinstance(getattr(model, "_orig_mod", None), DistributedDataParallel):
        raise MemoryManagerError("compile the model before wrapping it: DistributedDataParallel(torch.compile(model))")
    names = {base.__name__ for module in model.modules() for base in type(module).__mro__}
    for name in _SHARDED_WRAPPERS:
        if name in names:
            raise MemoryManagerError(
                f"{name} is not supported: its forward pass waits for other ranks, so a rank that runs out of memory "
                "cannot recover; find a micro-batch size that fits with gpu-advisor probe"
            )
    if isinstance(model, DataParallel):
        raise MemoryManagerError("DataParallel is not supported; use DistributedDataParallel with one process per GPU")
    world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if not isinstance(model, DistributedDataParallel):
        found = UnwrappedModel(model, world > 1, None, False)
    else:
        found = UnwrappedModel(model.module, world > 1, model.process_group, model.broadcast_buffers)
    if found.distributed and any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        raise MemoryManagerError(
            "SyncBatchNorm is not supported: it waits for other ranks in the forward pass, so a rank that runs out of "
            "memory cannot recover; use GroupNorm or BatchNorm"
        )
    return found


def batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The BatchNorm layers."""
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
