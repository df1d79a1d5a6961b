"""An emulated API server of Kubernetes (kmock) in a thread of its own, and documents to fill it with."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gpu_advisor.allocation.kubernetes.client import KubernetesClient

WITHIN_SECONDS = 30


@contextmanager
def kubernetes_emulator() -> Iterator[tuple[Any, KubernetesClient]]:
    """The server's handler and the cluster to reach it by. Pods and Jobs are kept by it; nodes are those given."""
    import kmock  # needs Python 3.11
    from kubernetes import client

    loop = asyncio.new_event_loop()
    handler = kmock.KubernetesEmulator()
    started, over = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with handler, kmock.Server(handler):
            started.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(WITHIN_SECONDS)
    settings = client.Configuration()
    settings.host = str(handler.url).rstrip("/")
    settings.retries = False
    handler.resources["v1/pods"] = kmock.ResourceInfo(namespaced=True, kind="Pod")
    handler.resources["batch/v1/jobs"] = kmock.ResourceInfo(namespaced=True, kind="Job")
    try:
        yield handler, KubernetesClient(client.ApiClient(settings), timeout_seconds=WITHIN_SECONDS)
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(WITHIN_SECONDS)


def node(
    name: str, gpus: int, product: str = "NVIDIA-A100-SXM4-80GB", memory_mib: int | None = 81920, **more: Any
) -> Any:
    """`more`: labels, taints, ready, unschedulable, resource."""
    labels = {"nvidia.com/gpu.product": product, "nvidia.com/gpu.count": str(gpus)} if product else {}
    if memory_mib is not None:
        labels["nvidia.com/gpu.memory"] = str(memory_mib)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels | more.get("labels", {})},
        "spec": {"taints": more.get("taints", []), "unschedulable": more.get("unschedulable", False)},
        "status": {
            "allocatable": {"cpu": "8", more.get("resource", "nvidia.com/gpu"): str(gpus)},
            "conditions": [{"type": "Ready", "status": "True" if more.get("ready", True) else "Unknown"}],
        },
    }


def pod(name: str, node_name: str | None, gpus: int, phase: str = "Running", resource: str = "nvidia.com/gpu") -> Any:
    container = {"name": "main", "resources": {"limits": {resource: str(gpus), "cpu": "500m"}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [container]} | ({"nodeName": node_name} if node_name else {}),
        "status": {"phase": phase},
    }


def job_template(**spec: Any) -> Any:
    """A Job as users write them: valid, without a word on GPUs."""
    container = {"name": "train", "image": "registry.example/train:1", "command": ["python", "train.py"]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "train"},
        "spec": {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}} | spec,
    }
