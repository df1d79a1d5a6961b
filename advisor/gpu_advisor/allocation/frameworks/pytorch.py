"""Settings of PyTorch for an allocation. Pure.

Memory: torch.cuda.set_per_process_memory_fraction bounds what the caching allocator may reserve, as a share of the
device's whole memory (https://docs.pytorch.org/docs/stable/generated/torch.cuda.memory.set_per_process_memory_fraction.html);
the driver's context stands outside of it. The allocator's expandable segments keep memory from being lost between
blocks of changing sizes (https://docs.pytorch.org/docs/stable/notes/cuda.html#optimizing-memory-usage-with-pytorch-alloc-conf).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gpu_advisor.allocation.frameworks.mixed_precision import MixedPrecision, mixed_precision
from gpu_advisor.allocation.frameworks.options import SetupOptions, framework_memory_share
from gpu_advisor.allocation.frameworks.visible_devices import HIDE_DEVICES_ENVIRONMENT, visible_devices_environment
from gpu_advisor.allocation.memory_strategy import MemoryShare
from gpu_advisor.allocation.model import Allocation, NodeAllocation

#: Vendor -> collective operations, and the part of torch that knows its devices.
DISTRIBUTED_BACKENDS = {"nvidia": "nccl", "amd": "nccl", "intel": "xccl", "huawei": "hccl", "cpu": "gloo"}
DEVICE_TYPES = {"nvidia": "cuda", "amd": "cuda", "intel": "xpu", "huawei": "npu", "cpu": "cpu"}

#: 2.9.1 has both names, but takes expandable segments from the old one alone; 2.11 takes them from either:
#: https://github.com/pytorch/pytorch/issues/183387, https://github.com/karpathy/autoresearch/pull/588.
NEW_VARIABLE_SINCE = (2, 11)
NEW_ALLOCATOR_VARIABLE, OLD_ALLOCATOR_VARIABLE = "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"
ALLOCATOR_SETTINGS = "expandable_segments:True"


@dataclass(frozen=True, slots=True)
class NodePyTorchSettings:
    """Of one node. `environment` must stand before torch is imported; `command` starts the node's processes."""

    node_name: str
    gpu_count: int
    environment: Mapping[str, str]
    command: str


@dataclass(frozen=True, slots=True)
class PyTorchSettings:
    """Of all nodes. `device_type` is torch's word: cuda, xpu, npu or cpu. `world_size` counts processes, one a GPU."""

    device_type: str
    memory: MemoryShare
    mixed_precision: MixedPrecision
    backend: str
    world_size: int
    nodes: tuple[NodePyTorchSettings, ...]

    def document(self) -> dict[str, Any]:
        """As an API answers it. It says until when the nodes' environment counts."""
        told = {"framework": "pytorch", "set_environment_before": "import torch"}
        return {**told, **asdict(self), "nodes": [asdict(node) for node in self.nodes]}


def from_document(document: Mapping[str, Any]) -> PyTorchSettings:
    """What `document` gave, from JSON."""
    return PyTorchSettings(
        device_type=document["device_type"],
        memory=MemoryShare(**document["memory"]),
        mixed_precision=MixedPrecision(**document["mixed_precision"]),
        backend=document["backend"],
        world_size=document["world_size"],
        nodes=tuple(NodePyTorchSettings(**node) for node in document["nodes"]),
    )


def pytorch_settings(allocation: Allocation, options: SetupOptions | None = None) -> PyTorchSettings:
    """Raises RequestError."""
    options = options or SetupOptions()
    vendor = "cpu" if allocation.on_cpu else allocation.vendor
    if allocation.on_cpu:
        nodes: tuple[NodePyTorchSettings, ...] = (
            NodePyTorchSettings("", 0, HIDE_DEVICES_ENVIRONMENT, f"python {options.script}"),
        )
    else:
        nodes = tuple(
            NodePyTorchSettings(each.node_name, len(each.indices), _environment(each, vendor, options),
                        _command(each, allocation, options))
            for each in allocation.shares
        )  # fmt: skip
    return PyTorchSettings(
        device_type=DEVICE_TYPES[vendor],
        memory=framework_memory_share(allocation, options),
        mixed_precision=mixed_precision(allocation.request.mixed_precision, allocation.gpu_type, allocation.on_cpu),
        backend=DISTRIBUTED_BACKENDS[vendor],
        world_size=max(1, allocation.gpu_count),
        nodes=nodes,
    )


def allocator_variable(version: str) -> str:
    """The variable that this version of PyTorch takes the allocator's settings from; all versions know the old one."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (
        NEW_ALLOCATOR_VARIABLE
        if found and (int(found[1]), int(found[2])) >= NEW_VARIABLE_SINCE
        else OLD_ALLOCATOR_VARIABLE
    )


def _environment(of: NodeAllocation, vendor: str, options: SetupOptions) -> dict[str, str]:
    variables = {} if options.devices_given else visible_devices_environment(of, vendor)
    if vendor == "nvidia":  # expandable segments are a matter of CUDA's virtual memory
        variables[allocator_variable(options.version)] = ALLOCATOR_SETTINGS
    return variables


def _command(of: NodeAllocation, allocation: Allocation, options: SetupOptions) -> str:
    """https://docs.pytorch.org/docs/stable/elastic/run.html; the first node is where processes meet."""
    each = len(of.indices)
    if len(allocation.shares) == 1 and each == 1:
        return f"python {options.script}"
    if len(allocation.shares) == 1:
        return f"torchrun --standalone --nproc-per-node={each} {options.script}"
    first = allocation.shares[0]
    return (
        f"torchrun --nnodes={len(allocation.shares)} --nproc-per-node={each} --rdzv-id={allocation.id} "
        f"--rdzv-backend=c10d --rdzv-endpoint={first.address or first.node_name}:{options.port} {options.script}"
    )
