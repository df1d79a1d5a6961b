"""The pod that uses a GPU, from the labels that other exporters add to its series. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

#: Where the pod is: Prometheus renames labels that a target has itself (`honor_labels: false`).
POD_LABELS = (("exported_namespace", "exported_pod", "exported_container"), ("namespace", "pod", "container"))


class Workload(NamedTuple):
    namespace: str
    pod: str
    container: str
    uid: str = ""  # where the exporter shows it: pods of one name follow each other


def workload(labels: Mapping[str, str], own_pods: Collection[str]) -> Workload | None:
    """The pod that a series names. `own_pods` are those that its target was: the label `pod` may be the exporter's."""
    for namespace, pod, container in POD_LABELS:
        if labels.get(pod) and not (pod == "pod" and labels[pod] in own_pods):
            uid = labels.get("exported_pod_uid", "") if pod == "exported_pod" else ""
            return Workload(
                labels.get(namespace, ""), labels[pod], labels.get(container, ""), uid or labels.get("pod_uid", "")
            )
    return None


def is_ambiguous(labels: Mapping[str, str]) -> bool:
    """Whether only the labels of its target show whose pod a series names."""
    return bool(labels.get("pod")) and not labels.get("exported_pod")
