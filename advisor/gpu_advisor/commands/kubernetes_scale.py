"""Reads and sets a Kubernetes workload's replicas through its scale subresource (extra: kubernetes)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from gpu_advisor.extras import install_hint

TIMEOUT_SECONDS = 10

#: Kind on the command line -> kind in the client's method names.
CLIENT_METHOD_KINDS = {
    "deployment": "deployment",
    "deploy": "deployment",
    "statefulset": "stateful_set",
    "sts": "stateful_set",
}

_HINTS = {
    401: "the kubeconfig's credentials are not accepted: renew them",
    403: "allow `get` and `patch` on {kind}s/scale in {namespace} (see examples/autoscaling/apply-cronjob.yaml)",
    404: "no such {kind} in namespace {namespace}: check --workload and --namespace",
    409: "it was changed concurrently: try again",
}


class KubernetesScaleError(Exception):
    """The workload cannot be read or scaled. The message says how to fix it."""


@dataclass(frozen=True, slots=True)
class ReplicaScale:
    """A workload's replicas, and its resourceVersion."""

    replicas: int
    version: str


class KubernetesWorkload:
    def __init__(self, api: Any, kind: str, name: str, namespace: str) -> None:
        self._api, self._kind, self._name, self._namespace = api, kind, name, namespace

    @classmethod
    def connect(cls, workload: str, namespace: str, context: str | None) -> KubernetesWorkload:
        """`workload` is KIND/NAME. Raises KubernetesScaleError."""
        kind, _, name = workload.partition("/")
        if kind not in CLIENT_METHOD_KINDS or not name:
            raise KubernetesScaleError(
                f"--workload: {workload!r} is not KIND/NAME; kinds are {', '.join(CLIENT_METHOD_KINDS)}"
            )
        try:
            from kubernetes import client
            from kubernetes import config as kubernetes_config
        except ImportError as error:
            raise KubernetesScaleError(f"--apply needs the Kubernetes client: {install_hint('kubernetes')}") from error
        config: Any = kubernetes_config  # untyped
        file = os.environ.get("KUBECONFIG", "")
        try:
            # Not load_config: it prints, and reads KUBECONFIG at import.
            if os.environ.get("KUBERNETES_SERVICE_HOST") and not file and not context:
                config.load_incluster_config()
            else:
                config.load_kube_config(config_file=file or "~/.kube/config", context=context)
        except (config.ConfigException, OSError, TypeError) as error:
            raise KubernetesScaleError(
                f"no Kubernetes configuration ({error}): check KUBECONFIG and --context"
            ) from error
        return cls(client.AppsV1Api(), CLIENT_METHOD_KINDS[kind], name, namespace)

    def read(self) -> ReplicaScale:
        scale = self._call("read")
        return ReplicaScale(scale.spec.replicas or 0, scale.metadata.resource_version)

    def resize(self, read_scale: ReplicaScale, replicas: int) -> None:
        """Set the replicas, unless the workload changed since it was read. Raises KubernetesScaleError."""
        body = {"metadata": {"resourceVersion": read_scale.version}, "spec": {"replicas": replicas}}
        self._call("patch", body)

    def _call(self, verb: str, *arguments: object) -> Any:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            method = getattr(self._api, f"{verb}_namespaced_{self._kind}_scale")
            return method(self._name, self._namespace, *arguments, _request_timeout=TIMEOUT_SECONDS)
        except ApiException as error:
            kind = self._kind.replace("_", "")
            hint = _HINTS.get(error.status, "see the events of the cluster's API server")
            words = hint.format(kind=kind, namespace=self._namespace)
            raise KubernetesScaleError(
                f"{self._namespace}/{kind}/{self._name}: {error.status} {error.reason}: {words}"
            ) from error
        except (HTTPError, OSError) as error:
            raise KubernetesScaleError(
                f"the Kubernetes API is unreachable ({error}): check KUBECONFIG and --context"
            ) from error
