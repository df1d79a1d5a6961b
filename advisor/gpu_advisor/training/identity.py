"""The job, rank and GPU of this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobIdentity:
    """`uuid`: of the GPU, as NVML and the exporter report it; empty without a GPU or if unknown."""

    job: str
    rank: int
    uuid: str = ""

    def labels(self) -> dict[str, str]:
        return {"training_job": self.job, "rank": str(self.rank), "uuid": self.uuid}


def job_name_from_environment(environment: Mapping[str, str]) -> str:
    """The scheduler's job id, which is also what the exporter labels the owners of GPUs with.

    Without one, torchrun's run id; else the script's name with the pid, which is unique on the machine.
    """
    for variable in ("GPU_ADVISOR_TRAINING_JOB", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"):
        value = environment.get(variable, "")
        if value and value != "none":  # torchrun's default run id
            return value
    script = os.path.splitext(os.path.basename(sys.argv[0] if sys.argv else ""))[0]
    return f"{script or 'python'}-{os.getpid()}"


def rank_from_environment(environment: Mapping[str, str]) -> int:
    """From torchrun or Slurm, else 0."""
    for variable in ("RANK", "SLURM_PROCID"):
        value = environment.get(variable, "")
        if value.isdigit():
            return int(value)
    return 0


def gpu_uuid(device: int, environment: Mapping[str, str]) -> str:
    """The UUID of a CUDA device as NVML spells it; empty if PyTorch does not report it (ROCm, old releases).

    For a MIG instance, CUDA_VISIBLE_DEVICES holds its UUID in NVML's spelling
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
    """The index of this thread's CUDA device; None before CUDA is initialized.

    The current device is per thread: in another thread of the process it is 0.
    """
    torch = sys.modules.get("torch")
    # current_device() would initialize CUDA, possibly on a device that the job does not use.
    if torch is None or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.current_device())
