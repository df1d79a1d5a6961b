"""How ranks agree on what became of a step, before any of them waits for another's gradients.

Every rank goes through its whole batch alone, without any collective operation. Then all of them meet once: a rank that
ran out of memory, or failed, says so instead of being waited for. Only when all are done are gradients averaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn

from gpu_advisor.training.memory.errors import MemoryManagerError, PeerFailedError

#: Gradients are averaged in pieces of this size, as DistributedDataParallel does.
BUCKET_BYTES = 25 * 2**20
#: Says of itself that it sets no bound to the micro-batch.
UNBOUNDED = 2**62


class StepStatus(IntEnum):
    """The worst of all ranks counts."""

    DONE = 0
    OUT_OF_MEMORY = 1
    FAILED = 2


@dataclass(frozen=True, slots=True)
class StepVote:
    """What became of a step on one rank, or on all of them.

    micro_batch_size: the most that may go through at once from now on. checkpointing: whether it is to be turned on.
    used: for each parameter, whether it has a gradient.
    """

    status: StepStatus
    micro_batch_size: int = UNBOUNDED
    checkpointing: bool = False
    used: tuple[bool, ...] = ()


class RankConsensus(Protocol):
    def agree(self, vote: StepVote) -> StepVote:
        """The vote of all. Raises PeerFailedError when one does not answer."""

    def average_gradients(
        self, parameters: Sequence[nn.Parameter], used: Sequence[bool], buffers: Iterable[torch.Tensor]
    ) -> None:
        """Gradients become the mean over the ranks, buffers those of the first rank."""


class SingleRank:
    """One process has nobody to ask."""

    def agree(self, vote: StepVote) -> StepVote:
        return vote

    def average_gradients(
        self, parameters: Sequence[nn.Parameter], used: Sequence[bool], buffers: Iterable[torch.Tensor]
    ) -> None:
        return


class ProcessGroupConsensus:
    """The ranks of a process group that hold copies of one model."""

    def __init__(self, group: Any, parameters: Sequence[nn.Parameter], timeout_seconds: float) -> None:
        """Called by all ranks at the same point. Takes the memory that averaging needs: later there may be none left.

        group: of the gradients; None is the default group.
        """
        self._group = group
        self._world_size = dist.get_world_size(group)
        self._timeout_seconds = timeout_seconds
        # On the CPU, whatever the gradients' backend is: an NCCL group that waits in vain cannot be told to stop.
        self._vote_group = dist.new_group(
            dist.get_process_group_ranks(group) if group is not None else None,
            timeout=timedelta(seconds=timeout_seconds),
            backend="gloo",
            use_local_synchronization=group is not None,  # ranks outside of the group do not come here
        )
        self._buffers: dict[tuple[torch.dtype, torch.device], torch.Tensor] = {}
        for parameter in parameters:
            key = (parameter.dtype, parameter.device)
            if key not in self._buffers:
                length = BUCKET_BYTES // parameter.element_size()
                self._buffers[key] = torch.zeros(length, dtype=parameter.dtype, device=parameter.device)
        for buffer in self._buffers.values():
            dist.all_reduce(buffer[:1], group=group)  # the backend, too, takes its memory with its first operation

    def agree(self, vote: StepVote) -> StepVote:
        # The largest of each wins, so what is to be the smallest goes in with its sign turned.
        vote_tensor = torch.tensor(
            [int(vote.status), -vote.micro_batch_size, int(vote.checkpointing), *map(int, vote.used)], dtype=torch.int64
        )
        try:
            dist.all_reduce(vote_tensor, op=dist.ReduceOp.MAX, group=self._vote_group)
        except RuntimeError as error:
            raise PeerFailedError(
                f"another rank did not answer within {self._timeout_seconds:g} s: it has ended, or does not call "
                f"backward() as often as this one; see its log ({error})"
            ) from error
        status, micro_batch_size, checkpointing, *used = vote_tensor.tolist()
        return StepVote(StepStatus(status), -micro_batch_size, bool(checkpointing), tuple(map(bool, used)))

    def average_gradients(
        self, parameters: Sequence[nn.Parameter], used: Sequence[bool], buffers: Iterable[torch.Tensor]
    ) -> None:
        for key, bucket in self._buffers.items():
            gradients = [
                _dense_gradient(parameter)
                for parameter, has in zip(parameters, used, strict=True)
                if has and (parameter.dtype, parameter.device) == key
            ]
            for piece in _gradient_buckets(gradients, bucket.numel()):
                self._average_bucket(piece, bucket)
        for buffer in buffers:
            dist.broadcast(buffer, dist.get_global_rank(self._group, 0) if self._group else 0, group=self._group)

    def _average_bucket(self, gradients: list[torch.Tensor], bucket: torch.Tensor) -> None:
        if len(gradients) == 1:  # also one that is larger than the bucket
            flat = gradients[0].as_strided((gradients[0].numel(),), (1,))  # autograd makes them without gaps
            flat.div_(self._world_size)
            dist.all_reduce(flat, group=self._group)
            return
        views = []
        at = 0
        for gradient in gradients:
            views.append(bucket[at : at + gradient.numel()].view(gradient.shape))
            at += gradient.numel()
        torch._foreach_copy_(views, gradients)
        bucket[:at].div_(self._world_size)
        dist.all_reduce(bucket[:at], group=self._group)
        torch._foreach_copy_(gradients, views)


def _dense_gradient(parameter: nn.Parameter) -> torch.Tensor:
    """Its gradient; where only other ranks had use for the parameter, zeros."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    if parameter.grad.is_sparse:
        raise MemoryManagerError("sparse gradients cannot be averaged here; build the embedding with sparse=False")
    return parameter.grad


def _gradient_buckets(gradients: Iterable[torch.Tensor], most: int) -> list[list[torch.Tensor]]:
    """In order, as many to a piece as there is room for; what is larger is a piece of its own."""
    pieces: list[list[torch.Tensor]] = []
    room = 0
    for gradient in gradients:
        if gradient.numel() > room or not pieces:
            pieces.append([])
            room = most
        pieces[-1].append(gradient)
        room -= gradient.numel()
    return pieces
