"""TensorFlow settings for an allocation. Pure.

Memory is limited by a logical device, or grows as needed; they exclude each other, and both must be set before the
runtime starts (https://www.tensorflow.org/guide/gpu#limiting_gpu_memory_growth). Several GPUs on one node use a
MirroredStrategy, several nodes a MultiWorkerMirroredStrategy, which reads TF_CONFIG
(https://www.tensorflow.org/tutorials/distribute/multi_worker_with_keras). Policies of mixed precision:
https://www.tensorflow.org/guide/mixed_precision.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gpu_advisor.allocation.frameworks.mixed_precision import MixedPrecision, choose_mixed_precision
from gpu_advisor.allocation.frameworks.options import SetupOptions, framework_memory_share, gpu_memory_bytes
from gpu_advisor.allocation.frameworks.visible_devices import (
    HIDE_DEVICES_ENVIRONMENT,
    NodeSettings,
    visible_devices_environment,
)
from gpu_advisor.allocation.memory_strategy import MemoryShare
from gpu_advisor.allocation.model import Allocation

DEVICE_TYPES = {"nvidia": "GPU", "amd": "GPU", "intel": "XPU", "huawei": "NPU", "cpu": "CPU"}
MIB = 1 << 20
#: GPUs report less than their nominal memory (a 16 GB T4: 15), and the limit must fit in what they report.
REPORTED_MEMORY_RATIO = 0.93

Strategy = Literal["default", "MirroredStrategy", "MultiWorkerMirroredStrategy"]


@dataclass(frozen=True, slots=True)
class TensorFlowMemory:
    """Either `growth`, or `limit_mib` on each GPU; neither on the CPU."""

    growth: bool
    limit_mib: int | None
    why: str


@dataclass(frozen=True, slots=True)
class TensorFlowSettings:
    """Of all nodes. `policy`: of Keras: float32, mixed_float16, mixed_bfloat16, or auto."""

    device_type: str
    memory: TensorFlowMemory
    mixed_precision: MixedPrecision
    policy: str
    strategy: Strategy
    nodes: tuple[NodeSettings, ...]

    def document(self) -> dict[str, Any]:
        """The API's JSON document."""
        header = {"framework": "tensorflow", "set_environment_before": "import tensorflow"}
        return {**header, **asdict(self), "nodes": [asdict(node) for node in self.nodes]}


def tensorflow_from_document(document: Mapping[str, Any]) -> TensorFlowSettings:
    """The inverse of TensorFlowSettings.document."""
    return TensorFlowSettings(
        device_type=document["device_type"],
        memory=TensorFlowMemory(**document["memory"]),
        mixed_precision=MixedPrecision(**document["mixed_precision"]),
        policy=document["policy"],
        strategy=document["strategy"],
        nodes=tuple(NodeSettings(**node) for node in document["nodes"]),
    )


def tensorflow_settings(allocation: Allocation, options: SetupOptions | None = None) -> TensorFlowSettings:
    """Raises InvalidRequestError."""
    options = options or SetupOptions()
    precision = choose_mixed_precision(allocation.request.mixed_precision, allocation.gpu_type, allocation.on_cpu)
    command = f"python {options.script}"
    if allocation.on_cpu:
        nodes: tuple[NodeSettings, ...] = (NodeSettings("", 0, HIDE_DEVICES_ENVIRONMENT, command),)
    else:
        nodes = tuple(
            NodeSettings(each.node_name, len(each.indices),
                           {**({} if options.devices_given else visible_devices_environment(each, allocation.vendor)),
                            **_tf_config(allocation, index, options.port)}, command)
            for index, each in enumerate(allocation.shares)
        )  # fmt: skip
    return TensorFlowSettings(
        device_type=DEVICE_TYPES["cpu" if allocation.on_cpu else allocation.vendor],
        memory=_memory_settings(allocation, options),
        mixed_precision=precision,
        policy=keras_policy(precision.dtype),
        strategy=_strategy(allocation),
        nodes=nodes,
    )


def keras_policy(dtype: str) -> str:
    """Keras' mixed-precision policy for a dtype."""
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
        return TensorFlowMemory(False, None, "no limit on the CPU")
    if options.growth:
        return TensorFlowMemory(True, None, "growth was requested, which excludes a limit")
    share: MemoryShare = framework_memory_share(allocation, options)
    total = gpu_memory_bytes(allocation)
    if total is None:
        return TensorFlowMemory(True, None, "the memory of these GPUs is unknown: growth instead of a limit")
    return TensorFlowMemory(False, int(share.ratio * total * REPORTED_MEMORY_RATIO) // MIB, share.why)
