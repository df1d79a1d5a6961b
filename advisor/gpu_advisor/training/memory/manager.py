"""MemoryManager: repeats a step that runs out of memory in smaller micro-batches, and training continues.

    manager = MemoryManager(model)
    for batch in loader:
        loss = manager.backward(batch, lambda model, part: loss_of(model(part["x"]), part["y"]))
        optimizer.step()

`backward` replaces `zero_grad`, the forward pass and `loss.backward()`. The micro-batches' gradients add up to those of
the whole batch: optimizer, schedule and loss curve do not change. Where they would not (BatchNorm, contrastive losses),
the manager says so after the first step, and refuses to divide one. Dropout draws other masks.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import nn

from gpu_advisor.calibration.out_of_memory import MemoryFailure, is_nearly_full, memory_failure
from gpu_advisor.training.memory.accumulation import GradientAccumulation
from gpu_advisor.training.memory.checkpointing import can_checkpoint, enable_checkpointing
from gpu_advisor.training.memory.device_memory import CudaMemory, DeviceMemory
from gpu_advisor.training.memory.errors import DoesNotFitError, InexactError, MemoryManagerError, PeerFailedError
from gpu_advisor.training.memory.exactness import Exactness, batch_norm_reason, examine
from gpu_advisor.training.memory.gradient_hooks import DeferredHooks
from gpu_advisor.training.memory.micro_batch import count_samples, even_part_size, split_batch
from gpu_advisor.training.memory.model_wrappers import unwrap_model
from gpu_advisor.training.memory.other_gradients import OtherGradients
from gpu_advisor.training.memory.peak_watch import DEFAULT_TARGET_RATIO, PeakWatch
from gpu_advisor.training.memory.rank_consensus import (
    UNBOUNDED,
    ProcessGroupConsensus,
    RankConsensus,
    SingleRank,
    StepStatus,
    StepVote,
)
from gpu_advisor.training.memory.remedies import Remedy
from gpu_advisor.training.memory.step_rollback import StepRollback
from gpu_advisor.training.memory.training_step import ComputeLoss, StepResult, TrainingStep
from gpu_advisor.training.memory.weighting import TermRatios, Weighting

if TYPE_CHECKING:
    from gpu_advisor.calibration.batch_size_advice import BatchSizeAdvice

log = logging.getLogger(__name__)

#: Steps of different code whose exactness is remembered.
MAX_EXAMINED = 32


class _Attempt(NamedTuple):
    """Outcome of a step on this rank. part_size: samples of the largest part, of `size` in all."""

    status: StepStatus
    size: int
    part_size: int
    result: StepResult | None = None
    adds: bool = False
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
        accumulate: int = 1,
        exact: bool = True,
        checkpointing: bool = True,
        check_every_steps: int = 50,
        timeout_seconds: float = 600.0,
    ) -> None:
        """
        memory: source of memory statistics; the model's CUDA device if None, nothing on the CPU.
        threshold_ratio: share of memory above which remedies are applied before it runs out.
        accumulate: calls of `backward` that make one step. The gradients are those of the calls' batches together.
        exact: whether to refuse micro-batches that do not add up to their batch; if False, that is only logged.
        checkpointing: whether gradient checkpointing may be enabled, if the model supports it.
        timeout_seconds: how long ranks wait for each other in a step.
        Raises MemoryManagerError for models whose forward pass waits for other ranks.
        """
        _check_arguments(threshold_ratio, (min_micro_batch_size, accumulate, check_every_steps))
        unwrapped = unwrap_model(model)
        self.model = unwrapped.module
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if not trained:
            raise MemoryManagerError("the model has no parameter with requires_grad")
        self._device = trained[0].device
        self.memory = CudaMemory(self._device.index or 0) if memory is None and self._device.type == "cuda" else memory
        self.micro_batch_size: int | None = None
        """Samples per forward pass; None: the whole batch. Writable, for example to measure a smaller size."""
        self.accumulate = accumulate
        self.recoveries = 0
        """Steps that ran out of memory and were repeated."""
        self._consensus: RankConsensus = (
            ProcessGroupConsensus(unwrapped.group, trained, timeout_seconds) if unwrapped.distributed else SingleRank()
        )
        self._distributed = unwrapped.distributed
        self._shared_buffers = unwrapped.shared_buffers
        self._others = OtherGradients()
        self._rollback = StepRollback(self.model, self._others)
        self._accumulation = GradientAccumulation()
        self._exactness: dict[Hashable, Exactness] = {}
        self._examined_again: set[Hashable] = set()
        self._term_ratios = TermRatios()
        self._exact = exact
        self._min_micro_batch_size = min_micro_batch_size
        self._can_checkpoint = checkpointing and can_checkpoint(self.model)
        self._watch = PeakWatch(self.memory, threshold_ratio, check_every_steps) if self.memory else None
        self._warnings_logged: set[str] = set()
        self._suspected_error: Exception | None = None

    def backward(
        self,
        batch: Any,
        compute_loss: ComputeLoss,
        *,
        reduction: Literal["mean", "sum"] = "mean",
        weight: Callable[[Any], Any] | None = None,
        count: Callable[[Any], int] = count_samples,
        split: Callable[[Any, int], Iterable[Any]] = split_batch,
        scaler: torch.amp.GradScaler | None = None,
        accumulate: int | None = None,
    ) -> torch.Tensor:
        """Compute the gradients of one step, replacing earlier ones, and return the batch's loss, detached.

        compute_loss: (model, part of the batch) -> loss; call the model it receives, not its DDP wrapper. In the first
        step it is also called with a few samples.
        reduction: "sum" if the loss is a sum over samples. weight: a part's weight in the mean; by default what the
        loss itself divides by: its samples, its tokens, the sum of its class weights. A part of weight 0 is skipped.
        split: (batch, maximum samples) -> parts. scaler: for fp16 mixed precision.
        accumulate: calls that make one step, by default those of the constructor.
        Raises DoesNotFitError if no remedy helps, InexactError if the step cannot be divided, UnusedGradientsError if
        no step was made since the last call, PeerFailedError if another rank failed; no weights have changed.
        """
        calls = self.accumulate if accumulate is None else accumulate
        if calls < 1:
            raise MemoryManagerError(f"accumulate={calls} must be at least 1")
        step = TrainingStep(batch, compute_loss, reduction, weight, count, split, scaler, self._others)
        parameters = list(self.model.parameters())  # some may have been frozen or unfrozen
        earlier = self._accumulation.take(parameters, calls)
        if earlier is None:
            self._term_ratios = TermRatios()
        shares = 1.0, 1.0
        self._others.set_aside(parameters)
        try:
            with DeferredHooks(parameters) as hooks:
                attempt, consensus_vote = self._attempt_until_done(step, parameters, hooks, calls)
            assert attempt.result is not None
            self._consensus.average_gradients(parameters, consensus_vote.used, self._buffers())
            shares = self._accumulation.combine(parameters, earlier, self._weight_of_call(attempt, calls))
        finally:
            self._others.put_back(*shares)
        hooks.run_accumulated_hooks()
        if self._watch is not None:
            self._watch.check(attempt.part_size, self._can_checkpoint)
        if attempt.part_size == attempt.size and not self._was_examined(step):
            self._examine_after(step, attempt.size, parameters)
        return attempt.result.loss

    def propose_batch_size(
        self, target_ratio: float = DEFAULT_TARGET_RATIO, points: Iterable[tuple[int, int]] = ()
    ) -> BatchSizeAdvice:
        """The largest batch size within the target, from the peaks of the micro-batch sizes run so far.

        points: further (batch size, peak bytes), such as from `gpu-advisor probe`; at least two sizes are needed in
        total. Changes nothing: another batch size may need another learning rate. Raises CalibrationError, and
        MemoryManagerError if the device's memory is unknown.
        """
        if self._watch is None:
            raise MemoryManagerError("cannot read the memory of this device; pass memory= to MemoryManager")
        return self._watch.propose(target_ratio, dict(points))

    def _attempt_until_done(
        self, step: TrainingStep, parameters: list[nn.Parameter], hooks: DeferredHooks, calls: int
    ) -> tuple[_Attempt, StepVote]:
        self._suspected_error = None
        while True:
            attempt = self._attempt(step, parameters, hooks, calls)
            if attempt.status is StepStatus.OUT_OF_MEMORY:
                # Not in the `except` block: the error's traceback still references the activations there.
                self._free_memory()
            consensus_vote = self._consensus.agree(self._vote(attempt, step, parameters))
            if consensus_vote.checkpointing:
                self._enable_checkpointing()
            if attempt.status is StepStatus.DONE and consensus_vote.status is StepStatus.DONE:
                return attempt, consensus_vote
            self._rollback.restore()
            if consensus_vote.status is StepStatus.FAILED:
                raise attempt.error or PeerFailedError(
                    "another rank failed in this step; see its log. No weights were changed"
                )
            self._reduce_micro_batch(consensus_vote, attempt, step)

    def _attempt(
        self, step: TrainingStep, parameters: list[nn.Parameter], hooks: DeferredHooks, calls: int
    ) -> _Attempt:
        size = part_size = 0
        try:
            self._rollback.save()
            size = step.count(step.batch)
            part_size, least = size, 1
            if self.micro_batch_size is not None:
                least = self._min_part_size()
                part_size = even_part_size(size, self.micro_batch_size, least)
            divided = part_size < size
            weighting = self._weighting(step, size, parameters) if divided or calls > 1 else None
            if self._watch is not None:
                self._watch.begin(part_size, self.micro_batch_size)
            parts = step.parts(size, part_size, least)
            result = step.run(self.model, parts, weighting, self._term_ratios, parameters)
            hooks.run_gradient_hooks()
        except Exception as error:  # noqa: BLE001  # whatever it is, the other ranks must learn of it
            if self._is_out_of_memory(error):
                return _Attempt(StepStatus.OUT_OF_MEMORY, size, part_size, message=str(error))
            return _Attempt(StepStatus.FAILED, size, part_size, error=self._suspected_error or error)
        return _Attempt(StepStatus.DONE, size, part_size, result, weighting is not None and weighting.adds)

    def _is_out_of_memory(self, error: Exception) -> bool:
        """Whether smaller parts may help. Call it while the error is handled: its traceback keeps the step's memory."""
        failure = memory_failure(error)
        if failure is MemoryFailure.AMBIGUOUS:
            if self.memory is not None:
                reading = self.memory.read()
                if is_nearly_full(reading.used_bytes, reading.limit_bytes):
                    return True
            first = self._suspected_error is None
            self._suspected_error = self._suspected_error or error
            return first  # once: if it was memory, the smaller parts succeed
        if failure is MemoryFailure.HOST and self._device.type != "cpu":
            log.error("the host's memory ran out, not the device's: smaller micro-batches do not help")
            return False
        return failure is not None

    def _vote(self, attempt: _Attempt, step: TrainingStep, parameters: list[nn.Parameter]) -> StepVote:
        bound = UNBOUNDED
        if attempt.status is StepStatus.OUT_OF_MEMORY:
            half = max(-(-attempt.part_size // 2), self._min_part_size())
            smaller = even_part_size(attempt.size, half, self._min_part_size()) < attempt.part_size
            bound = half if smaller and self._can_divide(step, attempt.size, parameters) else 0
            if not bound and self._suspected_error is not None and not self._can_checkpoint:
                attempt = attempt._replace(status=StepStatus.FAILED, error=self._suspected_error)
        used = tuple(parameter.grad is not None for parameter in parameters)
        checkpointing = self._watch is not None and Remedy.CHECKPOINTING in self._watch.remedies
        return StepVote(attempt.status, bound, checkpointing, used)

    def _reduce_micro_batch(self, consensus_vote: StepVote, attempt: _Attempt, step: TrainingStep) -> None:
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
        elif self._can_checkpoint:
            self.micro_batch_size = None  # with far fewer activations the whole batch may fit
            self._enable_checkpointing()
        else:
            raise DoesNotFitError(self._why_it_does_not_fit(where, step))

    def _why_it_does_not_fit(self, where: str, step: TrainingStep) -> str:
        found = self._exactness.get(step.key(self.model))
        if found is not None and found.refusal and self._exact:
            return f"out of memory ({where}), and the step cannot be divided: {found.refusal}; or pass exact=False"
        return (
            f"out of memory at the minimum micro-batch size of {self._min_part_size()} ({where}); use a "
            "smaller model, shorter samples, lower precision, an optimizer with less state, or more GPUs"
        )

    # --- whether a step can be divided ---

    def _min_part_size(self) -> int:
        """BatchNorm normalizes over the samples of a part: there must be two."""
        return max(self._min_micro_batch_size, 2 if batch_norm_reason(self.model) else 1)

    def _was_examined(self, step: TrainingStep) -> bool:
        return step.key(self.model) in self._exactness or len(self._exactness) >= MAX_EXAMINED

    def _examine(self, step: TrainingStep, size: int, parameters: list[nn.Parameter]) -> Exactness:
        """After `self._rollback.save()`, with no gradients; restores both."""
        key = step.key(self.model)
        if key not in self._exactness:
            found = examine(self.model, step, parameters, self._rollback, size)
            if found.doubt:  # it may have run out of memory
                self._free_memory()
            self._rollback.restore()
            if len(self._exactness) >= MAX_EXAMINED:
                return found
            self._exactness[key] = found
        return self._exactness[key]

    def _weighting(self, step: TrainingStep, size: int, parameters: list[nn.Parameter]) -> Weighting:
        """Raises InexactError if the step cannot be divided."""
        found = self._examine(step, size, parameters)
        key = step.key(self.model)
        if found.doubt and key not in self._examined_again:  # by now there may be memory, or gradients
            self._examined_again.add(key)
            self._exactness.pop(key, None)
            found = self._examine(step, size, parameters)
        if found.refusal and self._exact:
            raise InexactError(f"this step cannot be divided: {found.refusal}; or pass exact=False to accept it")
        if found.refusal:
            self._warn_once(f"the results of this step change when it is divided: {found.refusal}")
        elif found.doubt:
            self._warn_once(
                f"not checked whether micro-batches add up to their batch ({found.doubt}): "
                f"{found.weighting.name} is used"
            )
        # A later step whose loss has another form is refused, too.
        return found.weighting if self._exact else replace(found.weighting, terms=())

    def _can_divide(self, step: TrainingStep, size: int, parameters: list[nn.Parameter]) -> bool:
        found = self._examine(step, size, parameters)
        return not (found.refusal and self._exact)

    def _examine_after(self, step: TrainingStep, size: int, parameters: list[nn.Parameter]) -> None:
        """After the first step: say at once what could not be repeated after an out-of-memory error."""
        gradients = [parameter.grad for parameter in parameters]
        self._others.set_aside(parameters)
        with DeferredHooks(parameters):
            self._rollback.save()
            found = self._examine(step, size, parameters)
        self._others.clear()
        self._others.put_back()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        if found.refusal:
            self._warn_once(f"if a step runs out of memory, it cannot be divided: {found.refusal}")
        elif found.doubt:
            log.debug("not checked whether micro-batches add up to their batch: %s", found.doubt)

    def _weight_of_call(self, attempt: _Attempt, calls: int) -> float | None:
        """Of this call's batch among those of a step. Ranks combine alike: equally, as in DistributedDataParallel."""
        if calls == 1 or attempt.adds or attempt.result is None:
            return None
        return 1.0 if self._distributed else attempt.result.weight

    def _warn_once(self, message: str) -> None:
        if message not in self._warnings_logged:
            self._warnings_logged.add(message)
            log.warning(message)

    def _enable_checkpointing(self) -> None:
        if self._watch is not None:
            self._watch.remedies = ()
        if self._can_checkpoint and enable_checkpointing(self.model):
            self._can_checkpoint = False
            if self._watch is not None:
                self._watch.restart()
            log.warning("low memory: enabled gradient checkpointing; steps take about a third longer")

    def _free_memory(self) -> None:
        """After an error: reference cycles may keep tensors alive, and the cache is fragmented."""
        self._rollback.clear_gradients()
        gc.collect()
        if self.memory is not None:
            self.memory.empty_cache()

    def _buffers(self) -> Iterator[torch.Tensor]:
        return self.model.buffers() if self._shared_buffers else iter(())


def _check_arguments(threshold_ratio: float, counts: Iterable[int]) -> None:
    """Raises MemoryManagerError."""
    if not 0 < threshold_ratio <= 1:
        raise MemoryManagerError(f"threshold_ratio={threshold_ratio} must be above 0 and at most 1, as in 0.92")
    if min(counts) < 1:
        raise MemoryManagerError("min_micro_batch_size, accumulate and check_every_steps must be at least 1")
