"""Tables of the simulated fleet: GPU models as their drivers describe them, and well-known workloads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpu_exporter.snapshot import DownReason


@dataclass(frozen=True, slots=True)
class GpuModel:
    """A GPU model, as its driver describes it. Power in watts, clocks in MHz, memory in MiB, averaging in seconds.

    `nvlink_bytes_per_second` is the bandwidth of all links in one direction, 0 without NVLink. `has_activity`: supports
    GPM (Hopper and newer).
    """

    name: str
    memory_mib: float
    reserved_mib: float
    idle_power: float
    power_limit: float
    sm_clock: float
    sm_clock_idle: float
    memory_clock: float
    averaging_seconds: float
    has_fan: bool = False
    has_ecc: bool = True
    nvlink_bytes_per_second: float = 0.0
    pcie_generation: int = 4
    has_activity: bool = False
    has_row_remapping: bool = False
    vendor: str = "nvidia"


MODELS: dict[str, GpuModel] = {
    "H200-141GB": GpuModel(
        "NVIDIA H200", 143771, 612, 76, 700, 1980, 345, 3201, 1 / 6,
        nvlink_bytes_per_second=450e9, pcie_generation=5, has_activity=True, has_row_remapping=True,
    ),
    "H100-80GB": GpuModel(
        "NVIDIA H100 80GB HBM3", 81559, 551, 70, 700, 1980, 345, 2619, 1 / 6,
        nvlink_bytes_per_second=450e9, pcie_generation=5, has_activity=True, has_row_remapping=True,
    ),
    "A100-80GB": GpuModel(
        "NVIDIA A100-SXM4-80GB", 81920, 626, 62, 400, 1410, 210, 1593, 1 / 6,
        nvlink_bytes_per_second=300e9, has_row_remapping=True,
    ),
    "A100-40GB": GpuModel(
        "NVIDIA A100-SXM4-40GB", 40960, 560, 55, 400, 1410, 210, 1215, 1 / 6,
        nvlink_bytes_per_second=300e9, has_row_remapping=True,
    ),
    "L40S-48GB": GpuModel("NVIDIA L40S", 46068, 480, 35, 350, 2520, 210, 9001, 1 / 6, has_row_remapping=True),
    "A10-24GB": GpuModel("NVIDIA A10", 23028, 430, 22, 150, 1695, 210, 6251, 1 / 6, has_row_remapping=True),
    "L4-24GB": GpuModel("NVIDIA L4", 23034, 440, 16, 72, 2040, 210, 6251, 1 / 6, has_row_remapping=True),
    "V100-32GB": GpuModel(
        "Tesla V100-SXM2-32GB", 32768, 270, 42, 300, 1530, 135, 877, 1.0,
        nvlink_bytes_per_second=150e9, pcie_generation=3,
    ),
    "T4-16GB": GpuModel("Tesla T4", 15360, 260, 10, 70, 1590, 300, 5001, 1.0, pcie_generation=3),
    "RTX4090-24GB": GpuModel("NVIDIA GeForce RTX 4090", 24564, 310, 20, 450, 3105, 210, 10501, 1 / 6, True, False),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scenario:
    """A workload. All shares are ratios, 0..1.

    `busy_ratio` is the share of a step in which kernels run, `jitter` its variation between steps, `memory` the share
    of memory used, `power_ratio` the share of the power limit drawn while busy, `memory_activity` the share of busy
    time with memory accesses, `clock` the share of the maximum clock, `extra_temperature_celsius` an offset to the
    temperature that the load explains, `throttle` a throttle reason, active for `throttled_ratio` of busy time, `limit`
    the power limit as a share of the model's.

    While busy: `sm_active_ratio` is SM activity; `tensor`, `fp32` and `fp64` are pipe activity, `dram` and
    `nvlink_ratio` shares of bandwidth, `input_bytes` is received over PCIe per second. `job` is the training job,
    `namespace` is where it runs, `xid` is an error that occurs every twenty minutes.
    """

    about: str
    step_seconds: float = 1.0
    busy_ratio: float = 0.0
    jitter: float = 0.0
    memory: float = 0.0
    power_ratio: float = 0.0
    memory_activity: float = 0.0
    processes: int = 0
    clock: float = 1.0
    extra_temperature_celsius: float = 0.0
    throttle: str = ""
    down: DownReason | None = None
    throttled_ratio: float = 0.0
    sm_active_ratio: float = 0.85
    tensor: float = 0.42
    fp32: float = 0.08
    fp64: float = 0.0
    dram: float = 0.45
    nvlink_ratio: float = 0.0
    input_bytes: float = 2e8
    limit: float = 1.0
    job: str = ""
    namespace: str = ""
    xid: int = 0

    @property
    def owner(self) -> Mapping[str, str]:
        """Labels of gpu_owner_info; empty for a GPU that nobody is known to use."""
        if not self.job:
            return {}
        return {"owner_kind": "process", "owner_namespace": self.namespace, "training_job": self.job}


SCENARIOS: dict[str, Scenario] = {
    "training": Scenario(
        "a healthy training job", 0.42, 0.945, 0.03, 0.84, 0.92, 0.55, 1, nvlink_ratio=0.08, job="train",
        namespace="language",
    ),
    "idle": Scenario("no kernels, no memory allocated"),
    "idle-hoarder": Scenario("no kernels, but a process has most of the memory allocated", memory=0.62, processes=1),
    "small-batch": Scenario(
        "steps too short to fill the GPU", 0.03, 0.55, 0.08, 0.21, 0.35, 0.20, 1,
        sm_active_ratio=0.28, tensor=0.09, fp32=0.04, dram=0.17, job="small-batch", namespace="vision",
    ),
    "data-bound": Scenario(
        "each step waits for its data", 1.3, 0.36, 0.10, 0.74, 0.80, 0.45, 1, nvlink_ratio=0.05, job="data-bound",
        namespace="vision",
    ),
    "saturated-serving": Scenario(
        "more requests than the replicas can serve", 0.08, 0.99, 0.008, 0.90, 0.75, 0.60, 1,
        sm_active_ratio=0.80, tensor=0.16, dram=0.58, input_bytes=2e7,
    ),
    "throttled": Scenario(
        "a healthy job on a GPU that is too hot", 0.70, 0.97, 0.02, 0.84, 0.60, 0.50, 1, 0.55, 22.0, "hw_thermal",
        throttled_ratio=0.9,
    ),
    "lost": Scenario("the GPU fell off the bus", down=DownReason.LOST),
    "memory-bound": Scenario(
        "kernels wait for memory bandwidth", 0.50, 0.96, 0.02, 0.82, 0.70, 0.93, 1,
        sm_active_ratio=0.90, tensor=0.09, fp32=0.12, dram=0.86, job="memory-bound", namespace="language",
    ),
    "memory-full": Scenario(
        "too little free memory for a batch size that would fill the GPU", 0.05, 0.62, 0.06, 0.965, 0.40, 0.25, 1,
        sm_active_ratio=0.30, tensor=0.10, fp32=0.05, dram=0.20, job="memory-full", namespace="language",
    ),
    "communication-bound": Scenario(
        "steps wait for gradient all-reduce", 0.90, 0.97, 0.02, 0.80, 0.62, 0.35, 1,
        sm_active_ratio=0.52, tensor=0.24, fp32=0.05, dram=0.28, nvlink_ratio=0.34, job="communication-bound",
        namespace="language",
    ),
    "busy-but-empty": Scenario(
        "a kernel spins on one SM", 1.0, 0.985, 0.01, 0.12, 0.25, 0.01, 1,
        sm_active_ratio=0.008, tensor=0.0, fp32=0.004, dram=0.001, input_bytes=1e4,
    ),
    "hung-collective": Scenario(
        "all ranks wait for a lost one", 1.0, 0.99, 0.005, 0.78, 0.30, 0.01, 1,
        sm_active_ratio=0.13, tensor=0.0, fp32=0.0, dram=0.004, input_bytes=1e3, job="hung-collective",
        namespace="language",
    ),
    "straggler": Scenario(
        "the slow GPU of a synchronous job", 0.90, 0.97, 0.01, 0.80, 0.55, 0.50, 1, 0.62,
        sm_active_ratio=0.86, nvlink_ratio=0.02, job="lock-step", namespace="language",
    ),
    "held-up": Scenario(
        "waits for the slow GPU of its job at each step", 0.90, 0.97, 0.01, 0.80, 0.58, 0.32, 1,
        sm_active_ratio=0.56, tensor=0.26, dram=0.28, nvlink_ratio=0.02, job="lock-step", namespace="language",
    ),
    "power-limited": Scenario(
        "a power limit far below the model's own", 0.50, 0.96, 0.02, 0.80, 0.50, 0.50, 1, 0.62,
        throttle="sw_power_cap", throttled_ratio=0.95, limit=0.5,
    ),
    "power-capped": Scenario(
        "full load at the power limit, which is normal", 0.45, 0.965, 0.02, 0.84, 1.0, 0.55, 1, 0.86,
        throttle="sw_power_cap", throttled_ratio=0.95, sm_active_ratio=0.94, tensor=0.62, nvlink_ratio=0.08,
    ),
    "hot": Scenario(
        "near the temperature limit, slightly throttled at times", 0.42, 0.96, 0.02, 0.84, 0.92, 0.55, 1, 0.985, 12.0,
        throttle="sw_thermal", throttled_ratio=0.03,
    ),
    "single-precision": Scenario(
        "a training job in FP32, with idle tensor cores", 0.60, 0.96, 0.02, 0.72, 0.80, 0.45, 1,
        tensor=0.0, fp32=0.55, job="single-precision", namespace="vision",
    ),
    "small-service": Scenario(
        "a service that needs a small part of its GPU", 0.4, 0.06, 0.03, 0.11, 0.30, 0.10, 1,
        sm_active_ratio=0.25, tensor=0.05, dram=0.12, input_bytes=1e6,
    ),
    "failing": Scenario(
        "a training job on a GPU with uncontained memory errors", 0.42, 0.945, 0.03, 0.84, 0.92, 0.55, 1, xid=95
    ),
}  # fmt: skip
