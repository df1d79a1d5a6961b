"""Names of pods and containers, of which cgroup paths only have the uid and id.

Exact, if the kubelet's log folders can be listed (logs are never read): it creates
/var/log/pods/<namespace>_<pod>_<uid> and /var/log/containers/<pod>_<namespace>_<container>-<id>.log.

Otherwise by elimination: a pod whose processes run on certain GPUs is one that the kubelet has allocated all of them
to. This is unique if each GPU has one pod, or if pods that share a GPU differ in their other GPUs; ambiguous pods stay
unnamed. A pod that uses GPUs without an allocation (NVIDIA_VISIBLE_DEVICES=all) cannot be distinguished from an idle
pod that has one: make the log folders readable if there are such pods.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import NamedTuple

_POD_FOLDER = re.compile(r"(?P<namespace>[a-z0-9-]+)_(?P<pod>[a-z0-9.-]+)_(?P<uid>[0-9a-f-]{32,36})")
_CONTAINER_LOG = re.compile(
    r"(?P<pod>[a-z0-9.-]+)_(?P<namespace>[a-z0-9-]+)_(?P<container>[a-z0-9-]+)-(?P<id>[0-9a-f]{64})\.log"
)
#: Minimum interval between listings, which unknown ids trigger.
MIN_RELIST_SECONDS = 10.0


class Pod(NamedTuple):
    """Namespace and name of a pod."""

    namespace: str
    name: str


class Container(NamedTuple):
    """A container of a pod."""

    pod: Pod
    name: str


class PodLogIndex:
    """uid -> pod and id -> container, from the kubelet's log folders."""

    def __init__(self, log_folder: Path = Path("/var/log")) -> None:
        self._folder = log_folder
        self._listed_at: float | None = None
        self.pods: dict[str, Pod] = {}
        self.containers: dict[str, Container] = {}

    def refresh(self, pod_uids: Set[str], container_ids: Set[str], allocations: Set[Container], now: float) -> None:
        """List the folders if one of these is unknown. `now` is monotonic seconds. Raises PermissionError."""
        known = pod_uids <= self.pods.keys() and container_ids <= self.containers.keys()
        if known and allocations <= set(self.containers.values()):
            return
        if self._listed_at is not None and now - self._listed_at < MIN_RELIST_SECONDS:
            return
        self._listed_at = now
        found = [match for name in _list_entries(self._folder / "pods") if (match := _POD_FOLDER.fullmatch(name))]
        self.pods = {match["uid"]: Pod(match["namespace"], match["pod"]) for match in found}
        found = [
            match for name in _list_entries(self._folder / "containers") if (match := _CONTAINER_LOG.fullmatch(name))
        ]
        self.containers = {
            match["id"]: Container(Pod(match["namespace"], match["pod"]), match["container"]) for match in found
        }

    def ended(self, running: Set[str] | None) -> set[Pod]:
        """The pods of which it is known that they have ended. `running`: the uids of those that have not, if known.

        A pod that is created again has a name before it has logs. So none has ended while one that runs has no name.
        """
        if not running or not running <= self.pods.keys():
            return set()
        return set(self.pods.values()) - {self.pods[uid] for uid in running}


def _list_entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def match_by_elimination(
    used: Mapping[str, Set[str]], allocations: Mapping[str, Set[Pod]], known: Mapping[str, Pod]
) -> dict[str, Pod]:
    """Names of the pod uids that are not `known`.

    `used`: pod uid -> the GPUs of its processes. `allocations`: GPU -> the pods that the kubelet allocated it to.
    """
    resolved: dict[str, Pod] = {uid: known[uid] for uid in used if uid in known}
    while True:
        candidates = {
            uid: set.intersection(*(set(allocations.get(gpu, ())) for gpu in gpus)) - set(resolved.values())
            for uid, gpus in used.items()
            if uid not in resolved and gpus
        }
        certain = {uid: next(iter(pods)) for uid, pods in candidates.items() if len(pods) == 1}
        # Two uids for one name: one of the pods has no allocation, and it is unknown which.
        certain = {
            uid: pod
            for uid, pod in certain.items()
            if not any(other != uid and pod in pods for other, pods in candidates.items() if len(pods) == 1)
        }
        if not certain:
            return {uid: pod for uid, pod in resolved.items() if uid not in known}
        resolved.update(certain)
