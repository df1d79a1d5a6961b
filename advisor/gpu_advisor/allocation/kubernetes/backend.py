"""GPUs on a cluster: what is there, what a pod must say to get some, and the user's Job submitted with it.

Kubernetes schedules. Nothing is held by pods of ours, and no node is chosen here: a request becomes a patch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gpu_advisor.allocation.gpu_request import GpuRequest
from gpu_advisor.allocation.kubernetes import manifest
from gpu_advisor.allocation.kubernetes.client import KubernetesClient, connect
from gpu_advisor.allocation.kubernetes.cluster_nodes import ClusterNode, cluster_nodes
from gpu_advisor.allocation.kubernetes.errors import (
    ApiUnavailableError,
    JobConflictError,
    NotFoundError,
    NotManagedError,
    ResourceExpiredError,
)
from gpu_advisor.allocation.kubernetes.pod_plan import PodPlan, fit
from gpu_advisor.hardware.gpu_types import RESOURCE_NAMES

#: So often in a row may a watch break off, or be told that it is too old, before that is an error.
MAX_WATCH_FAILURES = 3
#: A watch is begun anew after so long at most, with a look at the Job itself: one that hears nothing more is found out.
WATCH_SECONDS = 60.0
#: Between one watch and the next, which may end as soon as it begins.
WATCH_PAUSE_SECONDS = 0.5

Phase = Literal["waiting", "running", "succeeded", "failed", "gone"]


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """A Job of ours. `made` is False where the token had been used for it before."""

    namespace: str
    name: str
    uid: str
    token: str
    made: bool = True


@dataclass(frozen=True, slots=True)
class JobState:
    """`why` is the Job's own reason, where it gives one."""

    phase: Phase
    ready_pods: int
    why: str = ""

    @property
    def ended(self) -> bool:
        return self.phase in ("succeeded", "failed", "gone")


@dataclass(frozen=True, slots=True)
class KubernetesBackend:
    """Of one namespace. All methods raise ClusterError."""

    cluster: KubernetesClient
    namespace: str = "default"
    names: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: RESOURCE_NAMES)

    @classmethod
    def connect(cls, namespace: str = "default", context: str | None = None) -> KubernetesBackend:
        return cls(connect(context), namespace)

    def nodes(self) -> tuple[ClusterNode, ...]:
        """All nodes with GPUs; needs the right to list nodes and pods of all namespaces."""
        from kubernetes.client import CoreV1Api

        core = CoreV1Api(self.cluster.api)
        nodes = self.cluster.list_all("listing nodes", core.list_node)
        pods = self.cluster.list_all(
            "listing pods", core.list_pod_for_all_namespaces,
            field_selector="status.phase!=Succeeded,status.phase!=Failed",
        )  # fmt: skip
        return cluster_nodes(nodes, pods, self.names)

    def fit(self, request: GpuRequest) -> PodPlan:
        """Raises NoInventoryError and ImpossibleError too."""
        return fit(request, self.nodes())

    def patch(
        self, request: GpuRequest, container: str, tolerations: Sequence[Mapping[str, Any]] = ()
    ) -> dict[str, Any]:
        """For the template of the user's pod. Raises NoInventoryError and ImpossibleError too."""
        return manifest.pod_patch(self.fit(request), container, tolerations)

    def submit(
        self, request: GpuRequest, template: Mapping[str, Any], token: str, *, container: str = "", queue: str = "",
        tolerations: Sequence[Mapping[str, Any]] = (),
    ) -> SubmittedJob:  # fmt: skip
        """The user's Job with the patch in it. The same token again gives the same Job, whatever became of the cluster
        since; with another Job or request it is a JobConflictError. `queue` is a LocalQueue of Kueue."""
        from kubernetes.client import BatchV1Api

        name = manifest.submitted_job_name(template, token)
        content = manifest.content(template, request, container, queue, tolerations)
        try:
            return self._find_existing(name, token, content)
        except NotFoundError:
            body = manifest.job(
                template, self.fit(request), name, token, content,
                container=container, queue=queue, tolerations=tolerations,
            )  # fmt: skip
        try:
            made = self.cluster.read(
                f"submitting Job {self.namespace}/{name}",
                BatchV1Api(self.cluster.api).create_namespaced_job, self.namespace, body,
            )  # fmt: skip
        except JobConflictError:  # by another process with the same token, at the same moment
            return self._find_existing(name, token, content)
        return SubmittedJob(self.namespace, name, made["metadata"].get("uid", ""), token)

    def find(self, template: Mapping[str, Any], token: str) -> SubmittedJob | None:
        """What was submitted of this template with this token, if it is still there."""
        try:
            metadata = self._read(manifest.submitted_job_name(template, token))["metadata"]
        except NotFoundError:
            return None
        self._check_managed(metadata, token)
        return SubmittedJob(self.namespace, metadata["name"], metadata.get("uid", ""), token, made=False)

    def state(self, submission: SubmittedJob) -> JobState:
        try:
            return job_state(self._read(submission.name))
        except NotFoundError:
            return JobState("gone", 0, "deleted")

    def follow(self, submission: SubmittedJob, seconds: float) -> Iterator[JobState]:
        """Its states as they change, until it has ended or the time is over."""
        from kubernetes.client import BatchV1Api

        batch = BatchV1Api(self.cluster.api)
        until = time.monotonic() + seconds
        last, failures = None, 0
        while True:
            try:
                document = self._read(submission.name)
            except NotFoundError:
                yield JobState("gone", 0, "deleted")
                return
            seen = job_state(document)
            if seen != last:
                last = seen
                yield seen
            left = until - time.monotonic()
            if seen.ended or left <= 0:
                return
            try:
                for event in self.cluster.watch(
                    f"following Job {self.namespace}/{submission.name}", batch.list_namespaced_job, self.namespace,
                    seconds=min(left, WATCH_SECONDS), field_selector=f"metadata.name={submission.name}",
                    resource_version=document["metadata"].get("resourceVersion", ""),
                ):  # fmt: skip
                    failures = 0
                    if event["object"]["metadata"]["name"] != submission.name:
                        continue
                    seen = JobState("gone", 0, "deleted") if event["type"] == "DELETED" else job_state(event["object"])
                    if seen != last:
                        last = seen
                        yield seen
                    if seen.ended:
                        return
            except (ResourceExpiredError, ApiUnavailableError):
                failures += 1
                if failures >= MAX_WATCH_FAILURES:
                    raise
            time.sleep(min(WATCH_PAUSE_SECONDS, max(0.0, until - time.monotonic())))

    def release(self, submission: SubmittedJob) -> bool:
        """Deletes the Job and its pods, if it is the one that was submitted. False where it is gone already."""
        from kubernetes.client import BatchV1Api, V1DeleteOptions, V1Preconditions

        try:
            metadata = self._read(submission.name)["metadata"]
        except NotFoundError:
            return False
        self._check_managed(metadata, submission.token)
        if metadata.get("uid", "") != submission.uid:
            raise NotManagedError(
                f"Job {self.namespace}/{submission.name} is another one of the same name: it is left alone"
            )
        options = V1DeleteOptions(
            propagation_policy="Background", preconditions=V1Preconditions(uid=submission.uid or None)
        )
        try:
            self.cluster.read(
                f"deleting Job {self.namespace}/{submission.name}",
                BatchV1Api(self.cluster.api).delete_namespaced_job, submission.name, self.namespace, body=options,
            )  # fmt: skip
        except NotFoundError:
            return False
        return True

    def _find_existing(self, name: str, token: str, content: str) -> SubmittedJob:
        """What was submitted before under this name. Raises NotFoundError where nothing was."""
        metadata = self._read(name)["metadata"]
        self._check_managed(metadata, token)
        if (metadata.get("annotations") or {}).get(manifest.CONTENT_ANNOTATION) != content:
            raise JobConflictError(
                f"Job {self.namespace}/{name} was submitted with this token, but from another Job or request: take a "
                "new token for a new Job"
            )
        if metadata.get("deletionTimestamp"):
            raise JobConflictError(
                f"Job {self.namespace}/{name} of this token is being deleted: take a new token, or wait for its end"
            )
        return SubmittedJob(self.namespace, name, metadata.get("uid", ""), token, made=False)

    def _read(self, name: str) -> dict[str, Any]:
        from kubernetes.client import BatchV1Api

        method = BatchV1Api(self.cluster.api).read_namespaced_job
        return self.cluster.read(f"reading Job {self.namespace}/{name}", method, name, self.namespace)

    def _check_managed(self, metadata: Mapping[str, Any], token: str) -> None:
        if (metadata.get("labels") or {}).get(manifest.TOKEN_LABEL) != manifest.token_label(token):
            raise NotManagedError(
                f"Job {self.namespace}/{metadata['name']} was not submitted with this token: it is left alone"
            )


def job_state(job: Mapping[str, Any]) -> JobState:
    """From a Job's document; https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/#JobStatus."""
    status = job.get("status") or {}
    ready = int(status.get("ready") or 0)
    for condition in status.get("conditions") or ():
        if condition.get("status") == "True" and condition.get("type") in ("Complete", "Failed"):
            phase: Phase = "succeeded" if condition["type"] == "Complete" else "failed"
            return JobState(phase, ready, condition.get("message") or condition.get("reason") or "")
    if (job.get("spec") or {}).get("suspend"):
        return JobState("waiting", ready, "suspended: a queue has not admitted it yet, or somebody has stopped it")
    return JobState("running" if ready else "waiting", ready, "" if ready else "its pods are not ready yet")
