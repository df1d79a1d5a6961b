"""Settings of TensorFlow for an allocation. Pure.

Memory is bounded by a logical device of limited size, or taken as it is needed; one excludes the other, and both must
be said before the runtime starts (https://www.tensorflow.org/guide/gpu#limiting_gpu_memory_growth). Several GPUs of one
node are a MirroredStrategy, several nodes a MultiWorkerMirroredStrategy that reads TF_CONFIG
(https://www.tensorflow.org/tutorials/distribute/multi_worker_with_keras). Policies of mixed precision:
https://www.tensorflow.org/guide/mixed_precision.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gpu_advisor.allocation.frameworks.mixed_precision import MixedPrecision, mixed_precision
from gpu_advisor.allocation.frameworks.options import SetupOptions, framework_memory_share, gpu_memory_bytes
from gpu_advisor.allocation.frameworks.visible_devices import HIDE_DEVICES_ENVIRONMENT, visible_devices_environment
from gpu_advisor.allocation.memory_strategy import MemoryShare
from gpu_advisor.allocation.model import Allocation

DEVICE_TYPES = {"nvidia": "GPU", "amd": "GPU", "intel": "XPU", "huawei": "NPU", "cpu": "CPU"}
MIB = 1 << 20
#: A card reports less than it is sold with, a T4 of 16 GB the least: 15. A limit must hold for what is there.
REPORTED_MEMORY_RATIO = 0.93

Strategy = Literal["default", "MirroredStrategy", "MultiWorkerMirroredStrategy"]


@dataclass(frozen=True, slots=True)
class TensorFlowMemory:
    """Either `growth`, or a limit of `limit_mib` on each GPU; on the CPU neither."""

    growth: bool
    limit_mib: int | None
    why: str


@dataclass(frozen=True, slots=True)
class NodeTensorFlowSettings:
    """Of one node. `environment` must stand before tensorflow is imported."""

    node_name: str
    gpu_count: int
    environment: Mapping[str, str]
    command: str


@dataclass(frozen=True, slots=True)
class TensorFlowSettings:
    """Of all nodes. `policy` is Keras' word: float32, mixed_float16, mixed_bfloat16, or auto."""

    device_type: str
    memory: TensorFlowMemory
    mixed_precision: MixedPrecision
    policy: str
    strategy: Strategy
    nodes: tuple[NodeTensorFlowSettings, ...]

    def document(self) -> dict[str, Any]:
        """As an API answers it. It says until when the nodes' environment counts."""
        told = {"framework": "tensorflow", "set_environment_before": "import tensorflow"}
        return {**told, **asdict(self), "nodes": [asdict(node) for node in self.nodes]}


def from_document(document: Mapping[str, Any]) -> TensorFlowSettings:
    """What `document` gave, from JSON."""
    return TensorFlowSettings(
        device_type=document["device_type"],
        memory=TensorFlowMemory(**document["memory"]),
        mixed_precision=MixedPrecision(**document["mixed_precision"]),
        policy=document["policy"],
        strategy=document["strategy"],
        nodes=tuple(NodeTensorFlowSettings(**node) for node in document["nodes"]),
    )


def tensorflow_settings(allocation: Allocation, options: SetupOptions | None = None) -> TensorFlowSettings:
    """Raises RequestError."""
    options = options or SetupOptions()
    precision = mixed_precision(allocation.request.mixed_precision, allocation.gpu_type, allocation.on_cpu)
    command = f"python {options.script}"
    if allocation.on_cpu:
        nodes: tuple[NodeTensorFlowSettings, ...] = (NodeTensorFlowSettings("", 0, HIDE_DEVICES_ENVIRONMENT, command),)
    else:
        nodes = tuple(
            NodeTensorFlowSettings(each.node_name, len(each.indices),
                           {**({} if options.devices_given else visible_devices_environment(each, allocation.vendor)),
                            **_tf_config(allocation, index, options.port)}, command)
            for index, each in enumerate(allocation.shares)
        )  # fmt: skip
    return TensorFlowSettings(
        device_type=DEVICE_TYPES["cpu" if allocation.on_cpu else allocation.vendor],
        memory=_memory_settings(allocation, options),
        mixed_precision=precision,
        policy=policy(precision.dtype),
        strategy=_strategy(allocation),
        nodes=nodes,
    )


def policy(dtype: str) -> str:
    """Keras' policy for a number type."""
    return dtype if dtype in ("float32", "auto") else f"mixed_{dtype}"


def _strategy(allocation: Allocation) -> Strategy:
    if len(allocation.shares) > 1:
        return "MultiWorkerMirroredStrategy"
    return "MirroredStrategy" if allocation.gpu_count > 1 else "default"


def _tf_config(allocation: Allocation, index: int, port: int) -> dict[str, str]:
    if len(allocation.shares) == 1:
        return {}
    workers = [f"{each.address or each.node_name}:{port}" for each in allocation.shares]
    task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
    return {"TF_CONFIG": json.dumps(task)}


def _memory_settings(allocation: Allocation, options: SetupOptions) -> TensorFlowMemory:
    if allocation.on_cpu:
        return TensorFlowMemory(False, None, "on the CPU there is no limit to set")
    if options.growth:
        return TensorFlowMemory(True, None, "growth was asked for, and excludes a limit")
    wanted: MemoryShare = framework_memory_share(allocation, options)
    whole = gpu_memory_bytes(allocation)
    if whole is None:
        return TensorFlowMemory(True, None, "how much memory these GPUs have is not known: growth instead of a limit")
    return TensorFlowMemory(False, int(wanted.ratio * whole * REPORTED_MEMORY_RATIO) // MIB, wanted.why)
