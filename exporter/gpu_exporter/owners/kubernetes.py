"""Pods: the control groups that the kubelet makes, by either of its two drivers and under every runtime.

    cgroupfs  kubepods/burstable/pod<uid>/<container id>
    systemd   kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid, _ for ->.slice/<runtime>-<id>.scope
    v1 with the systemd driver wrongly set up     <anything>/kubepods-burstable-pod<uid>.slice:cri-containerd:<id>

Guaranteed pods lie directly under kubepods. The runtime is cri-containerd, crio or docker (cri-dockerd).
Sources: the kubelet's cgroup manager (pkg/kubelet/cm), the runtimes' documentation of their scopes' names.
"""

from __future__ import annotations

import re

from gpu_exporter.owners.base import Owner, OwnerKind
from gpu_exporter.owners.container import container_id

#: A uid is a UUID; that of a static pod is a hash of its manifest. In a slice's name, - would mean a child.
_UID = r"(?P<uid>[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})"
# The prefix is the kubelet's --cgroup-root. A bare pod<uid> comes without its kubepods where our own control group
# is a sibling: the kernel then shows the path relative to ours.
_POD = re.compile(
    rf"(?:.*-)?kubepods(?:-besteffort|-burstable)?-pod{_UID}\.slice(?::[a-z-]+:(?P<id>[0-9a-f]{{64}}))?"
    rf"|pod{_UID.replace('<uid>', '<bare>')}"
)


def parse(path: tuple[str, ...]) -> Owner | None:
    for i, name in enumerate(path):
        if match := _POD.fullmatch(name):
            uid = (match["uid"] or match["bare"]).replace("_", "-")
            # What a container makes inside itself (CRI-O's own child, Docker in Docker) is deeper: the first one is it.
            found = match["id"] or next(filter(None, map(container_id, path[i + 1 :])), "")
            return Owner(OwnerKind.KUBERNETES, pod_uid=uid, container_id=found)
    return None
