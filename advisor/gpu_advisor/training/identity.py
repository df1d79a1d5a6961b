"""Which job this process belongs to, which of its ranks it is, and on which GPU it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobIdentity:
    """`uuid` is the GPU's, as NVML and the exporter say it; empty where there is none or it is not known."""

    job: str
    rank: int
    uuid: str = ""

    def labels(self) -> dict[str, str]:
        return {"training_job": self.job, "rank": str(self.rank), "uuid": self.uuid}


def job_name_from_environment(environment: Mapping[str, str]) -> str:
    """The scheduler's own id of the job where there is one: the exporter labels the owners of GPUs with the same.

    Else torchrun's run id, and last the name of the script with the pid, which no other job on the machine has.
    """
    for variable in ("GPU_ADVISOR_TRAINING_JOB", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"):
        value = environment.get(variable, "")
        if value and value != "none":  # what torchrun says when nobody named the run
            return value
    script = os.path.splitext(os.path.basename(sys.argv[0] if sys.argv else ""))[0]
    return f"{script or 'python'}-{os.getpid()}"


def rank_from_environment(environment: Mapping[str, str]) -> int:
    """As torchrun or Slurm say it, else 0."""
    for variable in ("RANK", "SLURM_PROCID"):
        value = environment.get(variable, "")
        if value.isdigit():
            return int(value)
    return 0


def gpu_uuid(device: int, environment: Mapping[str, str]) -> str:
    """The uuid of the CUDA device `device`, as NVML spells it; empty if PyTorch does not tell it (ROCm, old releases).

    CUDA_VISIBLE_DEVICES names a slice of a GPU by its own uuid, in NVML's spelling
    (https://docs.nvidia.com/datacenter/tesla/mig-user-guide/, on CUDA_VISIBLE_DEVICES).
    """
    import torch

    if torch.version.hip:
        return ""
    visible = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    if device < len(visible) and visible[device].startswith("MIG-"):
        return visible[device]
    found = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return f"GPU-{found}" if found else ""


def current_cuda_device() -> int | None:
    """The index of the CUDA device that this thread uses; None while the process has none in use.

    It is the thread's own: another thread of the same process would be told 0.
    """
    torch = sys.modules.get("torch")
    # Without the second question, asking would itself start CUDA, on a device that the job may not want.
    if torch is None or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.current_device())
