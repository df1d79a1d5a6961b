"""GPU owners: from the cgroup of a process to a pod, container, Slurm job, systemd unit or user."""

from __future__ import annotations

from gpu_exporter.owners import container, kubernetes, slurm, systemd
from gpu_exporter.owners.base import CgroupParser, Owner, OwnerKind

#: In the order of OwnerKind: the first that matches determines the kind, the others fill in empty fields.
CGROUP_PARSERS: tuple[CgroupParser, ...] = (kubernetes.parse, slurm.parse, container.parse, systemd.parse)

_KIND_RANKS = {kind: rank for rank, kind in enumerate(OwnerKind)}
_DELETED_SUFFIX = " (deleted)"


def parse_owner(cgroup: str) -> Owner:
    """Parse the text of /proc/<pid>/cgroup. The kind is USER if no parser matches.

    cgroup v1 has one line per hierarchy, and they may differ: systemd's may have a unit where that of the devices has a
    Slurm job. So each parser sees all paths; the most specific kind wins, then the most known fields.
    """
    paths = cgroup_paths(cgroup)
    result: Owner | None = None
    for parse in CGROUP_PARSERS:
        candidates = [owner for path in paths if (owner := parse(path))]
        if candidates:
            best = min(candidates, key=lambda owner: (_KIND_RANKS[owner.kind], -owner.known_fields))
            result = result.fill_from(best) if result else best
    return result or Owner(OwnerKind.USER)


def cgroup_paths(cgroup: str) -> list[tuple[str, ...]]:
    """The components of each distinct path. Lines are `5:devices:/a/b`, or `0::/a/b` in cgroup v2."""
    paths: dict[tuple[str, ...], None] = {}
    for line in cgroup.split("\n"):
        _, _, rest = line.partition(":")
        _, _, path = rest.partition(":")  # the path may contain colons
        # Outside our cgroup namespace, a path starts with /.. for each level up.
        names = tuple(name for name in path.removesuffix(_DELETED_SUFFIX).split("/") if name not in ("", "..", "."))
        if names:
            paths[names] = None
    return list(paths)
