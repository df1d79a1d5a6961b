"""Estimates peak training memory without a GPU, from a trace with fake tensors on a CPU.

A fake tensor has a shape and no data, so a step of any size takes milliseconds and no memory. The traced allocations
are replayed through a model of PyTorch's caching allocator. The trace does not include the CUDA context and the
libraries' workspaces; a correction for them is fitted to calibrations: pairs of an estimate and a measured peak.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gpu_advisor.calibration.caching_allocator import replay
from gpu_advisor.calibration.errors import CalibrationError, WorkloadError
from gpu_advisor.calibration.traced_memory import TracedMemory
from gpu_advisor.extras import install_hint

TRACED_STEPS = 3


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes at one size: peak of tensors, of the allocator's segments, and corrected for a real GPU."""

    batch_size: int
    allocated_bytes: int
    reserved_bytes: int
    corrected_bytes: int
    low: int
    high: int
    """`low` and `high` are the correction's 90 % interval."""


@dataclass(frozen=True, slots=True)
class EstimateCorrection:
    """measured = context_bytes + ratio * reserved, within `spread_ratio` at 90 %."""

    context_bytes: float = 0.0
    ratio: float = 1.0
    spread_ratio: float = 0.15
    samples: int = 0


def fit_correction(
    pairs: Sequence[tuple[int, int]], default: EstimateCorrection = EstimateCorrection()
) -> EstimateCorrection:
    """The correction of (estimated reserved, measured) pairs in bytes, of one GPU type.

    With three pairs or more a line by least relative squares, its slope kept between 0.8 and 1.5; with fewer, the mean
    difference as context. Without any, `default`.
    """
    if not pairs:
        return default
    if len(pairs) < 3:
        context = sum(measured - estimated for estimated, measured in pairs) / len(pairs)
        return EstimateCorrection(max(0.0, context), 1.0, default.spread_ratio, len(pairs))
    weights = [1 / measured**2 for _, measured in pairs]
    total = sum(weights)
    mean_x = sum(w * x for w, (x, _) in zip(weights, pairs, strict=True)) / total
    mean_y = sum(w * y for w, (_, y) in zip(weights, pairs, strict=True)) / total
    across = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, pairs, strict=True))
    along = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, pairs, strict=True))
    ratio = min(1.5, max(0.8, across / along if along > 0 else 1.0))
    context = max(0.0, mean_y - ratio * mean_x)
    errors = [abs((context + ratio * x) / y - 1) for x, y in pairs]
    worst = sorted(errors)[min(len(errors) - 1, math.ceil(0.9 * (len(errors) + 1)) - 1)]
    return EstimateCorrection(context, ratio, max(0.02, worst), len(pairs))


def estimate_memory(
    workload: str, batch_size: int, precision: str = "float32", correction: EstimateCorrection | None = None
) -> MemoryEstimate:
    """Trace a workload, in the probe's form, at a size. Raises CalibrationError, also without torch."""
    known = correction or EstimateCorrection()
    peak = replay(trace_workload(workload, batch_size, precision))
    if not peak.reserved_bytes:
        raise WorkloadError(f"a step of {workload} creates no tensors: return a function that trains on a batch")
    corrected = known.context_bytes + known.ratio * peak.reserved_bytes
    return MemoryEstimate(
        batch_size,
        peak.allocated_bytes,
        peak.reserved_bytes,
        round(corrected),
        round(corrected * (1 - known.spread_ratio)),
        round(corrected * (1 + known.spread_ratio)),
    )


def trace_memory(workload: str, sizes: Iterable[int], precision: str, memory_kind: str) -> TracedMemory:
    """Trace a workload at several sizes, in bytes of the kind that was measured: the allocator's blocks, or else its
    segments. Raises CalibrationError."""
    estimates = [estimate_memory(workload, size, precision) for size in sorted(set(sizes))]
    blocks = memory_kind in ("allocated", "cpu_tracked")
    return TracedMemory(
        tuple((one.batch_size, one.allocated_bytes if blocks else one.reserved_bytes) for one in estimates)
    )


def trace_workload(workload: str, batch_size: int, precision: str) -> list[tuple[int, int]]:
    """The tensors of three steps as events (key, bytes; negative for a release)."""
    try:
        import torch
        from torch._subclasses.fake_tensor import (
            DataDependentOutputException,
            DynamicOutputShapeException,
            FakeTensorMode,
        )
    except ImportError as error:
        raise CalibrationError(f"PyTorch is not installed: {install_hint('train')}") from error
    from gpu_advisor.calibration.memory_tracker import MemoryTracker
    from gpu_advisor.calibration.traced_kernels import gpu_like_kernels
    from gpu_advisor.calibration.workloads import build_step, run_step

    with (
        warnings.catch_warnings(),
        _keep_modules_in_place(),
        FakeTensorMode(allow_non_fake_inputs=True),
        MemoryTracker(record=True) as tracker,
        gpu_like_kernels(),
    ):
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # copying a module asks for it
        warnings.filterwarnings("ignore", "TF32 acceleration on top of oneDNN")  # setting any of oneDNN's flags asks
        try:
            step = build_step(workload, batch_size, torch.device("cpu"), precision)
            for _ in range(TRACED_STEPS):
                run_step(workload, step)
        except WorkloadError as error:
            if isinstance(error.__cause__, DataDependentOutputException | DynamicOutputShapeException):
                raise WorkloadError(
                    f"{workload} reads the values of tensors ({error.__cause__}), which a trace does not have: leave "
                    "out .item(), decisions on losses and shuffling loaders, or measure it with gpu-advisor probe"
                ) from error
            raise
        except (RuntimeError, MemoryError) as error:  # an out-of-memory error, of a factory that raises its own
            raise WorkloadError(
                f"{workload} raised {type(error).__name__}: {error}: a trace allocates nothing"
            ) from error
    return list(tracker.events or ())


@contextmanager
def _keep_modules_in_place() -> Iterator[None]:
    """`model.to(cpu)` does nothing: fake parameters cannot be swapped for others while somebody refers to them.

    And a copied module, as the layers of `nn.TransformerEncoder`, has parameters that share their storage with their
    views: a fake tensor's own copy does not, so that each view would count again.
    """
    import torch
    from torch import nn

    original_to, original_copy = nn.Module.to, torch.Tensor.__deepcopy__

    def move_unless_cpu(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        device, dtype, _, memory_format = parse(*args, **kwargs)
        stays = device is not None and device.type == "cpu" and dtype is None and memory_format is None
        moved: nn.Module = self if stays else original_to(self, *args, **kwargs)
        return moved

    def copy_fake(self: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
        if id(self) not in memo:
            values = self.detach().clone()
            is_parameter = isinstance(self, nn.Parameter)
            memo[id(self)] = nn.Parameter(values, self.requires_grad) if is_parameter else values
        copied: torch.Tensor = memo[id(self)]
        return copied

    parse: Callable[..., Any] = torch._C._nn._parse_to
    nn.Module.to = move_unless_cpu  # type: ignore[method-assign, assignment]
    torch.Tensor.__deepcopy__ = copy_fake  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.to = original_to  # type: ignore[method-assign]
        torch.Tensor.__deepcopy__ = original_copy  # type: ignore[method-assign]
