"""A request's fit as a patch for a pod, and a user's Job with that patch in it. Pure.

The patch is one that Kubernetes merges by name ("strategic"): `kubectl patch --local`, kustomize and the client take
it as it is. The user's own affinity and tolerations stay in force.
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
#: The client token, hashed: a label's value is short, and a token may be anything.
TOKEN_LABEL = "gpu-advisor.io/allocation"
#: What was submitted with the token, so that the same token with another Job is noticed.
CONTENT_ANNOTATION = "gpu-advisor.io/content"
#: https://kueue.sigs.k8s.io/docs/tasks/run/jobs/
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
MAX_NAME_LENGTH = 63


def pod_patch(fit: PodPlan, container: str, tolerations: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """For the pod template: what the container may use, where the pod may run.

    Extended resources are said as limits, which are their requests too
    (https://kubernetes.io/docs/tasks/manage-gpus/scheduling-gpus/). Nodes are often tainted with the resource's name.
    """
    taint = {"key": fit.resource, "operator": "Exists", "effect": "NoSchedule"}
    spec: dict[str, Any] = {
        "containers": [{"name": container, "resources": {"limits": {fit.resource: str(fit.gpus_per_pod)}}}],
        "tolerations": [taint, *(dict(each) for each in tolerations)],
    }
    if fit.terms:
        spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": _match_expressions(term)} for term in fit.terms]}}}  # fmt: skip
    return {"metadata": {"labels": dict(MANAGED_BY)}, "spec": spec}


def job(
    template: Mapping[str, Any], fit: PodPlan, name: str, token: str, content: str, *, container: str = "",
    queue: str = "", tolerations: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:  # fmt: skip
    """The user's Job with the patch in it, under a name of its own. Raises InvalidJobError."""
    found: dict[str, Any] = copy.deepcopy(dict(template))
    kind = (found.get("apiVersion"), found.get("kind"))
    if kind != ("batch/v1", "Job"):
        raise InvalidJobError(f"apiVersion and kind are {kind[0]} and {kind[1]}: give a Job of batch/v1")
    metadata, spec = found.setdefault("metadata", {}), found.setdefault("spec", {})
    pod = spec.setdefault("template", {})
    _merge_pod(pod, pod_patch(fit, container or single_container_name(found), tolerations))
    if fit.pods > 1:
        for field, value in (("parallelism", fit.pods), ("completions", fit.pods), ("completionMode", "Indexed")):
            if spec.setdefault(field, value) != value:
                raise InvalidJobError(f"spec.{field} is {spec[field]}, the request needs {value}: leave it out")
    labels = {**MANAGED_BY, TOKEN_LABEL: token_label(token)}
    pod["metadata"]["labels"] |= labels
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels} | ({QUEUE_LABEL: queue} if queue else {})
    metadata["annotations"] = {**(metadata.get("annotations") or {}), CONTENT_ANNOTATION: content}
    metadata.pop("generateName", None)
    metadata["name"] = name
    return found


def submitted_job_name(template: Mapping[str, Any], token: str) -> str:
    """The template's name, and an end that is the token's."""
    metadata = template.get("metadata") or {}
    base = str(metadata.get("generateName") or metadata.get("name") or "gpu-job")
    return f"{base[: MAX_NAME_LENGTH - 11].rstrip('-.')}-{token_label(token)[:10]}"


def content(template: Mapping[str, Any], request: GpuRequest, *rest: object) -> str:
    """Tells one submission from another; the cluster's nodes, which come and go, have no part in it."""
    serialized = json.dumps([template, asdict(request), rest], sort_keys=True, default=str)
    return hashlib.sha256(serialized.encode()).hexdigest()


def token_label(token: str) -> str:
    """The same for the same token; fits into a label."""
    return hashlib.sha256(token.encode()).hexdigest()[:40]


def single_container_name(document: Mapping[str, Any]) -> str:
    """The name of a Job's one container. Raises InvalidJobError."""
    containers = document["spec"].get("template", {}).get("spec", {}).get("containers") or []
    names = [each.get("name", "") for each in containers]
    if len(names) != 1:
        raise InvalidJobError(f"it has {len(names)} containers ({', '.join(names)}): say which one gets the GPUs")
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
        raise InvalidJobError(f"it has no container {theirs['name']!r}: say which one gets the GPUs")
    if "affinity" in wanted:
        _merge_affinity(spec, wanted["affinity"]["nodeAffinity"])


def _merge_limits(container: dict[str, Any], limits: Mapping[str, str]) -> None:
    resources = container.setdefault("resources", {})
    for part in ("limits", "requests"):
        for resource, count in limits.items():
            said = (resources.get(part) or {}).get(resource)
            if said is not None and str(said) != count:
                raise InvalidJobError(
                    f"container {container['name']!r} has {resource}: {said} in its {part}, the request needs {count}: "
                    "leave it out of the Job"
                )
    resources["limits"] = {**(resources.get("limits") or {}), **limits}


def _merge_affinity(spec: dict[str, Any], ours: Mapping[str, Any]) -> None:
    """Terms are alternatives, and what stands within one holds together: so each of theirs with each of ours."""
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
