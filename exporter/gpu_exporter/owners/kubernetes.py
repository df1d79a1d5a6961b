"""Pods, from the cgroups that the kubelet creates with its two cgroup drivers and all runtimes.

    cgroupfs  kubepods/burstable/pod<uid>/<container id>
    systemd   kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid, _ for ->.slice/<runtime>-<id>.scope
    v1 with a misconfigured systemd driver     <anything>/kubepods-burstable-pod<uid>.slice:cri-containerd:<id>

Guaranteed pods are directly under kubepods. The runtime is cri-containerd, crio or docker (cri-dockerd).
Sources: the kubelet's cgroup manager (pkg/kubelet/cm), the runtimes' documentation of scope names.
"""

from __future__ import annotations

import re

from gpu_exporter.owners.base import Owner, OwnerKind
from gpu_exporter.owners.container import parse_container_id

#: A UUID, or for static pods a hash of the manifest. Slice names have _ for -, which would mean a child slice.
_UID = r"(?P<uid>[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})"
# The prefix is the kubelet's --cgroup-root. A bare pod<uid> without kubepods occurs if our own cgroup is a sibling: the
# kernel shows paths relative to ours.
_POD = re.compile(
    rf"(?:.*-)?kubepods(?:-besteffort|-burstable)?-pod{_UID}\.slice(?::[a-z-]+:(?P<id>[0-9a-f]{{64}}))?"
    rf"|pod{_UID.replace('<uid>', '<bare>')}"
)


def parse(path: tuple[str, ...]) -> Owner | None:
    """The pod, and the container in it, of a cgroup path."""
    for i, name in enumerate(path):
        if match := _POD.fullmatch(name):
            uid = (match["uid"] or match["bare"]).replace("_", "-")
            # The first match: containers within the container (a child cgroup of CRI-O, Docker in Docker) are deeper.
            found = match["id"] or next(filter(None, map(parse_container_id, path[i + 1 :])), "")
            return Owner(OwnerKind.KUBERNETES, pod_uid=uid, container_id=found)
    return None
