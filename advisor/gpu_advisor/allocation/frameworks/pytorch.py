"""PyTorch settings for an allocation. Pure.

Memory: torch.cuda.set_per_process_memory_fraction limits what the caching allocator may reserve, as a share of the
device's total memory (https://docs.pytorch.org/docs/stable/generated/torch.cuda.memory.set_per_process_memory_fraction.html);
the CUDA context is not included. Expandable segments reduce fragmentation with changing block sizes
(https://docs.pytorch.org/docs/stable/notes/cuda.html#optimizing-memory-usage-with-pytorch-alloc-conf).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gpu_advisor.allocation.frameworks.mixed_precision import MixedPrecision, choose_mixed_precision
from gpu_advisor.allocation.frameworks.options import SetupOptions, framework_memory_share
from gpu_advisor.allocation.frameworks.visible_devices import (
    HIDE_DEVICES_ENVIRONMENT,
    NodeSettings,
    visible_devices_environment,
)
from gpu_advisor.allocation.memory_strategy import MemoryShare
from gpu_advisor.allocation.model import Allocation, NodeAllocation

#: By vendor: backend of torch.distributed, and device type.
DISTRIBUTED_BACKENDS = {"nvidia": "nccl", "amd": "nccl", "intel": "xccl", "huawei": "hccl", "cpu": "gloo"}
DEVICE_TYPES = {"nvidia": "cuda", "amd": "cuda", "intel": "xpu", "huawei": "npu", "cpu": "cpu"}

#: 2.9.1 has both names, but reads expandable segments only from the old one; 2.11 reads either:
#: https://github.com/pytorch/pytorch/issues/183387, https://github.com/karpathy/autoresearch/pull/588.
NEW_VARIABLE_SINCE = (2, 11)
NEW_ALLOCATOR_VARIABLE, OLD_ALLOCATOR_VARIABLE = "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"
ALLOCATOR_SETTINGS = "expandable_segments:True"


@dataclass(frozen=True, slots=True)
class PyTorchSettings:
    """Of all nodes. `device_type`: as in torch.device: cuda, xpu, npu or cpu. `world_size`: one process per GPU."""

    device_type: str
    memory: MemoryShare
    mixed_precision: MixedPrecision
    backend: str
    world_size: int
    nodes: tuple[NodeSettings, ...]

    def document(self) -> dict[str, Any]:
        """The API's JSON document."""
        header = {"framework": "pytorch", "set_environment_before": "import torch"}
        return {**header, **asdict(self), "nodes": [asdict(node) for node in self.nodes]}


def pytorch_from_document(document: Mapping[str, Any]) -> PyTorchSettings:
    """The inverse of PyTorchSettings.document."""
    return PyTorchSettings(
        device_type=document["device_type"],
        memory=MemoryShare(**document["memory"]),
        mixed_precision=MixedPrecision(**document["mixed_precision"]),
        backend=document["backend"],
        world_size=document["world_size"],
        nodes=tuple(NodeSettings(**node) for node in document["nodes"]),
    )


def pytorch_settings(allocation: Allocation, options: SetupOptions | None = None) -> PyTorchSettings:
    """Raises InvalidRequestError."""
    options = options or SetupOptions()
    vendor = "cpu" if allocation.on_cpu else allocation.vendor
    if allocation.on_cpu:
        nodes: tuple[NodeSettings, ...] = (NodeSettings("", 0, HIDE_DEVICES_ENVIRONMENT, f"python {options.script}"),)
    else:
        nodes = tuple(
            NodeSettings(each.node_name, len(each.indices), _environment(each, vendor, options),
                        _command(each, allocation, options))
            for each in allocation.shares
        )  # fmt: skip
    return PyTorchSettings(
        device_type=DEVICE_TYPES[vendor],
        memory=framework_memory_share(allocation, options),
        mixed_precision=choose_mixed_precision(
            allocation.request.mixed_precision, allocation.gpu_type, allocation.on_cpu
        ),
        backend=DISTRIBUTED_BACKENDS[vendor],
        world_size=max(1, allocation.gpu_count),
        nodes=nodes,
    )


def allocator_variable(version: str) -> str:
    """The allocator's environment variable in this version of PyTorch; all versions accept the old one."""
    match = re.match(r"(\d+)\.(\d+)", version)
    is_new = match and (int(match[1]), int(match[2])) >= NEW_VARIABLE_SINCE
    return NEW_ALLOCATOR_VARIABLE if is_new else OLD_ALLOCATOR_VARIABLE


def _environment(of: NodeAllocation, vendor: str, options: SetupOptions) -> dict[str, str]:
    variables = {} if options.devices_given else visible_devices_environment(of, vendor)
    if vendor == "nvidia":  # expandable segments need CUDA's virtual memory management
        variables[allocator_variable(options.version)] = ALLOCATOR_SETTINGS
    return variables


def _command(of: NodeAllocation, allocation: Allocation, options: SetupOptions) -> str:
    """https://docs.pytorch.org/docs/stable/elastic/run.html; the rendezvous endpoint is the first node."""
    processes = len(of.indices)
    if len(allocation.shares) == 1 and processes == 1:
        return f"python {options.script}"
    if len(allocation.shares) == 1:
        return f"torchrun --standalone --nproc-per-node={processes} {options.script}"
    first = allocation.shares[0]
    return (
        f"torchrun --nnodes={len(allocation.shares)} --nproc-per-node={processes} --rdzv-id={allocation.id} "
        f"--rdzv-backend=c10d --rdzv-endpoint={first.address or first.node_name}:{options.port} {options.script}"
    )
