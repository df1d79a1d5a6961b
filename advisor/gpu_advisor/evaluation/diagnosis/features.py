"""What conditions are about: figures of one GPU over the idle window, some of them against its peers.

A feature is None where what it is made of is missing; it is never made up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from gpu_advisor.evaluation.diagnosis.hardware import nvlink_bytes_per_second, pcie_bytes_per_second
from gpu_advisor.evaluation.diagnosis.peers import Peers, job_group, model_group, share
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.signals import (
    DAY_PEAK,
    DRAM_ACTIVITY,
    FP32_ACTIVITY,
    FP64_ACTIVITY,
    HALF_UTILIZATION,
    IDLE_UTILIZATION,
    JOB_COMMUNICATION,
    JOB_DATA_WAIT,
    JOB_PEAK_MEMORY,
    JOB_STEPPING,
    MEMORY_HELD,
    MEMORY_TOTAL,
    NODE_CPU,
    NODE_IO_PRESSURE,
    NODE_RECEIVE,
    NODE_TRANSMIT,
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

#: Frameworks that take memory in advance take this share of it at least, and not more than that: JAX 75 %, vLLM 90 %
#: (https://docs.jax.dev/en/latest/gpu_memory_allocation.html, https://docs.vllm.ai/en/latest/configuration/engine_args/).
#: What such a process needs is not known from what it holds.
TAKEN_IN_ADVANCE = (0.70, 0.935)

Stated = Literal["training", "serving", "undecided"]


@dataclass(frozen=True, slots=True)
class Reading:
    """All that is known of one GPU. `kind` is what the owner says of its pool."""

    facts: Facts
    gpu: Gpu
    peers: Peers
    kind: Stated

    def of(self, signal: Signal) -> float | None:
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
    compute: Callable[[Reading], float | None]


def _of_busy(reading: Reading, signal: Signal) -> float | None:
    return share(reading.of(signal), reading.of(IDLE_UTILIZATION))


def _steadiness(reading: Reading) -> float | None:
    """Three windows: when work stops or starts, two of them meet on their way, but hardly all three."""
    found = [reading.of(signal) for signal in (UTILIZATION, HALF_UTILIZATION, IDLE_UTILIZATION)]
    known = [value for value in found if value is not None]
    return max(known) - min(known) if len(known) == len(found) else None


def _swing(reading: Reading) -> float | None:
    found = [reading.of(signal) for signal in (UTILIZATION, HALF_UTILIZATION, IDLE_UTILIZATION)]
    highest = max((value for value in found if value is not None), default=0.0)
    return share(_steadiness(reading), highest)


def _idleness(reading: Reading) -> float | None:
    utilization = reading.of(IDLE_UTILIZATION)
    return None if utilization is None else 100 * utilization / reading.facts.evaluation.idle_utilization


def _memory_needed(reading: Reading) -> float | None:
    peak, total = reading.of(JOB_PEAK_MEMORY), reading.of(MEMORY_TOTAL)
    if peak is not None and total:
        return peak / total
    held = reading.of(MEMORY_HELD)
    low, high = TAKEN_IN_ADVANCE
    return None if held is None or low <= held < high else held


def _clock_of_full(reading: Reading) -> float | None:
    return share(reading.of(SM_CLOCK), reading.of(SM_CLOCK_MAX))


def _of_model(reading: Reading, signal: Signal, least: int) -> float | None:
    own = reading.of(signal)
    counted = own if signal is not SM_CLOCK or (reading.of(IDLE_UTILIZATION) or 0.0) >= 0.3 else None
    if own is None or counted is None:
        return None
    return share(own, reading.peers.median_of_others(model_group(reading.gpu), signal.name, counted, least))


def _in_job(reading: Reading, what: str, own: float | None) -> float | None:
    """The median of the job's other GPUs, of which there must be three."""
    job = reading.job
    if job is None or own is None or (reading.of(IDLE_UTILIZATION) or 0.0) < 0.3:
        return None
    return reading.peers.median_of_others(job_group(job), what, own, 3)


def _thermal(reading: Reading) -> float | None:
    found = [_of_busy(reading, signal) for signal in (THROTTLE_HW_THERMAL, THROTTLE_SW_THERMAL)]
    return max((value for value in found if value is not None), default=None)


def _communication(reading: Reading) -> float | None:
    return share(reading.of(JOB_COMMUNICATION), reading.of(JOB_STEPPING))


def _communication_below_job(reading: Reading) -> float | None:
    own = _communication(reading)
    others = _in_job(reading, JOB_COMMUNICATION.name, own)
    return None if own is None or others is None else others - own


def _utilization_below_job(reading: Reading) -> float | None:
    own = reading.of(IDLE_UTILIZATION)
    others = _in_job(reading, IDLE_UTILIZATION.name, own)
    return None if own is None or others is None else others - own


def _of_job(reading: Reading, signal: Signal) -> float | None:
    own = reading.of(signal)
    return share(own, _in_job(reading, signal.name, own))


def _links(reading: Reading) -> tuple[float | None, float | None, float | None]:
    """Shares of NVLink, PCIe and network in use for exchange: what goes both ways at once."""
    nvlink = share(reading.of(NVLINK_RECEIVE), nvlink_bytes_per_second(reading.gpu.name))
    receive, transmit = reading.of(PCIE_RECEIVE), reading.of(PCIE_TRANSMIT)
    speed = pcie_bytes_per_second(reading.of(PCIE_GENERATION), reading.of(PCIE_WIDTH))
    pcie = None if receive is None or transmit is None else share(min(receive, transmit), speed)
    inward, outward = reading.of(NODE_RECEIVE), reading.of(NODE_TRANSMIT)
    network = None if inward is None or outward is None else min(inward, outward)
    return nvlink, pcie, network


def _exchange(reading: Reading) -> float | None:
    """The fullest link that is known."""
    return max((value for value in _links(reading) if value is not None), default=None)


def _exchange_at_most(reading: Reading) -> float | None:
    """The fullest link, if all that the job can use are known; 0 for a job of one GPU, which exchanges nothing."""
    gpus = reading.peers.of_job(reading.job)
    if len(gpus) == 1:
        return 0.0
    nvlink, pcie, network = _links(reading)
    between_gpus = nvlink if nvlink_bytes_per_second(reading.gpu.name) is not None else pcie
    one_node = bool(gpus) and len({gpu.node for gpu in gpus}) == 1
    used = (between_gpus,) if one_node else (between_gpus, network)
    known = [value for value in used if value is not None]
    return max(known) if len(known) == len(used) else None


def _unfilled(reading: Reading) -> float | None:
    fill = _of_busy(reading, SM_ACTIVITY)
    return None if fill is None else max(0.0, 1 - fill / FULL_SM_ACTIVITY)


def _exchange_of_unfilled(reading: Reading, exchange: float | None) -> float | None:
    unfilled = _unfilled(reading)
    return None if unfilled is None or unfilled < 0.02 or exchange is None else exchange / unfilled


def _flag(told: bool, denied: bool) -> float | None:
    return 1.0 if told else 0.0 if denied else None


def _trains(reading: Reading) -> float | None:
    reports = reading.of(JOB_STEPPING) is not None
    return _flag(reports or reading.kind == "training", reading.kind == "serving")


def _serves(reading: Reading) -> float | None:
    reports = reading.of(JOB_STEPPING) is not None
    return _flag(reading.kind == "serving", reports or reading.kind == "training")


FEATURES: tuple[Feature, ...] = (
    Feature("utilization", "share of the time in which a kernel ran", (IDLE_UTILIZATION,),
            lambda r: r.of(IDLE_UTILIZATION)),
    Feature("unsteadiness",
            "how far apart utilization of the short window, of half the idle window and of all of it is",
            (UTILIZATION, HALF_UTILIZATION, IDLE_UTILIZATION), _steadiness),
    Feature("swing", "that, as a share of the highest of the three", (UTILIZATION, HALF_UTILIZATION, IDLE_UTILIZATION),
            _swing),
    Feature("idleness", "utilization as a share of `evaluation.idle_utilization`", (IDLE_UTILIZATION,), _idleness),
    Feature("day_peak", "highest hourly mean of utilization within a day", (DAY_PEAK,), lambda r: r.of(DAY_PEAK)),
    Feature("sm_activity", "share of the SMs that were busy", (SM_ACTIVITY,), lambda r: r.of(SM_ACTIVITY)),
    Feature("fill", "share of the SMs that were busy while a kernel ran", (SM_ACTIVITY, IDLE_UTILIZATION),
            lambda r: _of_busy(r, SM_ACTIVITY)),
    Feature("tensor_fill", "share of tensor cores' time while a kernel ran", (TENSOR_ACTIVITY, IDLE_UTILIZATION),
            lambda r: _of_busy(r, TENSOR_ACTIVITY)),
    Feature("fp32_fill", "share of the FP32 pipe's time while a kernel ran", (FP32_ACTIVITY, IDLE_UTILIZATION),
            lambda r: _of_busy(r, FP32_ACTIVITY)),
    Feature("fp64_fill", "share of the FP64 pipe's time while a kernel ran", (FP64_ACTIVITY, IDLE_UTILIZATION),
            lambda r: _of_busy(r, FP64_ACTIVITY)),
    Feature("dram", "memory bandwidth in use, of the highest", (DRAM_ACTIVITY,), lambda r: r.of(DRAM_ACTIVITY)),
    Feature("dram_fill", "memory bandwidth in use while a kernel ran", (DRAM_ACTIVITY, IDLE_UTILIZATION),
            lambda r: _of_busy(r, DRAM_ACTIVITY)),
    Feature("power", "power drawn, of the limit in force", (POWER, POWER_LIMIT),
            lambda r: share(r.of(POWER), r.of(POWER_LIMIT))),
    Feature("clock", "clock of the SMs, of the highest", (SM_CLOCK, SM_CLOCK_MAX), _clock_of_full),
    Feature("clock_of_peers", "clock of the SMs, of the median of busy GPUs of the same model", (SM_CLOCK,),
            lambda r: _of_model(r, SM_CLOCK, 2)),
    Feature("limit_of_peers", "power limit, of the median of GPUs of the same model", (POWER_LIMIT,),
            lambda r: _of_model(r, POWER_LIMIT, 2)),
    Feature("thermal", "share of the busy time held back by heat", (THROTTLE_HW_THERMAL, THROTTLE_SW_THERMAL),
            _thermal),
    Feature("power_brake", "share of the busy time held back by the power supply", (THROTTLE_POWER_BRAKE,),
            lambda r: _of_busy(r, THROTTLE_POWER_BRAKE)),
    Feature("power_cap", "share of the busy time held back by the power limit", (THROTTLE_POWER_CAP,),
            lambda r: _of_busy(r, THROTTLE_POWER_CAP)),
    Feature("memory_held", "share of the GPU's memory held", (MEMORY_HELD,), lambda r: r.of(MEMORY_HELD)),
    Feature("memory_needed", "share of the memory that the work needs: the job's own word, or what is held, unless "
            "that is what frameworks take in advance", (JOB_PEAK_MEMORY, MEMORY_TOTAL, MEMORY_HELD), _memory_needed),
    Feature("data_wait", "share of a training step in which it waited for data", (JOB_DATA_WAIT, JOB_STEPPING),
            lambda r: share(r.of(JOB_DATA_WAIT), r.of(JOB_STEPPING))),
    Feature("stepping", "share of the time that a job spends in training steps", (JOB_STEPPING,),
            lambda r: r.of(JOB_STEPPING)),
    Feature("communication", "share of a training step in which it waited for other ranks",
            (JOB_COMMUNICATION, JOB_STEPPING), _communication),
    Feature("communication_below_job", "how much less of its step a rank waits for others than the median of its job",
            (JOB_COMMUNICATION, JOB_STEPPING), _communication_below_job),
    Feature("utilization_below_job", "how far utilization is below the median of the job", (IDLE_UTILIZATION,),
            _utilization_below_job),
    Feature("sm_activity_of_job", "SM activity, of the median of the job", (SM_ACTIVITY,),
            lambda r: _of_job(r, SM_ACTIVITY)),
    Feature("clock_of_job", "clock of the SMs, of the median of the job", (SM_CLOCK,), lambda r: _of_job(r, SM_CLOCK)),
    Feature("exchange", "share of the fullest link (NVLink, PCIe, network) in use both ways",
            (NVLINK_RECEIVE, PCIE_RECEIVE, PCIE_TRANSMIT, NODE_RECEIVE, NODE_TRANSMIT), _exchange),
    Feature("exchange_of_unfilled", "that share, of what is missing to full SMs",
            (NVLINK_RECEIVE, PCIE_RECEIVE, PCIE_TRANSMIT, NODE_RECEIVE, NODE_TRANSMIT, SM_ACTIVITY),
            lambda r: _exchange_of_unfilled(r, _exchange(r))),
    Feature("exchange_at_most", "the same share where all links that the job can use are known",
            (NVLINK_RECEIVE, PCIE_RECEIVE, PCIE_TRANSMIT, NODE_RECEIVE, NODE_TRANSMIT), _exchange_at_most),
    Feature("exchange_at_most_of_unfilled", "that share, of what is missing to full SMs",
            (NVLINK_RECEIVE, PCIE_RECEIVE, PCIE_TRANSMIT, NODE_RECEIVE, NODE_TRANSMIT, SM_ACTIVITY),
            lambda r: _exchange_of_unfilled(r, _exchange_at_most(r))),
    Feature("input_rate", "bytes a second received over PCIe", (PCIE_RECEIVE,), lambda r: r.of(PCIE_RECEIVE)),
    Feature("cpu", "share of the node's cores that was busy", (NODE_CPU,), lambda r: r.of(NODE_CPU)),
    Feature("io_pressure", "share of the time in which some task of the node waited for storage", (NODE_IO_PRESSURE,),
            lambda r: r.of(NODE_IO_PRESSURE)),
    Feature("trains", "1 if the pool is for training or a job reports its steps, 0 if the pool serves", (JOB_STEPPING,),
            _trains),
    Feature("may_train", "0 if the pool serves, else 1", (), lambda r: 0.0 if r.kind == "serving" else 1.0),
    Feature("serves", "1 if the pool serves, 0 if it trains or a job reports its steps", (JOB_STEPPING,), _serves),
)  # fmt: skip

BY_NAME: Mapping[str, Feature] = {feature.name: feature for feature in FEATURES}


class Measured(dict[str, float | None]):
    """A reading's features by name, each computed when it is first asked for: most rows fail at their first."""

    __slots__ = ("_reading",)

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def __missing__(self, name: str) -> float | None:
        value = self[name] = BY_NAME[name].compute(self._reading)
        return value
