"""Batch-size advice from measured points and a GPU's memory: ceilings, gain, margin, and notes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpu_advisor.calibration.byte_sizes import format_bytes
from gpu_advisor.calibration.errors import CalibrationError
from gpu_advisor.calibration.memory_fit import MAX_EXTRAPOLATION_RATIO, MemoryFit, MemoryPrediction, fit_memory
from gpu_advisor.calibration.points import MAX_MEMORY_DROP_RATIO, MeasuredPoints
from gpu_advisor.calibration.throughput_fit import ThroughputFit, fit_throughput

#: Without a list of sizes, candidates are multiples of this, for the tensor cores
#: (https://docs.nvidia.com/deeplearning/performance/dl-performance-matrix-multiplication/index.html).
BATCH_SIZE_MULTIPLE = 8

#: Mean width of the 90 % interval relative to the memory, without a trace and with one, at so many times the largest of
#: two measured sizes: held-out families of models (`benchmarks/results/batch_fit.json`).
WIDTH_RATIOS = {2: (0.16, 0.10), 8: (0.32, 0.14)}

LEARNING_RATE_NOTE = (
    "adapt the learning rate to the batch size: for {ratio:.2g} times the batch, SGD needs {ratio:.2g} times the "
    "rate with a warm-up (linear rule, arXiv:1706.02677), Adam about {root:.2g} times (square-root rule, "
    "arXiv:2205.10287); "
    "this tool does not change it"
)


@dataclass(frozen=True, slots=True)
class BatchSizeCeilings:
    """The largest useful size by each criterion; None if unknown."""

    memory: int | None
    throughput_knee: int | None
    gradient_noise: int | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """Memory in bytes with its 90 % interval, and throughput if measured."""

    memory: MemoryPrediction
    samples_per_second: float | None


@dataclass(frozen=True, slots=True)
class BatchSizeAdvice:
    """`recommended_batch_size` is None if not even the smallest size is safe."""

    recommended_batch_size: int | None
    ceilings: BatchSizeCeilings
    limit_bytes: int
    recommended: Prediction | None
    current: Prediction | None
    predictions: tuple[Prediction, ...]
    gain_ratio: float | None
    """Throughput at the recommended size relative to the current size, minus one."""
    margin_bytes: int | None
    """The GPU's memory minus the upper end of the recommended size's interval."""
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BatchSizeRequest:
    """Memory in bytes; `target`: share of it that may be used. `measured_on_bytes`: memory of the device that the sizes
    were measured on, if known: sizes that ran out of memory there may fit a larger one."""

    memory_bytes: int
    target: float
    predict: tuple[int, ...] = ()
    current_batch: int | None = None
    gradient_noise: int | None = None
    measured_on_bytes: int | None = None


def recommend_batch_size(points: MeasuredPoints, request: BatchSizeRequest) -> BatchSizeAdvice:
    """The best size within the memory target. Pure. Raises CalibrationError for an invalid request.

    With `predict`, candidates are those sizes and the measured ones, else multiples of 8 (any size below 16). A size at
    or above one that ran out of memory is none. The best has the highest throughput, of equal ones the smallest, or,
    without measured throughput, is the largest. If neither memory nor throughput depends on the size, it is the largest
    that was measured.
    """
    _check(request)
    memory, throughput = fit_memory(points), fit_throughput(points)
    limit = request.memory_bytes * request.target
    failed = _first_failed(points, request)
    candidates = [size for size in _candidates(points, request.predict) if failed is None or size < failed]
    safe = safe_sizes(memory, limit, candidates)
    knee = throughput.knee(candidates[-1]) if throughput and candidates else None
    ceilings = BatchSizeCeilings(largest_safe_size(memory, limit, failed), knee, request.gradient_noise)
    best = _best_size(safe, throughput, request.gradient_noise)
    flat = _is_flat(points, throughput)
    if flat and best is not None:
        measured = [point.batch_size for point in points.points if point.batch_size in safe]
        allowed = [size for size in measured if request.gradient_noise is None or size <= request.gradient_noise]
        best = max(allowed, default=best)
    chosen = _predict(memory, throughput, best) if best is not None else None
    gain = _throughput_gain(throughput, request.current_batch, best)
    return BatchSizeAdvice(
        recommended_batch_size=best,
        ceilings=ceilings,
        limit_bytes=round(limit),
        recommended=chosen,
        current=_predict(memory, throughput, request.current_batch) if request.current_batch else None,
        predictions=tuple(_predict(memory, throughput, size) for size in request.predict),
        gain_ratio=gain,
        margin_bytes=request.memory_bytes - chosen.memory.high if chosen else None,
        notes=(*_notes(points, request, ceilings, best, knee, failed, flat), *_trace_notes(memory)),
    )


def largest_safe_size(memory: MemoryFit, limit_bytes: float, below: int | None = None) -> int | None:
    """The largest size, a multiple of 8 from 16 on, that stays within the limit; None if none does. `below`: smaller
    ones only."""
    sizes = [size for size in _multiples(memory.points.largest.batch_size) if below is None or size < below]
    return max(safe_sizes(memory, limit_bytes, sizes), default=None)


def _first_failed(points: MeasuredPoints, request: BatchSizeRequest) -> int | None:
    """The smallest size known to run out of memory on a GPU of the requested size or a larger one."""
    if request.measured_on_bytes is not None and request.memory_bytes > request.measured_on_bytes:
        return None
    return min(points.out_of_memory, default=None)


def _is_flat(points: MeasuredPoints, throughput: ThroughputFit | None) -> bool:
    """Whether memory does not grow with the size, and throughput, if measured, neither."""
    first, last = points.points[0], points.largest
    if last.peak_memory_bytes > (1 + MAX_MEMORY_DROP_RATIO) * first.peak_memory_bytes:
        return False
    rates = [rate.samples_per_second for rate in throughput.rates] if throughput else []
    return not rates or max(rates) <= (1 + MAX_MEMORY_DROP_RATIO) * min(rates)


def _check(request: BatchSizeRequest) -> None:
    if not 0 < request.target <= 1:
        raise CalibrationError(f"target {request.target:g}: must be above 0 and at most 1, as 0.85")
    for size in (*request.predict, request.current_batch, request.gradient_noise):
        if size is not None and size < 1:
            raise CalibrationError(f"batch size {size}: must be an integer of at least 1")


def _multiples(largest_measured: int) -> list[int]:
    last = int(MAX_EXTRAPOLATION_RATIO * largest_measured)
    return [*range(1, min(2 * BATCH_SIZE_MULTIPLE, last + 1)), *_multiples_from(2 * BATCH_SIZE_MULTIPLE, last)]


def _multiples_from(first: int, last: int) -> Iterable[int]:
    """Multiples of 8, sparser for large sizes, so that there are at most a few hundred."""
    size = first
    while size <= last:
        yield size
        size += BATCH_SIZE_MULTIPLE * max(1, size // 1024)


def _candidates(points: MeasuredPoints, predict: Sequence[int]) -> list[int]:
    if not predict:
        return _multiples(points.largest.batch_size)
    farthest = MAX_EXTRAPOLATION_RATIO * points.largest.batch_size
    measured = {point.batch_size for point in points.points}
    return sorted(measured | {size for size in predict if size <= farthest})


def safe_sizes(memory: MemoryFit, limit: float, candidates: Sequence[int]) -> list[int]:
    """The ascending candidates up to the first whose risk exceeds the prior's."""
    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        if memory.exceeds_probability(candidates[middle], limit) <= memory.prior.risk:
            low = middle + 1
        else:
            high = middle
    return list(candidates[:low])


def _best_size(safe: Sequence[int], throughput: ThroughputFit | None, gradient_noise: int | None) -> int | None:
    allowed = [size for size in safe if gradient_noise is None or size <= gradient_noise] or list(safe[:1])
    if not allowed:
        return None
    if throughput is None:
        return allowed[-1]
    return max(allowed, key=lambda size: (round(throughput.predict(size), 9), -size))


def _predict(memory: MemoryFit, throughput: ThroughputFit | None, size: int) -> Prediction:
    return Prediction(memory.predict(size), throughput.predict(size) if throughput else None)


def _throughput_gain(throughput: ThroughputFit | None, current: int | None, best: int | None) -> float | None:
    if throughput is None or current is None or best is None:
        return None
    return throughput.predict(best) / throughput.predict(current) - 1


def _notes(
    points: MeasuredPoints, request: BatchSizeRequest, ceilings: BatchSizeCeilings, best: int | None, knee: int | None,
    failed: int | None, flat: bool,
) -> Iterable[str]:  # fmt: skip
    yield from points.notes
    if failed is not None:
        yield f"{failed} ran out of memory when it was measured: only smaller sizes are considered"
    first, last = points.points[0], points.largest
    if last.peak_memory_bytes <= first.peak_memory_bytes:
        yield (
            f"memory does not grow from {first.batch_size} to {last.batch_size}: the batch does not determine these "
            f"peaks; also measure {4 * last.batch_size}"
        )
    if flat:
        yield (
            "neither memory nor throughput depends on these sizes, so the size does not matter: the largest measured "
            "one within the target is recommended"
        )
    farthest = int(MAX_EXTRAPOLATION_RATIO * points.largest.batch_size)
    if best is None:
        yield "no size is safe within the target: use a larger GPU, mixed precision or gradient checkpointing"
    if failed is None and ceilings.memory is not None and ceilings.memory >= max(_multiples(points.largest.batch_size)):
        yield (
            f"no size beyond {farthest}, {MAX_EXTRAPOLATION_RATIO:g} times the largest measured, is recommended: "
            "measure a larger one"
        )
    for size in request.predict:
        if size > farthest:
            yield (
                f"{size} is more than {MAX_EXTRAPOLATION_RATIO:g} times the largest measured size: its interval is "
                "unreliable"
            )
    if knee is not None and best is not None and best > knee:
        yield f"from {knee} on, a larger batch gains less than 5 % of throughput"
    if points.traced is None:
        yield from _without_trace(points)
    if request.current_batch and best and best != request.current_batch:
        ratio = best / request.current_batch
        yield LEARNING_RATE_NOTE.format(ratio=ratio, root=math.sqrt(ratio))


def _without_trace(points: MeasuredPoints) -> Iterable[str]:
    if len(points.points) == 2:
        yield "with two sizes there is no residual, so the interval is that of typical models; a third size narrows it"
    twice, eight = WIDTH_RATIOS[2], WIDTH_RATIOS[8]
    yield (
        f"a trace of the step, which needs no GPU, narrows the intervals beyond {points.largest.batch_size}: on models "
        f"that the fit was not learnt from, from {twice[0]:.0%} of the memory to {twice[1]:.0%} at twice the largest "
        f"size, and from {eight[0]:.0%} to {eight[1]:.0%} at eight times. Add --model package.module:factory, where "
        "factory(batch_size, device, precision) returns a function that runs one step; `gpu-advisor probe` adds the "
        "trace to its profile"
    )


def _trace_notes(memory: MemoryFit) -> Iterable[str]:
    traced = memory.points.traced
    if traced is None:
        return
    if memory.trace_share > 1 / 2:
        yield "memory beyond the measured sizes follows the traced step"
        return
    first, last = memory.points.points[0], memory.points.largest
    growth = traced.bytes_at(last.batch_size) - traced.bytes_at(first.batch_size)
    yield (
        f"the traced step grows by {format_bytes(round(growth))} from {first.batch_size} to {last.batch_size}, and the "
        f"measured one by {format_bytes(last.peak_memory_bytes - first.peak_memory_bytes)}: the trace counts for "
        "little; check that it is the workload that was measured"
    )
