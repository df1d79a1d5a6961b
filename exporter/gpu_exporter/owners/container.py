"""Containers outside Kubernetes: Docker, Podman, containerd, LXC.

Docker      docker/<id>, system.slice/docker-<id>.scope
Podman      machine.slice/libpod-<id>.scope, libpod_parent/libpod-<id>
containerd  <namespace>/<id>, system.slice/nerdctl-<id>.scope
LXC, Incus  lxc/<name>, lxc.payload.<name>, lxc.payload/<name>
"""

from __future__ import annotations

import re

from gpu_exporter.owners.base import Owner, OwnerKind

# conmon monitors a container of Podman or CRI-O from outside; its cgroup name contains the container's id.
_CONTAINER_ID = re.compile(r"(?:(?!.*conmon)[a-z][a-z0-9_.-]*-)?(?P<id>[0-9a-f]{64})(?:\.scope)?")
_LXC = re.compile(r"lxc\.payload\.(?P<name>.+)")


def parse_container_id(name: str) -> str:
    """The id (64 hexadecimal digits) in the name of a container's cgroup; empty if it is not one."""
    match = _CONTAINER_ID.fullmatch(name)
    return match["id"] if match else ""


def parse(path: tuple[str, ...]) -> Owner | None:
    """The outermost container of a cgroup path."""
    for i, name in enumerate(path):
        found = parse_container_id(name)
        if not found and (match := _LXC.fullmatch(name)):
            found = match["name"]
        if not found and name in ("lxc", "lxc.payload") and i + 1 < len(path):
            found = path[i + 1]
        if found:
            return Owner(OwnerKind.CONTAINER, container_id=found)
    return None
