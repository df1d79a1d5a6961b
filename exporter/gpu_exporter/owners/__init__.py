"""Who uses a GPU: from the control group of a process to a pod, a container, a Slurm job, a unit or a user."""

from __future__ import annotations

from gpu_exporter.owners import container, kubernetes, slurm, systemd
from gpu_exporter.owners.base import CgroupParser, Owner, OwnerKind

#: In the order of OwnerKind: the first that knows a path names the kind, the others fill in what it leaves empty.
CGROUP_PARSERS: tuple[CgroupParser, ...] = (kubernetes.parse, slurm.parse, container.parse, systemd.parse)

_KIND_RANKS = {kind: rank for rank, kind in enumerate(OwnerKind)}
_DELETED_SUFFIX = " (deleted)"


def parse_owner(cgroup: str) -> Owner:
    """The owner that the text of /proc/<pid>/cgroup tells. Plainly a user's where it tells nothing.

    Version 1 has a line a hierarchy, and they need not agree: systemd's own may name a unit where the one of the
    devices names a Slurm job, so each parser sees them all and takes the one that tells it most, a unit before a
    user's session.
    """
    paths = _cgroup_paths(cgroup)
    result: Owner | None = None
    for parse in CGROUP_PARSERS:
        candidates = [owner for path in paths if (owner := parse(path))]
        if candidates:
            best = min(candidates, key=lambda owner: (_KIND_RANKS[owner.kind], -owner.known))
            result = result.fill_from(best) if result else best
    return result or Owner(OwnerKind.USER)


def _cgroup_paths(cgroup: str) -> list[tuple[str, ...]]:
    """The names on each distinct path, from the root down: `5:devices:/a/b`, or `0::/a/b` in version 2."""
    paths: dict[tuple[str, ...], None] = {}
    for line in cgroup.split("\n"):
        _, _, rest = line.partition(":")
        _, _, path = rest.partition(":")  # which may have colons of its own
        # Outside our own control group's namespace, a path begins with /.. for each level up.
        names = tuple(name for name in path.removesuffix(_DELETED_SUFFIX).split("/") if name not in ("", "..", "."))
        if names:
            paths[names] = None
    return list(paths)
