"""GPUs on a Kubernetes cluster: inventory, the pod patch for a request, and submission of the user's Job with it.

Kubernetes schedules: a request becomes a patch, which selects no single node and reserves nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gpu_advisor.allocation.gpu_request import GpuRequest
from gpu_advisor.allocation.kubernetes import manifest
from gpu_advisor.allocation.kubernetes.client import KubernetesClient, connect_cluster
from gpu_advisor.allocation.kubernetes.cluster_nodes import ClusterNode, cluster_nodes
from gpu_advisor.allocation.kubernetes.errors import (
    ApiUnavailableError,
    JobConflictError,
    NotFoundError,
    NotManagedError,
    ResourceExpiredError,
)
from gpu_advisor.allocation.kubernetes.pod_plan import PodPlan, build_pod_plan
from gpu_advisor.hardware.gpu_types import RESOURCE_NAMES

#: Consecutive failures of a watch (connection lost, resource version expired) before an error.
MAX_WATCH_FAILURES = 3
#: Maximum duration of a watch; then the Job is read again, in case the watch has silently stopped.
WATCH_SECONDS = 60.0
#: Pause between two watches: a watch may end at once.
WATCH_PAUSE_SECONDS = 0.5

Phase = Literal["waiting", "running", "succeeded", "failed", "gone"]


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """A submitted Job. `created` is False if an earlier call with the token had submitted it."""

    namespace: str
    name: str
    uid: str
    token: str
    created: bool = True


@dataclass(frozen=True, slots=True)
class JobState:
    """`why`: the Job's own reason, if it has one."""

    phase: Phase
    ready_pods: int
    why: str = ""

    @property
    def ended(self) -> bool:
        return self.phase in ("succeeded", "failed", "gone")


@dataclass(frozen=True, slots=True)
class KubernetesBackend:
    """One namespace of a cluster. Methods raise ClusterError."""

    cluster: KubernetesClient
    namespace: str = "default"
    names: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: RESOURCE_NAMES)

    @classmethod
    def connect(cls, namespace: str = "default", context: str | None = None) -> KubernetesBackend:
        return cls(connect_cluster(context), namespace)

    def nodes(self) -> tuple[ClusterNode, ...]:
        """All nodes with GPUs; needs permission to list nodes, and pods in all namespaces."""
        from kubernetes.client import CoreV1Api

        core = CoreV1Api(self.cluster.api)
        nodes = self.cluster.list_all("listing nodes", core.list_node)
        pods = self.cluster.list_all(
            "listing pods", core.list_pod_for_all_namespaces,
            field_selector="status.phase!=Succeeded,status.phase!=Failed",
        )  # fmt: skip
        return cluster_nodes(nodes, pods, self.names)

    def plan(self, request: GpuRequest) -> PodPlan:
        """Pods for a request. Also raises NoInventoryError and UnsatisfiableRequestError."""
        return build_pod_plan(request, self.nodes())

    def patch(
        self, request: GpuRequest, container: str, tolerations: Sequence[Mapping[str, Any]] = ()
    ) -> dict[str, Any]:
        """The patch for the user's pod template. Also raises NoInventoryError and UnsatisfiableRequestError."""
        return manifest.pod_patch(self.plan(request), container, tolerations)

    def submit(
        self, request: GpuRequest, template: Mapping[str, Any], token: str, *, container: str = "", queue: str = "",
        tolerations: Sequence[Mapping[str, Any]] = (),
    ) -> SubmittedJob:  # fmt: skip
        """Submit the user's Job with the patch applied. Idempotent by token: the same token returns the same Job, and
        raises JobConflictError with another Job or request. `queue`: a LocalQueue of Kueue."""
        from kubernetes.client import BatchV1Api

        name = manifest.submitted_job_name(template, token)
        content_hash = manifest.content_hash(template, request, container, queue, tolerations)
        try:
            return self._find_existing(name, token, content_hash)
        except NotFoundError:
            body = manifest.build_job(
                template, self.plan(request), name, token, content_hash,
                container=container, queue=queue, tolerations=tolerations,
            )  # fmt: skip
        try:
            created = self.cluster.call_json(
                f"submitting Job {self.namespace}/{name}",
                BatchV1Api(self.cluster.api).create_namespaced_job, self.namespace, body,
            )  # fmt: skip
        except JobConflictError:  # a race with another process that uses the same token
            return self._find_existing(name, token, content_hash)
        return SubmittedJob(self.namespace, name, created["metadata"].get("uid", ""), token)

    def find(self, template: Mapping[str, Any], token: str) -> SubmittedJob | None:
        """The Job submitted from this template with this token, if it still exists."""
        try:
            metadata = self._read(manifest.submitted_job_name(template, token))["metadata"]
        except NotFoundError:
            return None
        self._check_managed(metadata, token)
        return SubmittedJob(self.namespace, metadata["name"], metadata.get("uid", ""), token, created=False)

    def state(self, submission: SubmittedJob) -> JobState:
        try:
            return job_state(self._read(submission.name))
        except NotFoundError:
            return JobState("gone", 0, "deleted")

    def follow(self, submission: SubmittedJob, seconds: float) -> Iterator[JobState]:
        """Yield each new state, until the Job has ended or `seconds` have passed."""
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
            state = job_state(document)
            if state != last:
                last = state
                yield state
            left = until - time.monotonic()
            if state.ended or left <= 0:
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
                    state = JobState("gone", 0, "deleted") if event["type"] == "DELETED" else job_state(event["object"])
                    if state != last:
                        last = state
                        yield state
                    if state.ended:
                        return
            except (ResourceExpiredError, ApiUnavailableError):
                failures += 1
                if failures >= MAX_WATCH_FAILURES:
                    raise
            time.sleep(min(WATCH_PAUSE_SECONDS, max(0.0, until - time.monotonic())))

    def release(self, submission: SubmittedJob) -> bool:
        """Delete the submitted Job and its pods. False if it no longer exists."""
        from kubernetes.client import BatchV1Api, V1DeleteOptions, V1Preconditions

        try:
            metadata = self._read(submission.name)["metadata"]
        except NotFoundError:
            return False
        self._check_managed(metadata, submission.token)
        if metadata.get("uid", "") != submission.uid:
            raise NotManagedError(
                f"Job {self.namespace}/{submission.name} is another Job with the same name: not deleted"
            )
        options = V1DeleteOptions(
            propagation_policy="Background", preconditions=V1Preconditions(uid=submission.uid or None)
        )
        try:
            self.cluster.call_json(
                f"deleting Job {self.namespace}/{submission.name}",
                BatchV1Api(self.cluster.api).delete_namespaced_job, submission.name, self.namespace, body=options,
            )  # fmt: skip
        except NotFoundError:
            return False
        return True

    def _find_existing(self, name: str, token: str, content_hash: str) -> SubmittedJob:
        """The Job submitted earlier with this token. Raises NotFoundError if there is none."""
        metadata = self._read(name)["metadata"]
        self._check_managed(metadata, token)
        if (metadata.get("annotations") or {}).get(manifest.CONTENT_ANNOTATION) != content_hash:
            raise JobConflictError(
                f"Job {self.namespace}/{name} was submitted with this token, but from another Job or request: use a "
                "new token for a new Job"
            )
        if metadata.get("deletionTimestamp"):
            raise JobConflictError(
                f"Job {self.namespace}/{name} with this token is being deleted: use a new token, or wait until it is"
            )
        return SubmittedJob(self.namespace, name, metadata.get("uid", ""), token, created=False)

    def _read(self, name: str) -> dict[str, Any]:
        from kubernetes.client import BatchV1Api

        method = BatchV1Api(self.cluster.api).read_namespaced_job
        return self.cluster.call_json(f"reading Job {self.namespace}/{name}", method, name, self.namespace)

    def _check_managed(self, metadata: Mapping[str, Any], token: str) -> None:
        if (metadata.get("labels") or {}).get(manifest.TOKEN_LABEL) != manifest.token_label(token):
            raise NotManagedError(
                f"Job {self.namespace}/{metadata['name']} was not submitted with this token: not changed"
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
        return JobState("waiting", ready, "suspended: not yet admitted by a queue, or suspended by a user")
    return JobState("running" if ready else "waiting", ready, "" if ready else "its pods are not ready yet")
