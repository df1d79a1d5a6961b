"""The pods that have a cgroup on this node: those that have not ended.

The kubelet up to 1.33 goes on listing the devices of pods that have completed or failed, until they are deleted
(kubernetes/kubernetes#119423), although it gives these devices to other pods. It removes the cgroup of such a pod.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from gpu_exporter.owners import kubernetes

#: How often the kubelet's own cgroup is searched for.
SEARCH_SECONDS = 60.0
#: That cgroup is at the top, or below the one that --cgroup-root names.
_MAX_SEARCH_DEPTH = 3
_ROOT = re.compile(r"kubepods|(?:.+-)?kubepods\.slice")
#: Classes of service, which have a cgroup each; guaranteed pods have none.
_CLASS = re.compile(r"burstable|besteffort|(?:.+-)?kubepods-(?:burstable|besteffort)\.slice")


class PodCgroups:
    """Lists the pods that have a cgroup. Not thread-safe."""

    def __init__(self, sysfs: Path) -> None:
        mount = f"{sysfs}/fs/cgroup"
        # v2 alone, v2 beside v1, and a hierarchy of v1: each of them has all pods.
        self._mounts = (mount, f"{mount}/unified", f"{mount}/memory")
        self._root = ""
        self._searched_at: float | None = None

    def uids(self, now: float) -> frozenset[str] | None:
        """The uids of all pods; None if the kubelet's cgroup is not visible. `now` is monotonic seconds."""
        if self._searched_at is None or now - self._searched_at >= SEARCH_SECONDS:
            self._searched_at = now
            self._root = next((root for mount in self._mounts for root in _find_roots(mount, _MAX_SEARCH_DEPTH)), "")
        names = _folders(self._root) if self._root else None
        if names is None:
            return None
        for name in list(names):
            if _CLASS.fullmatch(name):
                names += _folders(f"{self._root}/{name}") or []
        owners = (kubernetes.parse((name,)) for name in names)
        return frozenset(owner.pod_uid for owner in owners if owner)


def _find_roots(folder: str, depth: int) -> Iterator[str]:
    """The kubelet's cgroups, the outermost first."""
    names = _folders(folder) or []
    yield from (f"{folder}/{name}" for name in names if _ROOT.fullmatch(name))
    if depth > 1:
        for name in names:
            yield from _find_roots(f"{folder}/{name}", depth - 1)


def _folders(folder: str) -> list[str] | None:
    """The names of the folders in it; None if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return None
