"""A cluster's nodes and partitions, from `scontrol show`. Pure.

The type of a node's GPUs is that of its GRES (`gpu:a100-sxm4-80gb:8`), or one of its features if the GRES has none.
Their memory is in either, or follows from the type. Sources: scontrol(1), gres.conf(5), slurm.conf(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from gpu_advisor.hardware.gpu_types import GPU_MEMORY_GIB, GpuType, known_gpu_types, parse_gpu_type

#: Parts of a node's state in which it starts no jobs. A node that is powered down starts for a job.
UNAVAILABLE_STATES = ("DOWN", "DRAIN", "FAIL", "ERROR", "INVAL", "UNKNOWN", "NOT_RESPONDING", "MAINT", "FUTURE")

_GRES = re.compile(r"(?P<name>\w+)(?::(?P<type>[^:,()]+))?:(?P<count>\d+)(?:\((?P<detail>[^()]*)\))?")
_MIG = re.compile(r"(?:(?P<type>.*?)[-_.])?\d+g[.-]?(?P<size>\d+)gb\S*", re.IGNORECASE)
#: `gpu80gb`, `gpu_mem:80gb`, `vram_24gb`: a bare `512gb` is probably the node's memory.
_MEMORY_FEATURE = re.compile(r"(?i)(?:gpu|vram)[a-z_:=-]*(\d{1,4})\s*g(?:i?b)?")


@dataclass(frozen=True, slots=True)
class SlurmGpus:
    """The GPUs of one GRES type on one node.

    `gres_type` as in --gres, empty if the GRES has none; `gpu_type` canonical, empty if not known; `memory_gb` of each,
    None if not known. `unavailable_reason`: why no job can start there.
    """

    node: str
    gres_type: str
    count: int
    used: int
    gpu_type: str = ""
    vendor: str = ""
    memory_gb: float | None = None
    features: frozenset[str] = frozenset()
    partitions: frozenset[str] = frozenset()
    unavailable_reason: str = ""

    @property
    def free(self) -> int:
        """GPUs that a job can get now."""
        return 0 if self.unavailable_reason else max(0, self.count - self.used)


@dataclass(frozen=True, slots=True)
class SlurmPartition:
    """`max_seconds`: the longest job, None without a limit."""

    name: str
    is_default: bool
    is_up: bool
    max_seconds: float | None


@dataclass(frozen=True, slots=True)
class SlurmCluster:
    gpus: tuple[SlurmGpus, ...]
    partitions: tuple[SlurmPartition, ...]

    @property
    def default_partition(self) -> str:
        return next((each.name for each in self.partitions if each.is_default), "")


def parse_cluster(nodes: str, partitions: str) -> SlurmCluster:
    """From `scontrol --oneliner --details show nodes` and `show partitions`."""
    found = [gpus for values in _records(nodes, "NodeName") for gpus in _node_gpus(values)]
    return SlurmCluster(
        tuple(sorted(found, key=lambda each: (each.node, each.gres_type))),
        tuple(
            SlurmPartition(
                values["PartitionName"], values.get("Default") == "YES", values.get("State", "UP") == "UP",
                parse_time_limit(values.get("MaxTime", "")),
            )
            for values in _records(partitions, "PartitionName")
        ),
    )  # fmt: skip


def parse_time_limit(text: str) -> float | None:
    """`1-02:30:00`, `30:00` (minutes) or `UNLIMITED` -> seconds, None without a limit."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _records(text: str, key: str) -> Iterator[dict[str, str]]:
    """One record per line, which starts with the key. Values contain no spaces, except for free text at the end."""
    for line in text.splitlines():
        if line.startswith(f"{key}="):
            values: dict[str, str] = {}
            for name, value in re.findall(r"(?:^|\s)(\w+)=(\S*)", line):
                values.setdefault(name, value)
            yield values


def _node_gpus(values: Mapping[str, str]) -> Iterator[SlurmGpus]:
    features = frozenset(_listed(values.get("ActiveFeatures") or values.get("AvailableFeatures", "")))
    used = _used_by_type(values.get("GresUsed", ""))
    entries = [match for match in _GRES.finditer(values.get("Gres", "")) if match["name"] == "gpu"]
    for match in entries:
        gres_type = match["type"] or ""
        kind = _gpu_type(gres_type, features)
        yield SlurmGpus(
            node=values["NodeName"],
            gres_type=gres_type,
            count=int(match["count"]),
            used=used.get(gres_type, 0),
            gpu_type=kind.name,
            vendor=kind.vendor if kind.name else "",
            memory_gb=_memory_gb(kind, features if len(entries) == 1 else frozenset()),
            features=features,
            partitions=frozenset(_listed(values.get("Partitions", ""))),
            unavailable_reason=_unavailable_reason(values.get("State", "")),
        )


def _used_by_type(text: str) -> dict[str, int]:
    """GRES type -> GPUs in use, as a whole or by their shards."""
    used: dict[str, int] = {}
    for match in _GRES.finditer(text):
        gres_type = match["type"] or ""
        if match["name"] == "gpu":
            used[gres_type] = used.get(gres_type, 0) + int(match["count"])
        elif match["name"] in ("shard", "mps"):
            used[gres_type] = used.get(gres_type, 0) + _shared_gpus(match["detail"] or "")
    return used


def _shared_gpus(detail: str) -> int:
    """GPUs with units in use: `0/4,1/4` since Slurm 23.11, before that the indices, `IDX:2-3`."""
    if "/" in detail and "N/A" not in detail:
        return sum(1 for part in detail.split(",") if part.split("/")[0].strip("-0"))
    ranges = re.findall(r"(\d+)(?:-(\d+))?", detail)
    return sum(int(last or first) - int(first) + 1 for first, last in ranges)


def _gpu_type(gres_type: str, features: Iterable[str]) -> GpuType:
    """From the GRES type; without one, or if it is no type, from the features if they name just one."""
    if match := _MIG.fullmatch(gres_type):
        whole = _parse(match["type"] or "")
        return GpuType(f"{whole.name}MIG", whole.vendor, float(match["size"]))
    stated = _parse(gres_type)
    if stated.name in known_gpu_types():
        return stated
    named = {kind.name: kind for kind in map(_parse, features) if kind.name in known_gpu_types()}
    return next(iter(named.values())) if len(named) == 1 else stated


def _memory_gb(kind: GpuType, features: Iterable[str]) -> float | None:
    if kind.memory_gb is not None:
        return kind.memory_gb
    stated = {float(match[1]) for feature in features if (match := _MEMORY_FEATURE.fullmatch(feature))}
    stated |= {
        other.memory_gb for other in map(_parse, features) if other.name == kind.name and other.memory_gb is not None
    }
    if len(stated) == 1:
        return stated.pop()
    sizes = GPU_MEMORY_GIB.get(kind.name, ())
    return float(sizes[0]) if len(sizes) == 1 and not stated else None


def _parse(text: str) -> GpuType:
    return parse_gpu_type(text.replace("_", "-"))


def _unavailable_reason(state: str) -> str:
    parts = [part for part in re.split(r"\+", state.upper().replace("*", "+NOT_RESPONDING")) if part]
    bad = [part for part in parts if part.startswith(UNAVAILABLE_STATES)]
    return f"it is {'+'.join(bad).lower().replace('_', ' ')}" if bad else ""


def _listed(text: str) -> list[str]:
    return [] if text in ("", "(null)", "N/A") else text.split(",")
