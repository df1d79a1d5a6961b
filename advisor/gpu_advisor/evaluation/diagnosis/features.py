"""What conditions are about: figures of one GPU over the idle window, some of them against its peers.

A feature is None where what it is made of is missing; it is never made up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from gpu_advisor.evaluation.diagnosis.link_speeds import nvlink_bytes_per_second, pcie_bytes_per_second
from gpu_advisor.evaluation.diagnosis.peers import Peers, job_group, model_group, ratio_of
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.signals import (
    DAILY_PEAK_UTILIZATION,
    DRAM_ACTIVITY,
    FP32_ACTIVITY,
    FP64_ACTIVITY,
    HALF_IDLE_UTILIZATION,
    IDLE_MEMORY_USED,
    IDLE_UTILIZATION,
    JOB_COMMUNICATION,
    JOB_DATA_WAIT,
    JOB_PEAK_MEMORY,
    JOB_STEP_TIME,
    MEMORY_TOTAL,
    NODE_CPU,
    NODE_IO_PRESSURE,
    NODE_NETWORK_RECEIVE,
    NODE_NETWORK_TRANSMIT,
    NVLINK_RECEIVE,
    PCIE_GENERATION,
    PCIE_RECEIVE,
    PCIE_TRANSMIT,
    PCIE_WIDTH,
    POWER,
    POWER_LIMIT,
    SM_ACTIVITY,
    SM_CLOCK,
    SM_CLOCK_MAX,
    TENSOR_ACTIVITY,
    THROTTLE_HW_THERMAL,
    THROTTLE_POWER_BRAKE,
    THROTTLE_POWER_CAP,
    THROTTLE_SW_THERMAL,
    UTILIZATION,
    Signal,
)

#: SMs that kernels of a large batch keep busy while they run.
FULL_SM_ACTIVITY = 0.85

#: Frameworks that take memory in advance take this share of it at min_others, and not more than that: JAX 75 %, vLLM 90 %
#: (https://docs.jax.dev/en/latest/gpu_memory_allocation.html, https://docs.vllm.ai/en/latest/configuration/engine_args/).
#: What such a process needs is not known from what it holds.
PREALLOCATION_RANGE = (0.70, 0.935)

PoolKind = Literal["training", "serving", "undecided"]


@dataclass(frozen=True, slots=True)
class GpuSignals:
    """All that is known of one GPU. `kind` is what the owner says of its pool."""

    facts: Facts
    gpu: Gpu
    peers: Peers
    kind: PoolKind

    def value(self, signal: Signal) -> float | None:
        values = self.facts.values.get(signal.name)
        if values is None:
            return None
        return values.get(self.gpu.uuid if signal.scope == "gpu" else self.gpu.node)

    @property
    def job(self) -> str | None:
        return self.peers.jobs.get(self.gpu.uuid)


@dataclass(frozen=True, slots=True)
class Feature:
    name: str
    about: str
    signals: tuple[Signal, ...]
    compute: Callable[[GpuSignals], float | None]


def _per_busy_time(gpu_signals: GpuSignals, signal: Signal) -> float | None:
    return ratio_of(gpu_signals.value(signal), gpu_signals.value(IDLE_UTILIZATION))


def _utilization_spread(gpu_signals: GpuSignals) -> float | None:
    """Three windows: when work stops or starts, two of them meet on their way, but hardly all three."""
    found = [gpu_signals.value(signal) for signal in (UTILIZATION, HALF_IDLE_UTILIZATION, IDLE_UTILIZATION)]
    known = [value for value in found if value is not None]
    return max(known) - min(known) if len(known) == len(found) else None


def _relative_spread(gpu_signals: GpuSignals) -> float | None:
    found = [gpu_signals.value(signal) for signal in (UTILIZATION, HALF_IDLE_UTILIZATION, IDLE_UTILIZATION)]
    highest = max((value for value in found if value is not None), default=0.0)
    return ratio_of(_utilization_spread(gpu_signals), highest)


def _idleness(gpu_signals: GpuSignals) -> float | None:
    utilization = gpu_signals.value(IDLE_UTILIZATION)
    return None if utilization is None else 100 * utilization / gpu_signals.facts.evaluation.idle_utilization


def _memory_needed(gpu_signals: GpuSignals) -> float | None:
    peak, total = gpu_signals.value(JOB_PEAK_MEMORY), gpu_signals.value(MEMORY_TOTAL)
    if peak is not None and total:
        return peak / total
    held = gpu_signals.value(IDLE_MEMORY_USED)
    low, high = PREALLOCATION_RANGE
    return None if held is None or low <= held < high else held


def _clock_ratio(gpu_signals: GpuSignals) -> float | None:
    return ratio_of(gpu_signals.value(SM_CLOCK), gpu_signals.value(SM_CLOCK_MAX))


def _relative_to_model(gpu_signals: GpuSignals, signal: Signal, min_others: int) -> float | None:
    own = gpu_signals.value(signal)
    counted = own if signal is not SM_CLOCK or (gpu_signals.value(IDLE_UTILIZATION) or 0.0) >= 0.3 else None
    if own is None or counted is None:
        return None
    return ratio_of(
        own, gpu_signals.peers.median_of_others(model_group(gpu_signals.gpu), signal.name, counted, min_others)
    )


def _job_median(gpu_signals: GpuSignals, what: str, own: float | None) -> float | None:
    """The median of the job's other GPUs, of which there must be three."""
    job = gpu_signals.job
    if job is None or own is None or (gpu_signals.value(IDLE_UTILIZATION) or 0.0) < 0.3:
        return None
    return gpu_signals.peers.median_of_others(job_group(job), what, own, 3)


def _thermal(gpu_signals: GpuSignals) -> float | None:
    found = [_per_busy_time(gpu_signals, signal) for signal in (THROTTLE_HW_THERMAL, THROTTLE_SW_THERMAL)]
    return max((value for value in found if value is not None), default=None)


def _communication(gpu_signals: GpuSignals) -> float | None:
    return ratio_of(gpu_signals.value(JOB_COMMUNICATION), gpu_signals.value(JOB_STEP_TIME))


def _communication_below_job(gpu_signals: GpuSignals) -> float | None:
    own = _communication(gpu_signals)
    others = _job_median(gpu_signals, JOB_COMMUNICATION.name, own)
    return None if own is None or others is None else others - own


def _utilization_below_job(gpu_signals: GpuSignals) -> float | None:
    own = gpu_signals.value(IDLE_UTILIZATION)
    others = _job_median(gpu_signals, IDLE_UTILIZATION.name, own)
    return None if own is None or others is None else others - own


def _relative_to_job(gpu_signals: GpuSignals, signal: Signal) -> float | None:
    own = gpu_signals.value(signal)
    return ratio_of(own, _job_median(gpu_signals, signal.name, own))


def _link_utilization(gpu_signals: GpuSignals) -> tuple[float | None, float | None, float | None]:
    """Shares of NVLink, PCIe and network in use for exchange: what goes both ways at once."""
    nvlink = ratio_of(gpu_signals.value(NVLINK_RECEIVE), nvlink_bytes_per_second(gpu_signals.gpu.name))
    receive, transmit = gpu_signals.value(PCIE_RECEIVE), gpu_signals.value(PCIE_TRANSMIT)
    speed = pcie_bytes_per_second(gpu_signals.value(PCIE_GENERATION), gpu_signals.value(PCIE_WIDTH))
    pcie = None if receive is None or transmit is None else ratio_of(min(receive, transmit), speed)
    inward, outward = gpu_signals.value(NODE_NETWORK_RECEIVE), gpu_signals.value(NODE_NETWORK_TRANSMIT)
    network = None if inward is None or outward is None else min(inward, outward)
    return nvlink, pcie, network


def _max_link_utilization(gpu_signals: GpuSignals) -> float | None:
    """The fullest link that is known."""
    return max((value for value in _link_utilization(gpu_signals) if value is not None), default=None)


def _link_utilization_bound(gpu_signals: GpuSignals) -> float | None:
    """The fullest link, if all that the job can use are known; 0 for a job of one GPU, which exchanges nothing."""
    gpus = gpu_signals.peers.gpus_of_job(gpu_signals.job)
    if len(gpus) == 1:
        return 0.0
    nvlink, pcie, network = _link_utilization(gpu_signals)
    between_gpus = nvlink if nvlink_bytes_per_second(gpu_signals.gpu.name) is not None else pcie
    one_node = bool(gpus) and len({gpu.node for gpu in gpus}) == 1
    used = (between_gpus,) if one_node else (between_gpus, network)
    known = [value for value in used if value is not None]
    return max(known) if len(known) == len(used) else None


def _idle_sm_ratio(gpu_signals: GpuSignals) -> float | None:
    fill = _per_busy_time(gpu_signals, SM_ACTIVITY)
    return None if fill is None else max(0.0, 1 - fill / FULL_SM_ACTIVITY)


def _link_per_idle_sm(gpu_signals: GpuSignals, exchange: float | None) -> float | None:
    unfilled = _idle_sm_ratio(gpu_signals)
    return None if unfilled is None or unfilled < 0.02 or exchange is None else exchange / unfilled


def _flag(told: bool, denied: bool) -> float | None:
    return 1.0 if told else 0.0 if denied else None


def _trains(gpu_signals: GpuSignals) -> float | None:
    reports = gpu_signals.value(JOB_STEP_TIME) is not None
    return _flag(reports or gpu_signals.kind == "training", gpu_signals.kind == "serving")


def _serves(gpu_signals: GpuSignals) -> float | None:
    reports = gpu_signals.value(JOB_STEP_TIME) is not None
    return _flag(gpu_signals.kind == "serving", reports or gpu_signals.kind == "training")


FEATURES: tuple[Feature, ...] = (
    Feature("utilization", "share of the time in which a kernel ran", (IDLE_UTILIZATION,),
            lambda gpu: gpu.value(IDLE_UTILIZATION)),
    Feature("unsteadiness",
            "how far apart utilization of the short window, of half the idle window and of all of it is",
            (UTILIZATION, HALF_IDLE_UTILIZATION, IDLE_UTILIZATION), _utilization_spread),
    Feature("swing", "that, as a share of the highest of the three", (UTILIZATION, HALF_IDLE_UTILIZATION, IDLE_UTILIZATION),
            _relative_spread),
    Feature("idleness", "utilization as a share of `evaluation.idle_utilization`", (IDLE_UTILIZATION,), _idleness),
    Feature("day_peak", "highest hourly mean of utilization within a day", (DAILY_PEAK_UTILIZATION,), lambda gpu: gpu.value(DAILY_PEAK_UTILIZATION)),
    Feature("sm_activity", "share of the SMs that were busy", (SM_ACTIVITY,), lambda gpu: gpu.value(SM_ACTIVITY)),
    Feature("fill", "share of the SMs that were busy while a kernel ran", (SM_ACTIVITY, IDLE_UTILIZATION),
            lambda gpu: _per_busy_time(gpu, SM_ACTIVITY)),
    Feature("tensor_fill", "share of tensor cores' time while a kernel ran", (TENSOR_ACTIVITY, IDLE_UTILIZATION),
            lambda gpu: _per_busy_time(gpu, TENSOR_ACTIVITY)),
    Feature("fp32_fill", "share of the FP32 pipe's time while a kernel ran", (FP32_ACTIVITY, IDLE_UTILIZATION),
            lambda gpu: _per_busy_time(gpu, FP32_ACTIVITY)),
    Feature("fp64_fill", "share of the FP64 pipe's time while a kernel ran", (FP64_ACTIVITY, IDLE_UTILIZATION),
            lambda gpu: _per_busy_time(gpu, FP64_ACTIVITY)),
    Feature("dram", "memory bandwidth in use, of the highest", (DRAM_ACTIVITY,), lambda gpu: gpu.value(DRAM_ACTIVITY)),
    Feature("dram_fill", "memory bandwidth in use while a kernel ran", (DRAM_ACTIVITY, IDLE_UTILIZATION),
            lambda gpu: _per_busy_time(gpu, DRAM_ACTIVITY)),
    Feature("power", "power drawn, of the limit in force", (POWER, POWER_LIMIT),
            lambda gpu: ratio_of(gpu.value(POWER), gpu.value(POWER_LIMIT))),
    Feature("clock", "clock of the SMs, of the highest", (SM_CLOCK, SM_CLOCK_MAX), _clock_ratio),
    Feature("clock_of_peers", "clock of the SMs, of the median of busy GPUs of the same model", (SM_CLOCK,),
            lambda gpu: _relative_to_model(gpu, SM_CLOCK, 2)),
    Feature("limit_of_peers", "power limit, of the median of GPUs of the same model", (POWER_LIMIT,),
            lambda gpu: _relative_to_model(gpu, POWER_LIMIT, 2)),
    Feature("thermal", "share of the busy time held back by heat", (THROTTLE_HW_THERMAL, THROTTLE_SW_THERMAL),
            _thermal),
    Feature("power_brake", "share of the busy time held back by the power supply", (THROTTLE_POWER_BRAKE,),
            lambda gpu: _per_busy_time(gpu, THROTTLE_POWER_BRAKE)),
    Feature("power_cap", "share of the busy time held back by the power limit", (THROTTLE_POWER_CAP,),
            lambda gpu: _per_busy_time(gpu, THROTTLE_POWER_CAP)),
    Feature("memory_held", "share of the GPU's memory held", (IDLE_MEMORY_USED,), lambda gpu: gpu.value(IDLE_MEMORY_USED)),
    Feature("memory_needed", "share of the memory that the work needs: the job's own word, or what is held, unless "
            "that is what frameworks take in advance", (JOB_PEAK_MEMORY, MEMORY_TOTAL, IDLE_MEMORY_USED), _memory_needed),
    Feature("data_wait", "share of a training step in which it waited for data", (JOB_DATA_WAIT, JOB_STEP_TIME),
            lambda gpu: ratio_of(gpu.value(JOB_DATA_WAIT), gpu.value(JOB_STEP_TIME))),
    Feature("stepping", "share of the time that a job spends in training steps", (JOB_STEP_TIME,),
            lambda gpu: gpu.value(JOB_STEP_TIME)),
    Feature("communication", "share of a training step in which it waited for other ranks",
            (JOB_COMMUNICATION, JOB_STEP_TIME), _communication),
    Feature("communication_below_job", "how much less of its step a rank waits for others than the median of its job",
            (JOB_COMMUNICATION, JOB_STEP_TIME), _communication_below_job),
    Feature("utilization_below_job", "how far utilization is below the median of the job", (IDLE_UTILIZATION,),
            _utilization_below_job),
    Feature("sm_activity_of_job", "SM activity, of the median of the job", (SM_ACTIVITY,),
            lambda gpu: _relative_to_job(gpu, SM_ACTIVITY)),
    Feature("clock_of_job", "clock of the SMs, of the median of the job", (SM_CLOCK,), lambda gpu: _relative_to_job(gpu, SM_CLOCK)),
    Feature("exchange", "share of the fullest link (NVLink, PCIe, network) in use both ways",
            (NVLINK_RECEIVE, PCIE_RECEIVE, PCIE_TRANSMIT, NODE_NETWORK_RECEIVE, NODE_NETWORK_TRANSMIT), _max_link_utilization),
    Feature("exchange_of_unfilled", "that share, of what is missing to full SMs",
            (NVLINK_RECEIVE, PCIE_RECEIVE, PCIE_TRANSMIT, NODE_NETWORK_RECEIVE, NODE_NETWORK_TRANSMIT, SM_ACTIVITY),
            lambda gpu: _link_per_idle_sm(gpu, _max_link_utilization(gpu))),
    Feature("exchange_at_most", "the same share where all links that the job can use are known",
            (NVLINK_RECEIVE, PCIE_RECEIVE, PCIE_TRANSMIT, NODE_NETWORK_RECEIVE, NODE_NETWORK_TRANSMIT), _link_utilization_bound),
    Feature("exchange_at_most_of_unfilled", "that share, of what is missing to full SMs",
            (NVLINK_RECEIVE, PCIE_RECEIVE, PCIE_TRANSMIT, NODE_NETWORK_RECEIVE, NODE_NETWORK_TRANSMIT, SM_ACTIVITY),
            lambda gpu: _link_per_idle_sm(gpu, _link_utilization_bound(gpu))),
    Feature("input_rate", "bytes a second received over PCIe", (PCIE_RECEIVE,), lambda gpu: gpu.value(PCIE_RECEIVE)),
    Feature("cpu", "share of the node's cores that was busy", (NODE_CPU,), lambda gpu: gpu.value(NODE_CPU)),
    Feature("io_pressure", "share of the time in which some task of the node waited for storage", (NODE_IO_PRESSURE,),
            lambda gpu: gpu.value(NODE_IO_PRESSURE)),
    Feature("trains", "1 if the pool is for training or a job reports its steps, 0 if the pool serves", (JOB_STEP_TIME,),
            _trains),
    Feature("may_train", "0 if the pool serves, else 1", (), lambda gpu: 0.0 if gpu.kind == "serving" else 1.0),
    Feature("serves", "1 if the pool serves, 0 if it trains or a job reports its steps", (JOB_STEP_TIME,), _serves),
)  # fmt: skip

FEATURES_BY_NAME: Mapping[str, Feature] = {feature.name: feature for feature in FEATURES}


class LazyFeatures(dict[str, float | None]):
    """A reading's features by name, each computed when it is first asked for: most rows fail at their first."""

    __slots__ = ("_reading",)

    def __init__(self, gpu_signals: GpuSignals) -> None:
        self._reading = gpu_signals

    def __missing__(self, name: str) -> float | None:
        value = self[name] = FEATURES_BY_NAME[name].compute(self._reading)
        return value
