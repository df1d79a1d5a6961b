"""Whether a step's micro-batches add up to the whole batch, by trying it on a few samples.

A mean or sum over samples, or over tokens, can be divided. A loss that compares samples with each other
(contrastive), a ratio of sums (dice), a root of a mean, or a layer that normalizes over the batch cannot, whatever
the weights. The gradients of a few samples at once are compared with the sum of those of two unequal parts, for each
weighting that the loss may have. Memory: one set of gradients, from which the parts' are subtracted.

A loss that draws random numbers gets the same ones for a sample in its part as in the whole (`random_draws`).
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import nn

from gpu_advisor.calibration.out_of_memory import memory_failure
from gpu_advisor.training.memory.errors import InexactError, MemoryManagerError
from gpu_advisor.training.memory.loss_denominator import find_denominators
from gpu_advisor.training.memory.model_wrappers import batch_norms
from gpu_advisor.training.memory.other_gradients import gradient_values
from gpu_advisor.training.memory.random_draws import DrawError, RandomDraws
from gpu_advisor.training.memory.step_rollback import StepRollback
from gpu_advisor.training.memory.training_step import TrainingStep
from gpu_advisor.training.memory.weighting import Part, Weighting, proportional_terms

#: Samples that are tried at once: the fewest that divide into unequal parts.
TRIED_SAMPLES = 3
#: Times, with other samples: by chance, parts may have the same number of tokens once.
NEEDED_TRIES = 2
#: Times including those without a finite, non-zero gradient.
MAX_TRIES = 5
#: Largest difference relative to the gradient's norm: rounding, TensorFloat-32, other algorithms of a convolution.
TOLERANCES = {torch.float64: 1e-8, torch.float32: 2e-3}
LOW_PRECISION_TOLERANCE = 3e-2
_OTHER_SEED = 20_231
_OTHER_DIMENSIONS = (
    "if a tensor of the batch has its samples in another dimension than the first, as a recurrent state, pass split= "
    "and count="
)


@dataclass(frozen=True, slots=True)
class Exactness:
    """`weighting` makes the parts add up to the batch, if `refusal` is empty. `doubt`: why it could not be tried."""

    weighting: Weighting
    refusal: str = ""
    doubt: str = ""


class _Samples(NamedTuple):
    whole: Part
    parts: list[Part]


class UntriedError(Exception):
    """Nothing follows from the samples: there is one, or no finite gradient."""


def batch_norm_reason(model: nn.Module) -> str:
    """Empty without a BatchNorm layer in training mode."""
    layers = sum(module.training or module.running_mean is None for module in batch_norms(model))
    if not layers:
        return ""
    return (
        f"the model has {layers} BatchNorm layers, which normalize over all samples of a forward pass; use GroupNorm "
        "or LayerNorm, or freeze them with eval()"
    )


def examine(
    model: nn.Module, step: TrainingStep, parameters: Sequence[nn.Parameter], rollback: StepRollback, size: int
) -> Exactness:
    """Call between `rollback.save` and `rollback.restore`: gradients, buffers and random state are changed."""
    model = getattr(model, "_orig_mod", model)  # a compiled model would be compiled for these sizes, too
    default = step.weightings(None)[0]
    try:
        return _Trial(model, step, parameters, rollback).examine(size)
    except UntriedError as error:
        return Exactness(default, batch_norm_reason(model), str(error))
    except Exception as error:  # noqa: BLE001  # of the user's code, with a few samples
        if memory_failure(error) is not None:
            return Exactness(default, batch_norm_reason(model), f"out of memory with {TRIED_SAMPLES} samples")
        return Exactness(
            default, f"it fails with {TRIED_SAMPLES} samples ({type(error).__name__}: {error}); {_OTHER_DIMENSIONS}"
        )


class _Trial:
    def __init__(
        self, model: nn.Module, step: TrainingStep, parameters: Sequence[nn.Parameter], rollback: StepRollback
    ) -> None:
        self._model, self._step, self._parameters, self._rollback = model, step, parameters, rollback
        self._low_precision = False
        self._loss_dtypes: set[torch.dtype] = set()
        self._without_gradient: _Samples | None = None
        self._observed: list[tuple[dict[str, float], float]] = []
        self._same_draws = False

    def examine(self, size: int) -> Exactness:
        if size < 2:
            raise UntriedError("the batch has one sample")
        reason = batch_norm_reason(self._model)
        samples: list[_Samples] = []
        weightings: list[Weighting] = []
        with self._note_precision():
            for whole, parts in self._step.few_samples(size, MAX_TRIES):
                informative = self._informative_weightings(whole)
                if informative is not None:
                    samples.append(_Samples(whole, parts))
                    weightings = weightings or informative
                elif self._norm() == 0:
                    self._without_gradient = _Samples(whole, parts)
                if len(samples) == (1 if reason else NEEDED_TRIES):
                    break
            if not samples and self._without_gradient is not None:
                found = self._choose([self._without_gradient], self._step.weightings(None))
                return replace(found, doubt=found.doubt or "the first samples have no gradient, only losses to compare")
            if not samples:
                raise UntriedError("the gradients of the first samples are zero or not finite")
            return Exactness(weightings[0], reason) if reason else self._choose(samples, weightings)

    def _informative_weightings(self, samples: Part) -> list[Weighting] | None:
        """What the loss of these samples may be; None if nothing follows from their gradient."""
        self._rollback.restore()
        loss = self._step.loss(self._model, samples.data)
        self._loss_dtypes.add(loss.dtype)  # some models compute it in float32, whatever their parameters are
        weightings = self._step.weightings(loss)  # before the backward pass, which frees what the graph keeps
        loss.backward()
        norm = self._norm()
        return weightings if bool(torch.isfinite(loss.detach())) and norm > 0 and math.isfinite(norm) else None

    def _choose(self, samples: list[_Samples], weightings: list[Weighting]) -> Exactness:
        """The first weighting with which all parts add up."""
        least, error, tried = math.inf, "", False
        for training in (True, False):
            with _without_randomness(self._model, training):
                # Other random numbers than dropout's: of the loss itself, or of the model also in evaluation mode.
                self._same_draws = not training and not self._is_repeatable(samples[0].whole)
                for weighting in weightings:
                    try:
                        difference = self._largest_difference(samples, weighting)
                    except InexactError:  # another of the loss's divisors
                        continue
                    except DrawError as problem:
                        return Exactness(weightings[0], f"the loss depends on random numbers, and {problem}")
                    except Exception as problem:  # the user's code, with fewer samples
                        if isinstance(problem, MemoryManagerError) or memory_failure(problem) is not None:
                            raise
                        error = error or f"{type(problem).__name__}: {problem}"
                        continue
                    if difference <= self._tolerance():
                        return Exactness(self._with_terms(weighting))
                    least, tried = min(least, difference), True
                if training and self._is_repeatable(samples[0].whole):
                    break  # dropout is not what makes the difference
        if not tried:
            return Exactness(
                weightings[0], f"compute_loss cannot run on a part of the batch ({error}); {_OTHER_DIMENSIONS}"
            )
        return Exactness(weightings[0], self._refusal(least))

    def _with_terms(self, weighting: Weighting) -> Weighting:
        """Later steps are checked by these: these few samples may not have shown all differences."""
        if weighting.adds or not self._observed:
            return weighting
        return replace(weighting, terms=proportional_terms(self._observed))

    def _largest_difference(self, samples: list[_Samples], weighting: Weighting) -> float:
        largest = 0.0
        self._observed.clear()
        for each in samples:
            largest = max(largest, self._difference(each, weighting))
            if largest > self._tolerance():
                break
        return largest

    def _refusal(self, difference: float) -> str:
        found = "the gradients of micro-batches differ from those of their batch"
        found += f" by {difference:.2g} of its norm" if math.isfinite(difference) else " (some are not finite)"
        if self._same_draws:
            return f"{found}, and depend on random numbers: draw them for each sample, by torch"
        if self._step.weight is not None:
            return f"{found}: weight= is not what the loss is divided by; leave it out, and its own divisor is used"
        if self._step.reduction == "sum":
            return f'{found}: the loss is no sum over samples; leave out reduction="sum"'
        return (
            f"{found}, as in a loss that compares samples with each other (contrastive), or that is no mean over "
            "samples or tokens; if it is a mean over something else, pass weight="
        )

    def _difference(self, samples: _Samples, weighting: Weighting) -> float:
        """Of the gradients and losses of parts from those of all samples, relative to the largest of these."""
        self._rollback.restore()
        draws = RandomDraws(samples.whole.size) if self._same_draws else None
        with draws.record() if draws else nullcontext():
            whole = self._step.loss(self._model, samples.whole.data)
        whole.backward()
        largest = self._norm()
        self._rollback.restore_state()
        losses = self._losses(samples.parts, draws)
        weights = _weights(weighting, samples.parts, losses)
        self._observed += [(_divisors(loss), weight) for loss, weight in zip(losses, weights, strict=True) if weight]
        shares = _shares(weighting, weights)
        for loss, share in zip(losses, shares, strict=True):
            if share:
                (loss * -share).backward()
                largest = max(largest, self._norm())
        difference = self._norm() / largest if largest else 0.0
        shared = [float(loss.detach()) * share for loss, share in zip(losses, shares, strict=True) if share]
        difference = max(difference, _relative_difference(float(whole.detach()), shared))
        return difference if math.isfinite(difference) else math.inf

    def _losses(self, parts: Sequence[Part], draws: RandomDraws | None) -> list[torch.Tensor]:
        if draws is None:
            return [self._step.loss(self._model, part.data) for part in parts]
        losses, first = [], 0
        for part in parts:
            self._rollback.restore_state()  # Python's and NumPy's numbers: each part those of the whole
            with draws.replay(first, part.size):
                losses.append(self._step.loss(self._model, part.data))
            first += part.size
        return losses

    def _is_repeatable(self, samples: Part) -> bool:
        """Whether the gradients do not depend on random numbers, as those of dropout do."""
        self._rollback.restore()
        self._step.loss(self._model, samples.data).backward()
        norm = self._norm()
        self._rollback.restore_state()
        _seed(_OTHER_SEED)
        (-self._step.loss(self._model, samples.data)).backward()
        return self._norm() <= self._tolerance() * norm

    def _norm(self) -> float:
        total = 0.0
        for parameter in self._parameters:
            if parameter.grad is not None:
                gradient = gradient_values(parameter.grad)
                dtype = torch.float64 if gradient.dtype == torch.float64 else torch.float32
                total += float(torch.linalg.vector_norm(gradient.detach(), dtype=dtype)) ** 2
        return float(total**0.5)

    def _tolerance(self) -> float:
        dtypes = {parameter.dtype for parameter in self._parameters} | self._loss_dtypes
        if self._low_precision:
            return LOW_PRECISION_TOLERANCE
        return max(TOLERANCES.get(dtype, LOW_PRECISION_TOLERANCE) for dtype in dtypes)

    @contextmanager
    def _note_precision(self) -> Iterator[None]:
        """Whether the model runs under autocast."""
        device = self._parameters[0].device.type

        def note(*_: object) -> None:
            self._low_precision |= _is_autocast_enabled(device)

        handles = [module.register_forward_pre_hook(note) for module in self._model.modules()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _weights(weighting: Weighting, parts: Sequence[Part], losses: Sequence[torch.Tensor]) -> list[float]:
    if weighting.adds:
        return [1.0] * len(parts)
    if weighting.of_part is not None:
        return [weighting.weight_of_part(part) for part in parts]
    return [weighting.weight_of_loss(loss) for loss in losses]


def _shares(weighting: Weighting, weights: Sequence[float]) -> list[float]:
    total = 1.0 if weighting.adds else sum(weights)
    return [weight / total if total else 0.0 for weight in weights]


def _relative_difference(whole: float, parts: Sequence[float]) -> float:
    largest = max(abs(whole), *map(abs, parts), 0.0)
    return abs(whole - sum(parts)) / largest if largest else 0.0


def _divisors(loss: torch.Tensor) -> dict[str, float]:
    return {each.path: each.value for each in find_denominators(loss)}


def _is_autocast_enabled(device_type: str) -> bool:
    """Before PyTorch 2.4 `is_autocast_enabled` takes no argument, and is about CUDA."""
    try:
        return torch.is_autocast_enabled(device_type)
    except TypeError:
        return torch.is_autocast_cpu_enabled() if device_type == "cpu" else torch.is_autocast_enabled()


@contextmanager
def _without_randomness(model: nn.Module, training: bool) -> Iterator[None]:
    """`training` False: in evaluation mode, in which dropout keeps all values."""
    if training:
        yield
        return
    # cuDNN's recurrent layers have no backward pass in evaluation mode.
    switched = [module for module in model.modules() if module.training and not isinstance(module, nn.RNNBase)]
    for module in switched:
        module.training = False
    try:
        yield
    finally:
        for module in switched:
            module.training = True


def _seed(number: int) -> None:
    torch.manual_seed(number)
    random.seed(number)
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(number)
