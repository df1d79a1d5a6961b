"""MemoryManager: a step that runs out of memory is done again in smaller parts, and the training goes on as it was.

    manager = MemoryManager(model)
    for batch in loader:
        loss = manager.backward(batch, lambda model, part: loss_of(model(part["x"]), part["y"]))
        optimizer.step()

`backward` takes the place of `zero_grad`, the forward pass and `loss.backward()`. However small the parts become, their
gradients add up to those of the whole batch: optimizer, schedule and loss curve stay what they were.

What differs in parts: BatchNorm normalises each part by its own mean and variance, so its results (and running
statistics) are those of smaller batches; use GroupNorm or LayerNorm where that matters. Dropout draws other masks.
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
from gpu_advisor.training.memory.remedies import Remedy, remedies
from gpu_advisor.training.memory.step_rollback import StepRollback
from gpu_advisor.training.memory.training_step import ComputeLoss, TrainingStep

if TYPE_CHECKING:
    from gpu_advisor.calibration.batch_size_advice import BatchSizeAdvice

#: The share of the memory that a proposed batch may take.
DEFAULT_TARGET_RATIO = 0.85

log = logging.getLogger(__name__)


class _Attempt(NamedTuple):
    """What became of a step on this rank. at_once: the samples that went through at once, or were to."""

    status: StepStatus
    part_size: int
    loss: torch.Tensor | None = None
    error: Exception | None = None
    message: str = ""


class MemoryManager:
    """For one model, on one rank. In a distributed job all ranks make one at the same point, and call `backward` alike.

    There the gradients are averaged by the manager, when all ranks have agreed that their step succeeded. The model may
    be wrapped in DistributedDataParallel, but that one's own averaging, which overlaps with the backward pass, is not
    used: a rank that waits in it for one that ran out of memory cannot be called back.
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
        memory: where memory is read; that of the model's CUDA device if None, nothing on the CPU.
        threshold_ratio: share of the memory above which something is done before it runs out.
        checkpointing: whether gradient checkpointing may be turned on, where the model has it.
        timeout_seconds: how long ranks wait for each other in a step.
        Raises MemoryManagerError for models whose forward pass waits for other ranks.
        """
        if not 0 < threshold_ratio <= 1:
            raise MemoryManagerError(f"threshold_ratio={threshold_ratio} must be above 0 and up to 1, as 0.92")
        if min_micro_batch_size < 1 or check_every_steps < 1:
            raise MemoryManagerError("min_micro_batch_size and check_every_steps must be at least 1")
        found = unwrap_model(model)
        self.model = found.module
        self._parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if not self._parameters:
            raise MemoryManagerError("the model has no parameter that is trained")
        device = self._parameters[0].device
        self.memory = CudaMemory(device.index or 0) if memory is None and device.type == "cuda" else memory
        self.micro_batch_size: int | None = None
        """Samples that go through at once; None: the whole batch. May be set, also to measure a smaller size."""
        self.recoveries = 0
        """Steps that ran out of memory and were done again."""
        self._consensus: RankConsensus = (
            ProcessGroupConsensus(found.group, self._parameters, timeout_seconds) if found.distributed else SingleRank()
        )
        self._shared_buffers = found.shared_buffers
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
        """Makes the gradients of one step, whatever was in them before, and returns the batch's loss, detached.

        compute_loss: (model, part of the batch) -> loss; call the model that is handed in, not its DDP wrapper.
        reduction: how that loss comes from its samples. weight: what a part counts for in the mean: its samples, or its
        tokens where the loss is the mean over tokens.
        split: (batch, most samples) -> parts. scaler: of mixed precision in fp16.
        Raises DoesNotFitError where nothing helps, PeerFailedError when another rank failed; no weights have changed.
        """
        step = TrainingStep(batch, compute_loss, reduction, weight, count, split, scaler)
        while True:
            attempt = self._attempt(step)
            if attempt.status is StepStatus.OUT_OF_MEMORY:
                # Outside of the `except`: the error's traceback held on to the activations.
                self._free_memory()
            consensus_vote = self._consensus.agree(self._vote(attempt))
            if consensus_vote.checkpointing:
                self._enable_checkpointing()
            if attempt.loss is not None and consensus_vote.status is StepStatus.DONE:
                break
            self._rollback.undo()
            if consensus_vote.status is StepStatus.FAILED:
                raise attempt.error or PeerFailedError(
                    "another rank failed in this step; its own log says why. No weights were changed"
                )
            self._reduce_micro_batch(consensus_vote, attempt)
        self._consensus.average_gradients(self._parameters, consensus_vote.used, self._buffers())
        self._check(attempt.part_size)
        return attempt.loss

    def propose_batch_size(
        self, target_ratio: float = DEFAULT_TARGET_RATIO, points: Iterable[tuple[int, int]] = ()
    ) -> BatchSizeAdvice:
        """The largest batch within the target, from the peaks of the sizes that went through at once so far.

        points: (batch size, peak bytes) known from elsewhere, such as `gpu-advisor probe`; two sizes are needed in all.
        Nothing is changed: another batch size may want another learning rate. Raises CalibrationError, and
        MemoryManagerError where the device's memory is not known.
        """
        if self.memory is None:
            raise MemoryManagerError("the memory of this device cannot be read; give memory= to the MemoryManager")
        peaks = {**dict(points), **self._peaks}
        return propose_from_peaks(peaks, self.memory.read().limit_bytes, target_ratio, self._measured_size)

    def _attempt(self, step: TrainingStep) -> _Attempt:
        part_size = 0
        try:
            self._rollback.begin()
            size = step.count(step.batch)
            part_size = even_part_size(size, self.micro_batch_size or size)
            self._begin_measuring(part_size)
            loss = step.run(self.model, step.parts(size, part_size))
        except Exception as error:  # noqa: BLE001  # whatever it is, the other ranks must not wait for this one
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
        """All ranks come to the same here: they hold the same verdict and copies of one model."""
        self.recoveries += 1
        where = attempt.message or "on another rank"
        if consensus_vote.micro_batch_size > 0:
            self.micro_batch_size = consensus_vote.micro_batch_size
            log.warning(
                "out of memory: this step is done again with %d samples at once, and so are those after it (%s)",
                consensus_vote.micro_batch_size,
                where,
            )
            self._warn_of_batch_norm()
        elif self._can_checkpoint:
            self.micro_batch_size = None  # far less is kept: it may all fit again
            self._enable_checkpointing()
        else:
            raise DoesNotFitError(
                f"out of memory with no more than {self._min_micro_batch_size} sample(s) at once ({where}); use a "
                "smaller model or shorter samples, lower precision, an optimizer with less state, or more GPUs for it"
            )

    def _warn_of_batch_norm(self) -> None:
        found = count_batch_norms(self.model)
        if found and "batch norm" not in self._warnings_logged:
            self._warnings_logged.add("batch norm")
            log.warning(
                "the model has %d BatchNorm layers, which see the parts and not the whole batch: its results change. "
                "GroupNorm or LayerNorm would not",
                found,
            )

    def _enable_checkpointing(self) -> None:
        self._pending_remedies = ()
        if self._can_checkpoint and enable_checkpointing(self.model):
            self._can_checkpoint = False
            self._measured_size = None  # other memory from here on
            self._peaks.clear()
            log.warning("memory is short: gradient checkpointing is on; steps take about a third longer")

    def _free_memory(self) -> None:
        """After an error: cycles in Python may still hold tensors, and the cache is full of pieces that did not fit."""
        self._rollback.clear_gradients()
        gc.collect()
        if self.memory is not None:
            self.memory.empty_cache()

    def _begin_measuring(self, part_size: int) -> None:
        """A size's peak is that of the steps since it came. The rest at the end of an epoch is no size of its own."""
        measured = self._measured_size
        another = measured is None or part_size > measured or self.micro_batch_size != self._measured_limit
        if self.memory is not None and another:
            self.memory.reset_peak()
            self._measured_size, self._measured_limit = part_size, self.micro_batch_size

    def _check(self, part_size: int) -> None:
        """After a step that succeeded: is something to be done before the next one?"""
        self._steps += 1
        if self.memory is None or (self._steps % self._check_every_steps and part_size in self._peaks):
            return
        reading = self.memory.read()
        if part_size == self._measured_size:
            self._peaks[part_size] = max(reading.peak_allocated_bytes, self._peaks.get(part_size, 0))
        self._pending_remedies = remedies(reading, self._last_check, self._threshold_ratio, self._can_checkpoint)
        self._last_check = reading
        if Remedy.EMPTY_CACHE in self._pending_remedies:
            self.memory.empty_cache()
        if Remedy.SMALLER_BATCH in self._pending_remedies and "smaller" not in self._warnings_logged:
            self._warnings_logged.add("smaller")
            log.warning(
                "%.0f %% of the memory is in use at its peak, with %d samples at once; %s",
                100 * reading.peak_allocated_bytes / reading.limit_bytes,
                part_size,
                proposal_text(self._peaks, reading.limit_bytes, DEFAULT_TARGET_RATIO),
            )

    def _buffers(self) -> Iterator[torch.Tensor]:
        return self.model.buffers() if self._shared_buffers else iter(())
