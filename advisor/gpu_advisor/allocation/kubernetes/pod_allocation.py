"""A Job's pods as an allocation, for the framework settings. Pure.

In a pod, the device plug-in shows only the pod's own GPUs: its settings must name none.
"""

from __future__ import annotations

from gpu_advisor.allocation.gpu_request import GpuRequest
from gpu_advisor.allocation.kubernetes.pod_plan import PodPlan
from gpu_advisor.allocation.model import Allocation, NodeAllocation


def allocation_of_pods(plan: PodPlan, request: GpuRequest, job: str, service: str = "") -> Allocation:
    """For `pytorch_settings` and `tensorflow_settings` with SetupOptions(devices_given=True); it has no lease.

    job: the Job's name. service: a headless Service that selects its pods and is their subdomain, so that they reach
    each other as JOB-INDEX.SERVICE; needed with several pods
    (https://kubernetes.io/docs/tasks/job/job-with-pod-to-pod-communication/). A pod's hostname is JOB-INDEX, by which
    it finds its own node's settings.
    """
    shares = tuple(
        NodeAllocation(
            f"{job}-{index}", tuple(range(plan.gpus_per_pod)), (), f"{job}-{index}.{service}" if service else ""
        )
        for index in range(plan.pods)
    )
    return Allocation(
        job, "", request, shares, plan.gpu_type, plan.vendor, plan.memory_gb, 0.0, float("inf"), plan.reasons
    )  # fmt: skip
