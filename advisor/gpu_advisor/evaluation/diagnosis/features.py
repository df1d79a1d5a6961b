"""Features, the input of conditions: values of one GPU over the idle window, some relative to its peers.

A feature is None if a signal it needs is missing; it is never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gpu_advisor.evaluation.diagnosis.link_speeds import nvlink_bytes_per_second, pcie_bytes_per_second
from gpu_advisor.evaluation.diagnosis.peers import MIN_BUSY_RATIO, Peers, job_group, model_group, ratio_of
from gpu_advisor.evaluation.diagnosis.power_levels import default_limit_watts, idle_shares
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.signals import (
    DAILY_PEAK_UTILIZATION,
    DRAM_ACTIVITY,
    FP32_ACTIVITY,
    FP64_ACTIVITY,
    HALF_IDLE_UTILIZATION,
    IDLE_MEMORY_USED,
    IDLE_UTILIZATION,
    JOB_BATCH_SIZE,
    JOB_COMMUNICATION,
    JOB_DATA_WAIT,
    JOB_PEAK_MEMORY,
    JOB_STEP_TIME,
    MEMORY_ACTIVITY,
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
    POWER_LIMIT_DEFAULT,
    QUARTER_IDLE_UTILIZATION,
    SM_ACTIVITY,
    SM_CLOCK,
    SM_CLOCK_MAX,
    TEMPERATURE,
    TENSOR_ACTIVITY,
    THROTTLE_HW_THERMAL,
    THROTTLE_POWER_BRAKE,
    THROTTLE_POWER_CAP,
    THROTTLE_SW_THERMAL,
    UTILIZATION,
    Signal,
)
from gpu_advisor.settings import PoolKind

#: SM activity of kernels of a large batch while they run.
FULL_SM_ACTIVITY = 0.85

#: Memory shares that frameworks preallocate: JAX 75 %, vLLM 90 %
#: (https://docs.jax.dev/en/latest/gpu_memory_allocation.html, https://docs.vllm.ai/en/latest/configuration/engine_args/).
#: The memory used by such a process does not show what it needs.
PREALLOCATION_RANGE = (0.70, 0.935)

#: Below this utilization, power says more about idle clocks than about kernels.
MIN_UTILIZATION_FOR_POWER = 0.1

#: From this share of its limit on, power explains a low clock.
AT_POWER_LIMIT = 0.85

#: A value relative to those of fewer other GPUs of the model says nothing.
MIN_MODEL_PEERS = 2

#: Why a clock is low, where the driver publishes it.
THROTTLE_REASONS = (THROTTLE_HW_THERMAL, THROTTLE_SW_THERMAL, THROTTLE_POWER_BRAKE, THROTTLE_POWER_CAP)

#: What a job may report about itself.
_JOB_REPORTS = (JOB_STEP_TIME, JOB_DATA_WAIT, JOB_COMMUNICATION, JOB_PEAK_MEMORY, JOB_BATCH_SIZE)


class GpuSignals(NamedTuple):
    """The signals of one GPU. `kind` is the kind of its pool, configured or inferred."""

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

    @property
    def reports(self) -> bool:
        """Whether its job reports anything about itself."""
        return self.gpu.uuid in self.facts.reported_jobs or any(self.value(each) is not None for each in _JOB_REPORTS)

    @property
    def trains(self) -> bool:
        """Whether its job reports training steps, or its owner is a training job."""
        owners = self.facts.owners.get(self.gpu.uuid, ())
        return self.value(JOB_STEP_TIME) is not None or any(owner.job for owner in owners)


@dataclass(frozen=True, slots=True)
class Plain:
    """The value of a signal, or its ratio to another. screening.py computes it for all GPUs at once."""

    part: Signal
    whole: Signal | None = None

    def __call__(self, gpu_signals: GpuSignals) -> float | None:
        value = gpu_signals.value(self.part)
        return value if self.whole is None else ratio_of(value, gpu_signals.value(self.whole))


@dataclass(frozen=True, slots=True)
class Feature:
    name: str
    about: str
    signals: tuple[Signal, ...]
    compute: Callable[[GpuSignals], float | None]

    @property
    def terms(self) -> tuple[Signal, ...] | None:
        """The signal, or the two of the ratio, that this feature is; None for any other."""
        if not isinstance(self.compute, Plain):
            return None
        return (self.compute.part,) if self.compute.whole is None else (self.compute.part, self.compute.whole)


def _per_busy_time(gpu_signals: GpuSignals, signal: Signal) -> float | None:
    return ratio_of(gpu_signals.value(signal), gpu_signals.value(IDLE_UTILIZATION))


#: The shortest, and parts of the longest.
_WINDOWS = (UTILIZATION, QUARTER_IDLE_UTILIZATION, HALF_IDLE_UTILIZATION, IDLE_UTILIZATION)


def _utilization_spread(gpu_signals: GpuSignals) -> float | None:
    """Over four windows: while work starts or stops, some of them may agree by chance, but hardly all.

    Work that alternates with pauses of five minutes and more has some window that shows it at any time but a few.
    """
    found = {signal: gpu_signals.value(signal) for signal in _WINDOWS}
    known = [value for value in found.values() if value is not None]
    missing = {signal for signal, value in found.items() if value is None}
    return max(known) - min(known) if missing <= {QUARTER_IDLE_UTILIZATION} else None


def _relative_spread(gpu_signals: GpuSignals) -> float | None:
    found = [gpu_signals.value(signal) for signal in _WINDOWS]
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


_clock_ratio = Plain(SM_CLOCK, SM_CLOCK_MAX)


def _relative_to_model(gpu_signals: GpuSignals, signal: Signal) -> float | None:
    own = gpu_signals.value(signal)
    counted = own if signal is not SM_CLOCK or (gpu_signals.value(IDLE_UTILIZATION) or 0.0) >= 0.3 else None
    if own is None or counted is None:
        return None
    group = model_group(gpu_signals.gpu)
    return ratio_of(own, gpu_signals.peers.median_of_others(group, signal.name, counted, MIN_MODEL_PEERS))


def _job_median(gpu_signals: GpuSignals, what: str, own: float | None) -> float | None:
    """The median of the job's other GPUs; None if there are fewer than three."""
    job = gpu_signals.job
    if job is None or own is None or (gpu_signals.value(IDLE_UTILIZATION) or 0.0) < MIN_BUSY_RATIO:
        return None
    return gpu_signals.peers.median_of_others(job_group(job), what, own, 3)


def _thermal(gpu_signals: GpuSignals) -> float | None:
    found = [_per_busy_time(gpu_signals, signal) for signal in (THROTTLE_HW_THERMAL, THROTTLE_SW_THERMAL)]
    return max((value for value in found if value is not None), default=None)


_communication = Plain(JOB_COMMUNICATION, JOB_STEP_TIME)


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
    """Utilization of NVLink, PCIe and network by communication: traffic in both directions at once."""
    nvlink = ratio_of(gpu_signals.value(NVLINK_RECEIVE), nvlink_bytes_per_second(gpu_signals.gpu.name))
    receive, transmit = gpu_signals.value(PCIE_RECEIVE), gpu_signals.value(PCIE_TRANSMIT)
    speed = pcie_bytes_per_second(gpu_signals.value(PCIE_GENERATION), gpu_signals.value(PCIE_WIDTH))
    pcie = None if receive is None or transmit is None else ratio_of(min(receive, transmit), speed)
    inward, outward = gpu_signals.value(NODE_NETWORK_RECEIVE), gpu_signals.value(NODE_NETWORK_TRANSMIT)
    network = None if inward is None or outward is None else min(inward, outward)
    return nvlink, pcie, network


def _max_link_utilization(gpu_signals: GpuSignals) -> float | None:
    """The highest known link utilization."""
    return max((value for value in _link_utilization(gpu_signals) if value is not None), default=None)


def _link_utilization_bound(gpu_signals: GpuSignals) -> float | None:
    """The highest link utilization if all links of the job are known; 0 for a job of one GPU."""
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


def _unexplained_clock(gpu_signals: GpuSignals) -> float:
    """The clock where no throttle reason is published and power is not at its limit, which is a reason; else 1."""
    drawn = ratio_of(gpu_signals.value(POWER), gpu_signals.value(POWER_LIMIT))
    if any(gpu_signals.value(signal) is not None for signal in THROTTLE_REASONS) or (drawn or 0.0) >= AT_POWER_LIMIT:
        return 1.0
    known = (_clock_ratio(gpu_signals), _relative_to_model(gpu_signals, SM_CLOCK))
    return min((value for value in known if value is not None), default=1.0)


def _limit_watts(gpu_signals: GpuSignals) -> float | None:
    """The enforced power limit, or what the model has by default."""
    limit = gpu_signals.value(POWER_LIMIT)
    return limit if limit is not None else _default_limit_watts(gpu_signals)


def _default_limit_watts(gpu_signals: GpuSignals) -> float | None:
    reported = gpu_signals.value(POWER_LIMIT_DEFAULT)
    return reported if reported is not None else default_limit_watts(gpu_signals.gpu.name)


def _limit_of_default(gpu_signals: GpuSignals) -> float | None:
    return ratio_of(gpu_signals.value(POWER_LIMIT), _default_limit_watts(gpu_signals))


def _busy_power(gpu_signals: GpuSignals, idle_share: float) -> float | None:
    """Power while a kernel runs, of the limit, if it is `idle_share` of the limit otherwise."""
    drawn = ratio_of(gpu_signals.value(POWER), _limit_watts(gpu_signals))
    busy = gpu_signals.value(IDLE_UTILIZATION)
    if drawn is None or busy is None or busy < MIN_UTILIZATION_FOR_POWER:
        return None
    return (drawn - idle_share * (1 - busy)) / busy


def _reported_or_possible(gpu_signals: GpuSignals, reported: float | None) -> float | None:
    """What the job reports; 1 if it reports nothing at all: any share is possible. None if it reports other things."""
    return reported if reported is not None else None if gpu_signals.reports else 1.0


_data_wait = Plain(JOB_DATA_WAIT, JOB_STEP_TIME)


def _net_input_rate(gpu_signals: GpuSignals) -> float | None:
    receive, transmit = gpu_signals.value(PCIE_RECEIVE), gpu_signals.value(PCIE_TRANSMIT)
    return None if receive is None or transmit is None else receive - transmit


def _gpu_exchange(gpu_signals: GpuSignals) -> float | None:
    """Utilization of the links between the GPUs of a node: NVLink where the model has it, else PCIe."""
    nvlink, pcie, _ = _link_utilization(gpu_signals)
    return nvlink if nvlink_bytes_per_second(gpu_signals.gpu.name) is not None else pcie


def _flag(confirmed: bool, denied: bool) -> float | None:
    return 1.0 if confirmed else 0.0 if denied else None


def _trains(gpu_signals: GpuSignals) -> float | None:
    return _flag(gpu_signals.trains or gpu_signals.kind == "training", gpu_signals.kind == "serving")


def _serves(gpu_signals: GpuSignals) -> float | None:
    return _flag(gpu_signals.kind == "serving", gpu_signals.trains or gpu_signals.kind == "training")


_LINKS = (NVLINK_RECEIVE, PCIE_RECEIVE, PCIE_TRANSMIT, NODE_NETWORK_RECEIVE, NODE_NETWORK_TRANSMIT)

FEATURES: tuple[Feature, ...] = (
    Feature("utilization", "share of time a kernel ran", (IDLE_UTILIZATION,), Plain(IDLE_UTILIZATION)),
    Feature("unsteadiness", "spread of utilization over the short window, a quarter and half of the idle window, and "
            "all of it", _WINDOWS, _utilization_spread),
    Feature("swing", "that spread, relative to the highest of the four", _WINDOWS, _relative_spread),
    Feature("idleness", "utilization, relative to `evaluation.idle_utilization`", (IDLE_UTILIZATION,), _idleness),
    Feature("day_peak", "highest hourly mean of utilization within a day", (DAILY_PEAK_UTILIZATION,),
            Plain(DAILY_PEAK_UTILIZATION)),
    Feature("sm_activity", "share of SMs busy", (SM_ACTIVITY,), Plain(SM_ACTIVITY)),
    Feature("fill", "share of SMs busy while a kernel ran", (SM_ACTIVITY, IDLE_UTILIZATION),
            Plain(SM_ACTIVITY, IDLE_UTILIZATION)),
    Feature("tensor_fill", "tensor core activity while a kernel ran", (TENSOR_ACTIVITY, IDLE_UTILIZATION),
            Plain(TENSOR_ACTIVITY, IDLE_UTILIZATION)),
    Feature("fp32_fill", "FP32 pipe activity while a kernel ran", (FP32_ACTIVITY, IDLE_UTILIZATION),
            Plain(FP32_ACTIVITY, IDLE_UTILIZATION)),
    Feature("fp64_fill", "FP64 pipe activity while a kernel ran", (FP64_ACTIVITY, IDLE_UTILIZATION),
            Plain(FP64_ACTIVITY, IDLE_UTILIZATION)),
    Feature("dram", "memory bandwidth used, of the maximum", (DRAM_ACTIVITY,), Plain(DRAM_ACTIVITY)),
    Feature("dram_fill", "memory bandwidth used while a kernel ran", (DRAM_ACTIVITY, IDLE_UTILIZATION),
            Plain(DRAM_ACTIVITY, IDLE_UTILIZATION)),
    Feature("power", "power draw, of the power limit", (POWER, POWER_LIMIT),
            Plain(POWER, POWER_LIMIT)),
    Feature("busy_power_at_least", "power while a kernel ran, of the limit (the model's if none is reported), if "
            "clocks stay up in between", (POWER, POWER_LIMIT, IDLE_UTILIZATION),
            lambda gpu: _busy_power(gpu, idle_shares(gpu.gpu.name).clocks_up)),
    Feature("busy_power_at_most", "the same, if clocks fall to their lowest in between",
            (POWER, POWER_LIMIT, IDLE_UTILIZATION), lambda gpu: _busy_power(gpu, idle_shares(gpu.gpu.name).lowest)),
    Feature("limit_of_default", "power limit, of the default limit that is reported or known of the model",
            (POWER_LIMIT, POWER_LIMIT_DEFAULT), _limit_of_default),
    Feature("memory_fill", "share of the time in which a kernel ran that memory was read or written",
            (MEMORY_ACTIVITY, IDLE_UTILIZATION), Plain(MEMORY_ACTIVITY, IDLE_UTILIZATION)),
    Feature("clock", "SM clock, of the maximum", (SM_CLOCK, SM_CLOCK_MAX), _clock_ratio),
    Feature("unexplained_clock", "the lower of `clock` and `clock_of_peers` if no throttle reason is published and "
            "power is not at its limit, else 1", (SM_CLOCK, SM_CLOCK_MAX, POWER, POWER_LIMIT), _unexplained_clock),
    Feature("clock_of_peers", "SM clock, of the median of busy GPUs of the same model", (SM_CLOCK,),
            lambda gpu: _relative_to_model(gpu, SM_CLOCK)),
    Feature("limit_of_peers", "power limit, of the median of GPUs of the same model", (POWER_LIMIT,),
            lambda gpu: _relative_to_model(gpu, POWER_LIMIT)),
    Feature("thermal", "share of busy time thermally throttled", (THROTTLE_HW_THERMAL, THROTTLE_SW_THERMAL), _thermal),
    Feature("temperature", "core temperature in degrees Celsius", (TEMPERATURE,), Plain(TEMPERATURE)),
    Feature("power_brake", "share of busy time throttled by the power brake", (THROTTLE_POWER_BRAKE,),
            Plain(THROTTLE_POWER_BRAKE, IDLE_UTILIZATION)),
    Feature("power_cap", "share of busy time throttled by the power limit", (THROTTLE_POWER_CAP,),
            Plain(THROTTLE_POWER_CAP, IDLE_UTILIZATION)),
    Feature("memory_held", "GPU memory used", (IDLE_MEMORY_USED,), Plain(IDLE_MEMORY_USED)),
    Feature("memory_needed", "GPU memory needed: the peak that the job reports, or the memory used unless a framework "
            "may have preallocated it", (JOB_PEAK_MEMORY, MEMORY_TOTAL, IDLE_MEMORY_USED), _memory_needed),
    Feature("data_wait", "share of a training step spent waiting for data", (JOB_DATA_WAIT, JOB_STEP_TIME),
            _data_wait),
    Feature("possible_data_wait", "`data_wait`, or 1 if the job reports nothing: what it reports wins over guesses",
            (JOB_DATA_WAIT, JOB_STEP_TIME), lambda gpu: _reported_or_possible(gpu, _data_wait(gpu))),
    Feature("stepping", "share of time that a job spends in training steps", (JOB_STEP_TIME,),
            Plain(JOB_STEP_TIME)),
    Feature("communication", "share of a training step spent waiting for other ranks",
            (JOB_COMMUNICATION, JOB_STEP_TIME), _communication),
    Feature("communication_below_job", "how far `communication` is below the median of the job",
            (JOB_COMMUNICATION, JOB_STEP_TIME), _communication_below_job),
    Feature("utilization_below_job", "how far utilization is below the median of the job", (IDLE_UTILIZATION,),
            _utilization_below_job),
    Feature("sm_activity_of_job", "SM activity, of the median of the job", (SM_ACTIVITY,),
            lambda gpu: _relative_to_job(gpu, SM_ACTIVITY)),
    Feature("clock_of_job", "SM clock, of the median of the job", (SM_CLOCK,),
            lambda gpu: _relative_to_job(gpu, SM_CLOCK)),
    Feature("exchange", "utilization of the busiest link (NVLink, PCIe, network) in both directions", _LINKS,
            _max_link_utilization),
    Feature("gpu_exchange", "utilization of the links to the other GPUs (NVLink, else PCIe) in both directions",
            (NVLINK_RECEIVE, PCIE_RECEIVE, PCIE_TRANSMIT), _gpu_exchange),
    Feature("exchange_of_unfilled", "`exchange`, relative to the SMs idle while a kernel ran", (*_LINKS, SM_ACTIVITY),
            lambda gpu: _link_per_idle_sm(gpu, _max_link_utilization(gpu))),
    Feature("exchange_at_most", "`exchange` if all links that the job can use are known", _LINKS,
            _link_utilization_bound),
    Feature("exchange_at_most_of_unfilled", "`exchange_at_most`, relative to the SMs idle while a kernel ran",
            (*_LINKS, SM_ACTIVITY), lambda gpu: _link_per_idle_sm(gpu, _link_utilization_bound(gpu))),
    Feature("input_rate", "bytes per second received over PCIe", (PCIE_RECEIVE,), Plain(PCIE_RECEIVE)),
    Feature("net_input_rate", "bytes per second received over PCIe beyond those sent: GPUs exchange both ways",
            (PCIE_RECEIVE, PCIE_TRANSMIT), _net_input_rate),
    Feature("cpu", "CPU utilization of the node", (NODE_CPU,), Plain(NODE_CPU)),
    Feature("io_pressure", "share of time a task of the node waited for storage", (NODE_IO_PRESSURE,),
            Plain(NODE_IO_PRESSURE)),
    Feature("trains", "1 if the pool is for training, a job reports steps or the owner is a training job, 0 if it is "
            "for serving", (JOB_STEP_TIME,),
            _trains),
    Feature("may_train", "0 if the pool is for serving, else 1", (), lambda gpu: 0.0 if gpu.kind == "serving" else 1.0),
    Feature("serves", "1 if the pool is for serving, 0 if it is for training or `trains` is 1", (JOB_STEP_TIME,),
            _serves),
)  # fmt: skip

FEATURES_BY_NAME: Mapping[str, Feature] = {feature.name: feature for feature in FEATURES}


class LazyFeatures(dict[str, float | None]):
    """Features by name, each computed on first access: most rows fail at their first condition."""

    __slots__ = ("_gpu_signals",)

    def __init__(self, gpu_signals: GpuSignals) -> None:
        self._gpu_signals = gpu_signals

    def __missing__(self, name: str) -> float | None:
        value = self[name] = FEATURES_BY_NAME[name].compute(self._gpu_signals)
        return value
