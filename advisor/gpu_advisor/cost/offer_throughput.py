"""Throughput of a job on an offer: given or measured; estimated only on request, and marked as such."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from gpu_advisor.cost.offers import GpuVariant, InstanceOffer, normalize_instance_type
from gpu_advisor.hardware.gpu_table import GPU_SPECS

#: Dense 16-bit tensor throughput in TFLOPS, without sparsity, from the one list of GPU types. GPUs without tensor cores
#: are left out: what they reach does not follow from their peak.
PEAK_TFLOPS: Mapping[str, float] = MappingProxyType(
    {name: spec.tflops for name, spec in GPU_SPECS.items() if spec.tflops is not None and spec.generation != "pascal"}
)


@dataclass(frozen=True, slots=True)
class WorkRate:
    """Units of work per second: on an instance type, or on `gpu_count` GPUs of a type.

    `linear`: for units that are GPU time themselves. `basis`: source of the rate, as text.
    """

    per_second: float
    basis: str
    instance_type: str = ""
    gpu: GpuVariant | None = None
    gpu_count: int = 1
    linear: bool = False


@dataclass(frozen=True, slots=True)
class OfferThroughput:
    """Units per second on one offer; None if unknown, with the reason in `basis`."""

    per_second: float | None
    basis: str
    estimated: bool = False


def offer_throughput(
    offer: InstanceOffer, rates: Sequence[WorkRate], scaling_ratio: float | None, estimate: bool, instances: int = 1
) -> OfferThroughput:
    """From the best matching rate: of the instance type, of as many such GPUs, of one such GPU with scaling.

    The job uses `instances` of the offer; a rate of an instance type is for one.
    """
    gpus = offer.gpu_count * instances
    for rate in rates:
        if (
            instances == 1
            and rate.instance_type
            and normalize_instance_type(rate.instance_type) == normalize_instance_type(offer.instance_type)
        ):
            return OfferThroughput(rate.per_second, rate.basis)
    same = [rate for rate in rates if rate.gpu is not None and rate.gpu.covers(offer.gpu)]
    for rate in same:
        if rate.linear:
            return OfferThroughput(rate.per_second * gpus / rate.gpu_count, rate.basis)
        if rate.gpu_count == gpus:
            return OfferThroughput(rate.per_second, rate.basis)
    for rate in same:
        if rate.gpu_count == 1 and scaling_ratio is not None:
            basis = f"{rate.basis}, x {gpus} GPUs x {scaling_ratio:g}"
            return OfferThroughput(rate.per_second * gpus * scaling_ratio, basis)
    if estimate:
        found = _estimate_from_tflops(offer, gpus, rates)
        if found is not None:
            return found
    if same:
        counts = " and ".join(str(rate.gpu_count) for rate in same)
        return OfferThroughput(
            None,
            f"throughput of {gpus} x {offer.gpu} unknown, only of {counts}: add --rate {gpus}x{offer.gpu}=..., or "
            "--scaling if it is known for one",
        )
    return OfferThroughput(
        None, f"throughput on {offer.gpu} unknown: add --rate or --profile, or use --estimate-throughput"
    )


def _estimate_from_tflops(offer: InstanceOffer, gpus: int, rates: Sequence[WorkRate]) -> OfferThroughput | None:
    """Scale the rate of the GPU type with the nearest peak TFLOPS by the ratio of peaks and the number of GPUs.

    Jobs reach different shares of the peak, so this can be wrong by a factor; use it to decide what to measure. None if
    a peak is unknown.
    """
    card_peak = PEAK_TFLOPS.get(offer.gpu_type)
    known = [(rate, PEAK_TFLOPS[rate.gpu.name]) for rate in rates if rate.gpu and rate.gpu.name in PEAK_TFLOPS]
    if card_peak is None or not known:
        return None
    peak = card_peak * offer.card_ratio
    rate, base = min(known, key=lambda each: (abs(math.log(each[1] / peak)), abs(each[0].gpu_count - gpus)))
    basis = f"estimate: {rate.basis}, x {peak:g}/{base:g} peak TFLOPS, x {gpus}/{rate.gpu_count} GPUs"
    return OfferThroughput(rate.per_second / rate.gpu_count * gpus * peak / base, basis, estimated=True)
