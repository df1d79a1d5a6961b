"""MemoryManager: repeats a step that runs out of memory in smaller micro-batches, and training continues.

    manager = MemoryManager(model)
    for batch in loader:
        loss = manager.backward(batch, lambda model, part: loss_of(model(part["x"]), part["y"]))
        optimizer.step()

`backward` replaces `zero_grad`, the forward pass and `loss.backward()`. The micro-batches' gradients add up to those of
the whole batch: optimizer, schedule and loss curve do not change.

Exceptions: BatchNorm normalizes each micro-batch by its own mean and variance, so its results (and running statistics)
are those of smaller batches; use GroupNorm or LayerNorm where that matters. Dropout draws other masks.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import nn

from gpu_advisor.training.memory.batch_size_proposal import proposal_text, propose_from_peaks
from gpu_advisor.training.memory.checkpointing import can_checkpoint, enable_checkpointing
from gpu_advisor.training.memory.device_memory import CudaMemory, DeviceMemory
from gpu_advisor.training.memory.errors import DoesNotFitError, MemoryManagerError, PeerFailedError, is_out_of_memory
from gpu_advisor.training.memory.micro_batch import count_samples, even_part_size, split_batch
from gpu_advisor.training.memory.model_wrappers import count_batch_norms, unwrap_model
from gpu_advisor.training.memory.rank_consensus import (
    UNBOUNDED,
    ProcessGroupConsensus,
    RankConsensus,
    SingleRank,
    StepStatus,
    StepVote,
)
from gpu_advisor.training.memory.remedies import Remedy, choose_remedies
from gpu_advisor.training.memory.step_rollback import StepRollback
from gpu_advisor.training.memory.training_step import ComputeLoss, TrainingStep

if TYPE_CHECKING:
    from gpu_advisor.calibration.batch_size_advice import BatchSizeAdvice

#: Share of memory that a proposed batch size may use.
DEFAULT_TARGET_RATIO = 0.85

log = logging.getLogger(__name__)


class _Attempt(NamedTuple):
    """Outcome of a step on this rank. part_size: samples per forward pass."""

    status: StepStatus
    part_size: int
    loss: torch.Tensor | None = None
    error: Exception | None = None
    message: str = ""


class MemoryManager:
    """For one model, on one rank.

    In a distributed job all ranks create one at the same point and call `backward` equally often. The manager averages
    the gradients, once all ranks have agreed that their step succeeded. The model may be wrapped in
    DistributedDataParallel, but its own averaging during the backward pass is not used: a rank that waits there for one
    that ran out of memory cannot be interrupted.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        memory: DeviceMemory | None = None,
        threshold_ratio: float = 0.92,
        min_micro_batch_size: int = 1,
        checkpointing: bool = True,
        check_every_steps: int = 50,
        timeout_seconds: float = 600.0,
    ) -> None:
        """
        memory: source of memory statistics; the model's CUDA device if None, nothing on the CPU.
        threshold_ratio: share of memory above which remedies are applied before it runs out.
        checkpointing: whether gradient checkpointing may be enabled, if the model supports it.
        timeout_seconds: how long ranks wait for each other in a step.
        Raises MemoryManagerError for models whose forward pass waits for other ranks.
        """
        if not 0 < threshold_ratio <= 1:
            raise MemoryManagerError(f"threshold_ratio={threshold_ratio} must be above 0 and at most 1, as in 0.92")
        if min_micro_batch_size < 1 or check_every_steps < 1:
            raise MemoryManagerError("min_micro_batch_size and check_every_steps must be at least 1")
        unwrapped = unwrap_model(model)
        self.model = unwrapped.module
        self._parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if not self._parameters:
            raise MemoryManagerError("the model has no parameter with requires_grad")
        device = self._parameters[0].device
        self.memory = CudaMemory(device.index or 0) if memory is None and device.type == "cuda" else memory
        self.micro_batch_size: int | None = None
        """Samples per forward pass; None: the whole batch. Writable, for example to measure a smaller size."""
        self.recoveries = 0
        """Steps that ran out of memory and were repeated."""
        self._consensus: RankConsensus = (
            ProcessGroupConsensus(unwrapped.group, self._parameters, timeout_seconds)
            if unwrapped.distributed
            else SingleRank()
        )
        self._shared_buffers = unwrapped.shared_buffers
        self._rollback = StepRollback(self.model, device)
        self._threshold_ratio = threshold_ratio
        self._min_micro_batch_size = min_micro_batch_size
        self._can_checkpoint = checkpointing and can_checkpoint(self.model)
        self._check_every_steps = check_every_steps
        self._last_check = self.memory.read() if self.memory else None
        self._pending_remedies: tuple[Remedy, ...] = ()
        self._warnings_logged: set[str] = set()
        self._steps = 0
        self._measured_size: int | None = None
        self._measured_limit: int | None = None
        self._peaks: dict[int, int] = {}

    def backward(
        self,
        batch: Any,
        compute_loss: ComputeLoss,
        *,
        reduction: Literal["mean", "sum"] = "mean",
        weight: Callable[[Any], float] = count_samples,
        count: Callable[[Any], int] = count_samples,
        split: Callable[[Any, int], Iterable[Any]] = split_batch,
        scaler: torch.amp.GradScaler | None = None,
    ) -> torch.Tensor:
        """Compute the gradients of one step, replacing earlier ones, and return the batch's loss, detached.

        compute_loss: (model, part of the batch) -> loss; call the model it receives, not its DDP wrapper.
        reduction: how the loss reduces its samples. weight: a part's weight in the mean: its samples, or its tokens if
        the loss is the mean over tokens.
        split: (batch, maximum samples) -> parts. scaler: for fp16 mixed precision.
        Raises DoesNotFitError if no remedy helps, PeerFailedError if another rank failed; no weights have changed.
        """
        step = TrainingStep(batch, compute_loss, reduction, weight, count, split, scaler)
        while True:
            attempt = self._attempt(step)
            if attempt.status is StepStatus.OUT_OF_MEMORY:
                # Not in the `except` block: the error's traceback still references the activations there.
                self._free_memory()
            consensus_vote = self._consensus.agree(self._vote(attempt))
            if consensus_vote.checkpointing:
                self._enable_checkpointing()
            if attempt.loss is not None and consensus_vote.status is StepStatus.DONE:
                break
            self._rollback.restore()
            if consensus_vote.status is StepStatus.FAILED:
                raise attempt.error or PeerFailedError(
                    "another rank failed in this step; see its log. No weights were changed"
                )
            self._reduce_micro_batch(consensus_vote, attempt)
        self._consensus.average_gradients(self._parameters, consensus_vote.used, self._buffers())
        self._check(attempt.part_size)
        return attempt.loss

    def propose_batch_size(
        self, target_ratio: float = DEFAULT_TARGET_RATIO, points: Iterable[tuple[int, int]] = ()
    ) -> BatchSizeAdvice:
        """The largest batch size within the target, from the peaks of the micro-batch sizes run so far.

        points: further (batch size, peak bytes), such as from `gpu-advisor probe`; at least two sizes are needed in
        total. Changes nothing: another batch size may need another learning rate. Raises CalibrationError, and
        MemoryManagerError if the device's memory is unknown.
        """
        if self.memory is None:
            raise MemoryManagerError("cannot read the memory of this device; pass memory= to MemoryManager")
        peaks = {**dict(points), **self._peaks}
        return propose_from_peaks(peaks, self.memory.read().limit_bytes, target_ratio, self._measured_size)

    def _attempt(self, step: TrainingStep) -> _Attempt:
        part_size = 0
        try:
            self._rollback.save()
            size = step.count(step.batch)
            part_size = even_part_size(size, self.micro_batch_size or size)
            self._begin_measuring(part_size)
            loss = step.run(self.model, step.parts(size, part_size))
        except Exception as error:  # noqa: BLE001  # whatever it is, the other ranks must learn of it
            if is_out_of_memory(error):
                return _Attempt(StepStatus.OUT_OF_MEMORY, part_size, message=str(error))
            return _Attempt(StepStatus.FAILED, part_size, error=error)
        return _Attempt(StepStatus.DONE, part_size, loss)

    def _vote(self, attempt: _Attempt) -> StepVote:
        bound = UNBOUNDED
        if attempt.status is StepStatus.OUT_OF_MEMORY:
            half = max(-(-attempt.part_size // 2), self._min_micro_batch_size)
            bound = half if half < attempt.part_size else 0
        used = tuple(parameter.grad is not None for parameter in self._parameters)
        return StepVote(attempt.status, bound, Remedy.CHECKPOINTING in self._pending_remedies, used)

    def _reduce_micro_batch(self, consensus_vote: StepVote, attempt: _Attempt) -> None:
        """All ranks decide alike: they have the same vote and copies of one model."""
        self.recoveries += 1
        where = attempt.message or "on another rank"
        if consensus_vote.micro_batch_size > 0:
            self.micro_batch_size = consensus_vote.micro_batch_size
            log.warning(
                "out of memory: repeating this step with a micro-batch size of %d, also for the following steps (%s)",
                consensus_vote.micro_batch_size,
                where,
            )
            self._warn_of_batch_norm()
        elif self._can_checkpoint:
            self.micro_batch_size = None  # with far fewer activations the whole batch may fit
            self._enable_checkpointing()
        else:
            raise DoesNotFitError(
                f"out of memory at the minimum micro-batch size of {self._min_micro_batch_size} ({where}); use a "
                "smaller model, shorter samples, lower precision, an optimizer with less state, or more GPUs"
            )

    def _warn_of_batch_norm(self) -> None:
        layers = count_batch_norms(self.model)
        if layers and "batch norm" not in self._warnings_logged:
            self._warnings_logged.add("batch norm")
            log.warning(
                "the model has %d BatchNorm layers, which normalize each micro-batch: its results change. "
                "GroupNorm and LayerNorm are not affected",
                layers,
            )

    def _enable_checkpointing(self) -> None:
        self._pending_remedies = ()
        if self._can_checkpoint and enable_checkpointing(self.model):
            self._can_checkpoint = False
            self._measured_size = None  # earlier peaks no longer apply
            self._peaks.clear()
            log.warning("low memory: enabled gradient checkpointing; steps take about a third longer")

    def _free_memory(self) -> None:
        """After an error: reference cycles may keep tensors alive, and the cache is fragmented."""
        self._rollback.clear_gradients()
        gc.collect()
        if self.memory is not None:
            self.memory.empty_cache()

    def _begin_measuring(self, part_size: int) -> None:
        """Reset the peak when the size changes. A smaller last batch of an epoch does not count as a change."""
        measured = self._measured_size
        changed = measured is None or part_size > measured or self.micro_batch_size != self._measured_limit
        if self.memory is not None and changed:
            self.memory.reset_peak()
            self._measured_size, self._measured_limit = part_size, self.micro_batch_size

    def _check(self, part_size: int) -> None:
        """After a successful step: choose remedies to apply before the next one."""
        self._steps += 1
        if self.memory is None or (self._steps % self._check_every_steps and part_size in self._peaks):
            return
        reading = self.memory.read()
        if part_size == self._measured_size:
            self._peaks[part_size] = max(reading.peak_allocated_bytes, self._peaks.get(part_size, 0))
        self._pending_remedies = choose_remedies(reading, self._last_check, self._threshold_ratio, self._can_checkpoint)
        self._last_check = reading
        if Remedy.EMPTY_CACHE in self._pending_remedies:
            self.memory.empty_cache()
        if Remedy.SMALLER_BATCH in self._pending_remedies and "smaller" not in self._warnings_logged:
            self._warnings_logged.add("smaller")
            log.warning(
                "peak memory is %.0f %% of the limit, with a micro-batch size of %d; %s",
                100 * reading.peak_allocated_bytes / reading.limit_bytes,
                part_size,
                proposal_text(self._peaks, reading.limit_bytes, DEFAULT_TARGET_RATIO),
            )

    def _buffers(self) -> Iterator[torch.Tensor]:
        return self.model.buffers() if self._shared_buffers else iter(())
