"""Errors of the memory manager."""

from __future__ import annotations

import torch


class MemoryManagerError(Exception):
    """The manager cannot do what it was asked to. The message says how to fix it."""


class DoesNotFitError(MemoryManagerError):
    """The step does not fit in memory, and no remedy is left."""


class InexactError(MemoryManagerError):
    """In micro-batches, the step would not have the gradients of the whole batch."""


class UnusedGradientsError(MemoryManagerError):
    """The gradients of the last `backward` would be lost: no step was made with them."""


class PeerFailedError(MemoryManagerError):
    """Another rank failed in this step. The step changed no weights."""


def out_of_memory_type() -> type[RuntimeError]:
    """torch.OutOfMemoryError; before PyTorch 2.5 it is in torch.cuda."""
    found: type[RuntimeError] = getattr(torch, "OutOfMemoryError", None) or torch.cuda.OutOfMemoryError
    return found
