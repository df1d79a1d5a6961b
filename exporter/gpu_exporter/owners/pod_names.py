"""Names for pods and containers that control groups know by uid and id only.

Exactly, where the kubelet's log folders can be listed (their content is never read): it makes
/var/log/pods/<namespace>_<pod>_<uid> and /var/log/containers/<pod>_<namespace>_<container>-<id>.log.

Else by elimination: a pod whose processes run on these GPUs is one that the kubelet has given all of them to. That is
certain where each GPU has one pod, and where those of a shared GPU can be told apart by the others they have; what
remains ambiguous stays without a name. A pod that takes GPUs behind the kubelet's back (NVIDIA_VISIBLE_DEVICES=all)
cannot be told from an idle one that was given them: list the log folders where there are such pods.
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
#: The folders are listed for an id that they did not have before, but not more often.
MIN_RELIST_SECONDS = 10.0


class Pod(NamedTuple):
    namespace: str
    name: str


class Container(NamedTuple):
    pod: Pod
    name: str


class PodLogIndex:
    """The names in the kubelet's log folders."""

    def __init__(self, log_folder: Path = Path("/var/log")) -> None:
        self._folder = log_folder
        self._listed_at: float | None = None
        self.pods: dict[str, Pod] = {}
        self.containers: dict[str, Container] = {}

    def refresh(self, pod_uids: Set[str], container_ids: Set[str], allocations: Set[Container], now: float) -> None:
        """See to it that these are known if they can be. `now` is monotonic seconds. Raises PermissionError."""
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


def _list_entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def match_by_elimination(
    used: Mapping[str, Set[str]], allocations: Mapping[str, Set[Pod]], known: Mapping[str, Pod]
) -> dict[str, Pod]:
    """Names for the pod uids that are not `known`.

    `used`: pod uid -> the GPUs that its processes are on; `allocations`: GPU -> the pods that the kubelet has given it to.
    """
    resolved: dict[str, Pod] = {uid: known[uid] for uid in used if uid in known}
    while True:
        candidates = {
            uid: set.intersection(*(set(allocations.get(gpu, ())) for gpu in gpus)) - set(resolved.values())
            for uid, gpus in used.items()
            if uid not in resolved and gpus
        }
        certain = {uid: next(iter(pods)) for uid, pods in candidates.items() if len(pods) == 1}
        # Two uids for one name: one of them is of a pod that was given nothing, and which is not to be known.
        certain = {
            uid: pod
            for uid, pod in certain.items()
            if not any(other != uid and pod in pods for other, pods in candidates.items() if len(pods) == 1)
        }
        if not certain:
            return {uid: pod for uid, pod in resolved.items() if uid not in known}
        resolved.update(certain)
