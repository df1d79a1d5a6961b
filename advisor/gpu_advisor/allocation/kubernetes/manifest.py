"""A pod plan as a pod patch, and the user's Job with that patch applied. Pure.

It is a strategic merge patch: `kubectl patch --local`, kustomize and the client accept it. The user's own affinity and
tolerations stay in effect.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gpu_advisor.allocation.gpu_request import GpuRequest
from gpu_advisor.allocation.kubernetes.errors import InvalidJobError
from gpu_advisor.allocation.kubernetes.pod_plan import NodeSelectorTerm, PodPlan

MANAGED_BY = {"app.kubernetes.io/managed-by": "gpu-advisor"}
#: Label with the hash of the client token: label values are short, and a token may be any text.
TOKEN_LABEL = "gpu-advisor.io/allocation"
#: Annotation with the hash of the submission, to detect the same token with another Job.
CONTENT_ANNOTATION = "gpu-advisor.io/content"
#: https://kueue.sigs.k8s.io/docs/tasks/run/jobs/
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
MAX_NAME_LENGTH = 63


def pod_patch(plan: PodPlan, container: str, tolerations: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The patch for a pod template: the container's GPUs, and the nodes on which the pod may run.

    Extended resources are set as limits, which also are the requests
    (https://kubernetes.io/docs/tasks/manage-gpus/scheduling-gpus/). Nodes often have a taint with the resource's name.
    """
    taint = {"key": plan.resource, "operator": "Exists", "effect": "NoSchedule"}
    spec: dict[str, Any] = {
        "containers": [{"name": container, "resources": {"limits": {plan.resource: str(plan.gpus_per_pod)}}}],
        "tolerations": [taint, *(dict(each) for each in tolerations)],
    }
    if plan.terms:
        spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": _match_expressions(term)} for term in plan.terms]}}}  # fmt: skip
    return {"metadata": {"labels": dict(MANAGED_BY)}, "spec": spec}


def build_job(
    template: Mapping[str, Any], plan: PodPlan, name: str, token: str, content_hash: str, *, container: str = "",
    queue: str = "", tolerations: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:  # fmt: skip
    """The user's Job with the patch applied, under its own name. Raises InvalidJobError."""
    job: dict[str, Any] = copy.deepcopy(dict(template))
    kind = (job.get("apiVersion"), job.get("kind"))
    if kind != ("batch/v1", "Job"):
        raise InvalidJobError(f"apiVersion and kind are {kind[0]} and {kind[1]}: must be batch/v1 and Job")
    metadata, spec = job.setdefault("metadata", {}), job.setdefault("spec", {})
    pod = spec.setdefault("template", {})
    _merge_pod(pod, pod_patch(plan, container or single_container_name(job), tolerations))
    if plan.pods > 1:
        for field, value in (("parallelism", plan.pods), ("completions", plan.pods), ("completionMode", "Indexed")):
            if spec.setdefault(field, value) != value:
                raise InvalidJobError(f"spec.{field} is {spec[field]}, the request needs {value}: remove it")
    labels = {**MANAGED_BY, TOKEN_LABEL: token_label(token)}
    pod["metadata"]["labels"] |= labels
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels} | ({QUEUE_LABEL: queue} if queue else {})
    metadata["annotations"] = {**(metadata.get("annotations") or {}), CONTENT_ANNOTATION: content_hash}
    metadata.pop("generateName", None)
    metadata["name"] = name
    return job


def submitted_job_name(template: Mapping[str, Any], token: str) -> str:
    """The template's name with a suffix from the token."""
    metadata = template.get("metadata") or {}
    base = str(metadata.get("generateName") or metadata.get("name") or "gpu-job")
    return f"{base[: MAX_NAME_LENGTH - 11].rstrip('-.')}-{token_label(token)[:10]}"


def content_hash(template: Mapping[str, Any], request: GpuRequest, *rest: object) -> str:
    """Hash of a submission, independent of the cluster's current nodes."""
    serialized = json.dumps([template, asdict(request), rest], sort_keys=True, default=str)
    return hashlib.sha256(serialized.encode()).hexdigest()


def token_label(token: str) -> str:
    """Hash of a token, short enough for a label value."""
    return hashlib.sha256(token.encode()).hexdigest()[:40]


def single_container_name(document: Mapping[str, Any]) -> str:
    """The name of a Job's one container. Raises InvalidJobError."""
    containers = document["spec"].get("template", {}).get("spec", {}).get("containers") or []
    names = [each.get("name", "") for each in containers]
    if len(names) != 1:
        raise InvalidJobError(f"the Job has {len(names)} containers ({', '.join(names)}): name the one for the GPUs")
    return str(names[0])


def _match_expressions(term: NodeSelectorTerm) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"key": term.label, "operator": "In", "values": list(term.products)}]
    if term.above_mib is not None:
        found.append({"key": term.memory_label, "operator": "Gt", "values": [str(term.above_mib)]})
    return found


def _merge_pod(pod: dict[str, Any], patch: Mapping[str, Any]) -> None:
    metadata = pod.setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), **patch["metadata"]["labels"]}
    spec, wanted = pod.setdefault("spec", {}), patch["spec"]
    own = spec.get("tolerations") or []
    spec["tolerations"] = own + [each for each in wanted["tolerations"] if each not in own]
    (theirs,) = wanted["containers"]
    for container in spec.get("containers") or ():
        if container.get("name") == theirs["name"]:
            _merge_limits(container, theirs["resources"]["limits"])
            break
    else:
        raise InvalidJobError(f"the Job has no container {theirs['name']!r}: name the one for the GPUs")
    if "affinity" in wanted:
        _merge_affinity(spec, wanted["affinity"]["nodeAffinity"])


def _merge_limits(container: dict[str, Any], limits: Mapping[str, str]) -> None:
    resources = container.setdefault("resources", {})
    for part in ("limits", "requests"):
        for resource, count in limits.items():
            value = (resources.get(part) or {}).get(resource)
            if value is not None and str(value) != count:
                raise InvalidJobError(
                    f"container {container['name']!r} has {resource}: {value} in its {part}, but the request needs "
                    f"{count}: remove it from the Job"
                )
    resources["limits"] = {**(resources.get("limits") or {}), **limits}


def _merge_affinity(spec: dict[str, Any], ours: Mapping[str, Any]) -> None:
    """Terms are ORed, expressions within a term are ANDed: so combine each of their terms with each of ours."""
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    affinity = spec["affinity"] = dict(spec.get("affinity") or {})
    node = affinity["nodeAffinity"] = dict(affinity.get("nodeAffinity") or {})
    theirs = (node.get(required) or {}).get("nodeSelectorTerms") or [{}]
    node[required] = {
        "nodeSelectorTerms": [
            {**their, "matchExpressions": (their.get("matchExpressions") or []) + term["matchExpressions"]}
            for their in theirs
            for term in ours[required]["nodeSelectorTerms"]
        ]
    }
