"""A Job's pods as an allocation, so that frameworks can be told how to use it. Pure.

In a pod the device plug-in shows the pod's own GPUs and no others: settings for it must name none.
"""

from __future__ import annotations

from gpu_advisor.allocation.gpu_request import GpuRequest
from gpu_advisor.allocation.kubernetes.pod_plan import PodPlan
from gpu_advisor.allocation.model import Allocation, NodeAllocation


def allocation_of_pods(fit: PodPlan, request: GpuRequest, job: str, service: str = "") -> Allocation:
    """For `pytorch_settings` and `tensorflow_settings` with SetupOptions(devices_given=True); it has no lease.

    job: the Job's name. service: a headless Service of this name that selects its pods, with the pods' subdomain set to
    it, makes them reach each other as JOB-INDEX.SERVICE; needed where there are several
    (https://kubernetes.io/docs/tasks/job/job-with-pod-to-pod-communication/). A pod is called JOB-INDEX by itself, too,
    and so finds its own part of the settings.
    """
    shares = tuple(
        NodeAllocation(
            f"{job}-{index}", tuple(range(fit.gpus_per_pod)), (), f"{job}-{index}.{service}" if service else ""
        )
        for index in range(fit.pods)
    )
    return Allocation(
        job, "", request, shares, fit.gpu_type, fit.vendor, fit.memory_gb, 0.0, float("inf"), fit.reasons
    )  # fmt: skip
