"""Settings of one node, and the environment variables that restrict a process to its GPUs, by vendor.

CUDA: https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html (identifiers are
indices or UUIDs; devices after an invalid index are hidden, so -1 hides all; CUDA_DEVICE_ORDER makes indices those of
nvidia-smi). HIP: https://rocm.docs.amd.com/projects/HIP/en/latest/reference/env_variables.html. Level Zero:
https://oneapi-src.github.io/level-zero-spec/level-zero/latest/core/PROG.html#affinity-mask. Ascend:
https://www.hiascend.com/document/detail/en/canncommercial/800/apiref/envvar/envref_07_0028.html (ascending).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpu_advisor.allocation.model import NodeAllocation

#: The variable of visible devices, by vendor.
VISIBLE_DEVICES_VARIABLES = {
    "nvidia": "CUDA_VISIBLE_DEVICES",
    "amd": "HIP_VISIBLE_DEVICES",
    "intel": "ZE_AFFINITY_MASK",
    "huawei": "ASCEND_RT_VISIBLE_DEVICES",
}
#: A job on the CPU must not use GPUs that are leased to others.
HIDE_DEVICES_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1"}


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Set `environment` before importing the framework; `command` starts the node's processes."""

    node_name: str
    gpu_count: int
    environment: Mapping[str, str]
    command: str


def visible_devices_environment(share: NodeAllocation, vendor: str) -> dict[str, str]:
    """Variables that make only these GPUs visible.

    By UUID if the driver accepts it (NVIDIA, including MIG): an index changes when a GPU is lost.
    """
    if vendor == "nvidia" and share.uuids and all(uuid.startswith(("GPU-", "MIG-")) for uuid in share.uuids):
        return {VISIBLE_DEVICES_VARIABLES[vendor]: ",".join(share.uuids)}
    indices = ",".join(str(index) for index in sorted(share.indices))
    if vendor == "nvidia":
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", VISIBLE_DEVICES_VARIABLES[vendor]: indices}
    return {VISIBLE_DEVICES_VARIABLES[vendor]: indices}
