"""Consensus of all ranks on the outcome of a step, before any of them averages gradients.

Every rank computes its whole batch without collective operations. Then one all-reduce shares the outcomes: a rank that
ran out of memory, or failed, reports it. Gradients are averaged only if all ranks succeeded.
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

#: Bucket size for averaging gradients, as in DistributedDataParallel.
BUCKET_BYTES = 25 * 2**20
#: micro_batch_size of a rank that sets no limit.
UNBOUNDED = 2**62


class StepStatus(IntEnum):
    """Of all ranks, the highest value wins."""

    DONE = 0
    OUT_OF_MEMORY = 1
    FAILED = 2


@dataclass(frozen=True, slots=True)
class StepVote:
    """Outcome of a step on one rank, or on all of them.

    micro_batch_size: the maximum from now on. checkpointing: whether to enable it.
    used: for each parameter, whether it has a gradient.
    """

    status: StepStatus
    micro_batch_size: int = UNBOUNDED
    checkpointing: bool = False
    used: tuple[bool, ...] = ()


class RankConsensus(Protocol):
    def agree(self, vote: StepVote) -> StepVote:
        """The combined vote of all ranks. Raises PeerFailedError if one does not respond."""

    def average_gradients(
        self, parameters: Sequence[nn.Parameter], used: Sequence[bool], buffers: Iterable[torch.Tensor]
    ) -> None:
        """Average gradients over the ranks, and broadcast the first rank's buffers."""


class SingleRank:
    """A job of one process."""

    def agree(self, vote: StepVote) -> StepVote:
        return vote

    def average_gradients(
        self, parameters: Sequence[nn.Parameter], used: Sequence[bool], buffers: Iterable[torch.Tensor]
    ) -> None:
        return


class ProcessGroupConsensus:
    """The ranks of a process group with copies of one model."""

    def __init__(self, group: Any, parameters: Sequence[nn.Parameter], timeout_seconds: float) -> None:
        """All ranks must call this at the same point. Allocates the memory for averaging: later there may be none left.

        group: for the gradients; None is the default group.
        """
        self._group = group
        self._world_size = dist.get_world_size(group)
        self._timeout_seconds = timeout_seconds
        # On the CPU, whatever the gradients' backend is: a waiting NCCL operation cannot be cancelled.
        self._vote_group = dist.new_group(
            dist.get_process_group_ranks(group) if group is not None else None,
            timeout=timedelta(seconds=timeout_seconds),
            backend="gloo",
            use_local_synchronization=group is not None,  # ranks outside the group do not call this
        )
        self._buffers: dict[tuple[torch.dtype, torch.device], torch.Tensor] = {}
        self._add_buffers(parameters)
        for buffer in self._buffers.values():
            dist.all_reduce(buffer[:1], group=group)  # the backend allocates its memory on its first operation

    def _add_buffers(self, parameters: Iterable[nn.Parameter]) -> None:
        for parameter in parameters:
            key = (parameter.dtype, parameter.device)
            if key not in self._buffers:
                length = BUCKET_BYTES // parameter.element_size()
                self._buffers[key] = torch.zeros(length, dtype=parameter.dtype, device=parameter.device)

    def agree(self, vote: StepVote) -> StepVote:
        # MAX reduces all fields, so the minimum micro-batch size is sent negated.
        vote_tensor = torch.tensor(
            [int(vote.status), -vote.micro_batch_size, int(vote.checkpointing), *map(int, vote.used)], dtype=torch.int64
        )
        try:
            dist.all_reduce(vote_tensor, op=dist.ReduceOp.MAX, group=self._vote_group)
        except RuntimeError as error:
            raise PeerFailedError(
                f"another rank did not respond within {self._timeout_seconds:g} s: it has exited, or does not call "
                f"backward() as often as this one; see its log ({error})"
            ) from error
        status, micro_batch_size, checkpointing, *used = vote_tensor.tolist()
        return StepVote(StepStatus(status), -micro_batch_size, bool(checkpointing), tuple(map(bool, used)))

    def average_gradients(
        self, parameters: Sequence[nn.Parameter], used: Sequence[bool], buffers: Iterable[torch.Tensor]
    ) -> None:
        # A parameter unfrozen since the start may have another type; all ranks know which are used.
        self._add_buffers(parameter for parameter, has in zip(parameters, used, strict=True) if has)
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
        if len(gradients) == 1:  # may be larger than the bucket
            flat = gradients[0].as_strided((gradients[0].numel(),), (1,))  # autograd's gradients have no gaps
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
    """The parameter's gradient; zeros if only other ranks used the parameter."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    if parameter.grad.is_sparse:
        raise MemoryManagerError("sparse gradients are not supported; create the embedding with sparse=False")
    return parameter.grad


def _gradient_buckets(gradients: Iterable[torch.Tensor], max_elements: int) -> list[list[torch.Tensor]]:
    """Gradients in order, in buckets of at most `max_elements`; a larger gradient gets its own bucket."""
    buckets: list[list[torch.Tensor]] = []
    free_elements = 0
    for gradient in gradients:
        if gradient.numel() > free_elements or not buckets:
            buckets.append([])
            free_elements = max_elements
        buckets[-1].append(gradient)
        free_elements -= gradient.numel()
    return buckets
