"""A cluster's GPUs and how many of them pods request. Pure.

Only counts are known: the device plug-in chooses the GPUs of a container. Free is allocatable minus the requests of
the pods on the node (https://kubernetes.io/docs/tasks/administer-cluster/reserve-compute-resources/).

Labels with the type of a node's GPUs: NVIDIA's feature discovery (memory in MiB; MIG with the single strategy and
shared GPUs have suffixes, https://github.com/NVIDIA/k8s-device-plugin/tree/main/docs/gpu-feature-discovery), GKE
(https://cloud.google.com/kubernetes-engine/docs/how-to/gpus), Karpenter on AWS
(https://karpenter.sh/docs/concepts/scheduling/), AMD (https://github.com/ROCm/k8s-device-plugin, node labeller), Intel
(https://github.com/intel/intel-device-plugins-for-kubernetes/blob/main/cmd/gpu_plugin/labels.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gpu_advisor.hardware.gpu_types import GPU_MEMORY_GIB, RESOURCE_NAMES, nominal_gb, parse_gpu_type

KubernetesObject = Mapping[str, Any]

PRODUCT_LABELS = {
    "nvidia": ("nvidia.com/gpu.product", "cloud.google.com/gke-accelerator", "karpenter.k8s.aws/instance-gpu-name"),
    "amd": ("amd.com/gpu.product-name", "beta.amd.com/gpu.product-name"),
    "intel": ("gpu.intel.com/product",),
    "huawei": ("accelerator",),
}
MEMORY_LABELS = {"nvidia": ("nvidia.com/gpu.memory", "karpenter.k8s.aws/instance-gpu-memory")}
MIB = 1 << 20
#: Suffixes of product names for a part of a GPU.
PARTIAL_GPU_SUFFIXES = ("-SHARED", "-MIG-")


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """The GPUs of one resource name on one node. `memory_gb` of each, None without a label; `gpu_type` canonical, ""
    without a label. `unavailable_reason`: why no pod can use it."""

    name: str
    vendor: str
    resource: str
    allocatable: int
    requested: int
    gpu_type: str = ""
    product_label: str = ""
    product: str = ""
    memory_gb: float | None = None
    memory_label: str = ""
    memory_mib: int | None = None
    taints: tuple[Taint, ...] = ()
    unavailable_reason: str = ""

    @property
    def free(self) -> int:
        """GPUs that new pods can request now."""
        return 0 if self.unavailable_reason else max(0, self.allocatable - self.requested)


def cluster_nodes(
    nodes: Iterable[KubernetesObject],
    pods: Iterable[KubernetesObject],
    names: Mapping[str, tuple[str, ...]] = RESOURCE_NAMES,
) -> tuple[ClusterNode, ...]:
    """From the API's documents, sorted by name; `names`: the vendors' resource names."""
    known = {resource: vendor for vendor, resources in names.items() for resource in resources}
    requested = _requests_by_node(pods)
    found = []
    for node in nodes:
        name = node["metadata"]["name"]
        allocatable = (node.get("status") or {}).get("allocatable") or {}
        for resource in allocatable.keys() & known.keys():
            count = parse_quantity(allocatable[resource])
            if count:
                found.append(_cluster_node(node, known[resource], resource, count, requested[name, resource]))
    return tuple(sorted(found, key=lambda each: (each.name, each.resource)))


def parse_quantity(text: object) -> int:
    """The quantity of an extended resource: an integer, possibly with the suffix k."""
    quantity = str(text)
    return int(quantity[:-1]) * 1000 if quantity.endswith("k") else int(quantity)


def pod_requests(pod: KubernetesObject) -> dict[str, int]:
    """Requested extended resources by name: the containers' sum, or an init container's if that is more
    (https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers)."""
    spec = pod["spec"]
    total: dict[str, int] = defaultdict(int)
    init: dict[str, int] = defaultdict(int)
    for container in spec.get("initContainers") or ():
        is_sidecar = container.get("restartPolicy") == "Always"
        for resource, count in _extended_resources(container):
            if is_sidecar:
                total[resource] += count
            init[resource] = max(init[resource], count + (0 if is_sidecar else total[resource]))
    for container in spec.get("containers") or ():
        for resource, count in _extended_resources(container):
            total[resource] += count
    return {resource: max(total[resource], init[resource]) for resource in total.keys() | init.keys()}


def _extended_resources(container: KubernetesObject) -> Iterator[tuple[str, int]]:
    """For extended resources, limits equal requests."""
    limits = (container.get("resources") or {}).get("limits") or {}
    return ((resource, parse_quantity(count)) for resource, count in limits.items() if "/" in resource)


def _requests_by_node(pods: Iterable[KubernetesObject]) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = defaultdict(int)
    for pod in pods:
        node = pod["spec"].get("nodeName")
        if node and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            for resource, count in pod_requests(pod).items():
                found[node, resource] += count
    return found


def _cluster_node(node: KubernetesObject, vendor: str, resource: str, count: int, requested: int) -> ClusterNode:
    labels = node["metadata"].get("labels") or {}
    product_label = next((label for label in PRODUCT_LABELS.get(vendor, ()) if labels.get(label)), "")
    product = labels.get(product_label, "")
    product_type = parse_gpu_type(product) if product else None
    memory_label = next((label for label in MEMORY_LABELS.get(vendor, ()) if labels.get(label, "").isdigit()), "")
    memory_mib = int(labels[memory_label]) if memory_label else None
    taints = tuple(
        Taint(each["key"], each.get("value") or "", each["effect"])
        for each in (node.get("spec") or {}).get("taints") or ()
        if each["effect"] != "PreferNoSchedule"
    )
    gpu_type = product_type.name if product_type else ""
    return ClusterNode(
        name=node["metadata"]["name"],
        vendor=vendor,
        resource=resource,
        allocatable=count,
        requested=requested,
        gpu_type=gpu_type,
        product_label=product_label,
        product=product,
        memory_gb=_memory_gb(gpu_type, memory_mib, product_type.memory_gb if product_type else None),
        memory_label=memory_label,
        memory_mib=memory_mib,
        taints=taints,
        unavailable_reason=_unavailable_reason(node, product),
    )


def _memory_gb(gpu_type: str, memory_mib: int | None, product_gb: float | None) -> float | None:
    if memory_mib is not None:
        return nominal_gb(gpu_type, memory_mib * MIB)
    sizes = GPU_MEMORY_GIB.get(gpu_type, ())
    return product_gb if product_gb is not None else float(sizes[0]) if len(sizes) == 1 else None


def _unavailable_reason(node: KubernetesObject, product: str) -> str:
    if (node.get("spec") or {}).get("unschedulable"):
        return "cordoned"
    ready = [each for each in (node.get("status") or {}).get("conditions") or () if each["type"] == "Ready"]
    if not ready or ready[0]["status"] != "True":
        return "not ready"
    if any(part in product for part in PARTIAL_GPU_SUFFIXES):
        return f"its devices are parts of GPUs ({product})"
    return ""
