"""Pools: named selectors over GPUs, the first match wins. Three numbers each: capacity, allocated, busy."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.recommendation import Scope
from gpu_advisor.evaluation.scaling.headroom import Headroom
from gpu_advisor.evaluation.signals import MEMORY_USED, PROCESSES, UTILIZATION
from gpu_advisor.evaluation.workload_kind import PoolInference, infer_kinds
from gpu_advisor.settings import PoolKind, PoolSettings

#: Drivers and display servers allocate a little memory even on an unused GPU.
ALLOCATED_MEMORY_RATIO = 0.05


@dataclass(frozen=True, slots=True)
class Pool:
    """`inference` is what its GPUs are used for, as far as that is known, where the settings give no kind.

    An inferred kind is for diagnoses and for people. What acts by itself, an autoscaler's metrics, needs a kind that
    somebody set. `boards` are in MIG mode: their slices are among the GPUs, and they are not counted beside them, but
    it is boards that fail, throttle and are paid for.
    """

    settings: PoolSettings
    gpus: tuple[Gpu, ...]
    inference: PoolInference | None = None
    headroom: Headroom | None = None  # of a serving pool, once it is known
    boards: tuple[Gpu, ...] = ()

    @property
    def scope(self) -> Scope:
        return Scope("pool", self.settings.name)

    @property
    def uuids(self) -> tuple[str, ...]:
        return tuple(gpu.uuid for gpu in self.gpus)

    @property
    def replicas(self) -> int:
        """Whole replicas that its GPUs make."""
        return len(self.gpus) // self.settings.gpus_per_replica

    @property
    def devices(self) -> tuple[Gpu, ...]:
        """The GPUs, and the boards of those that are slices."""
        return self.gpus + self.boards

    def kind_of(self, gpu: Gpu) -> PoolKind:
        """What a GPU is used for: as set for the pool, else as inferred."""
        if self.settings.kind != "undecided" or self.inference is None:
            return self.settings.kind
        return self.inference.kind_of(gpu)


@dataclass(frozen=True, slots=True)
class PoolUsage:
    """GPUs of a pool. `allocated` and `busy` are None unless known for all of its GPUs."""

    capacity: int
    allocated: int | None
    busy: float | None


def assign_pools(
    gpus: Sequence[Gpu], configured: Sequence[PoolSettings], served: Mapping[str, PoolSettings] | None = None
) -> tuple[Pool, ...]:
    """Assign each GPU to its first matching pool, or, before or else, to that of what it serves, which `served` has by
    uuid; the rest form one pool per model, of unspecified kind. A board in MIG mode goes where its first slice goes.
    """
    served = served or {}
    order = {pool.name: number for number, pool in enumerate(configured)}
    members: dict[str, list[Gpu]] = {pool.name: [] for pool in configured}
    pool_of_board: dict[str, str] = {}
    settings = {pool.name: pool for pool in configured}
    find = _first_match(configured)
    partitioned = _boards_of_slices(gpus)
    for gpu in gpus:
        if gpu.uuid in partitioned:
            continue
        found = [each for each in (find(gpu), served.get(gpu.uuid)) if each is not None]
        pool = min(found, key=lambda each: order.get(each.name, len(order)), default=None)
        name = pool.name if pool else _default_pool_name(gpu, configured)
        if name not in settings:
            settings[name] = pool or PoolSettings(name=name)
        members.setdefault(name, []).append(gpu)
        if gpu.parent in partitioned:
            pool_of_board.setdefault(gpu.parent, name)
    boards: dict[str, list[Gpu]] = {}
    for uuid, name in pool_of_board.items():
        boards.setdefault(name, []).append(partitioned[uuid])
    return tuple(
        Pool(settings[name], tuple(each), boards=tuple(boards.get(name, ()))) for name, each in members.items()
    )


def _boards_of_slices(gpus: Iterable[Gpu]) -> dict[str, Gpu]:
    """Boards in MIG mode, by uuid, whose slices are among the GPUs too."""
    parents = {gpu.parent for gpu in gpus if gpu.parent}
    return {gpu.uuid: gpu for gpu in gpus if gpu.uuid in parents}


def with_inferred_kinds(facts: Facts, pools: Sequence[Pool], configured: Collection[PoolSettings]) -> tuple[Pool, ...]:
    """Pools whose kind nobody set have an inference: those of kind `undecided`, and those of what is served."""
    names = {settings.name for settings in configured if settings.kind != "undecided"}
    return tuple(
        pool if pool.settings.name in names else replace(pool, inference=infer_kinds(facts, pool.gpus))
        for pool in pools
    )


def _default_pool_name(gpu: Gpu, configured: Sequence[PoolSettings]) -> str:
    name = gpu.name or gpu.vendor or "GPUs"
    return f"{name} (others)" if any(pool.name == name for pool in configured) else name


def _first_match(configured: Sequence[PoolSettings]) -> Callable[[Gpu], PoolSettings | None]:
    """The first pool whose selectors match a GPU. With a thousand pools: each pattern is compiled once, and GPUs that
    differ in nothing that a pool looks at are matched once."""
    patterns = [
        (pool, [(key, re.compile(text)) for key, text in pool.match.items()])
        for pool in configured
        if not pool.joins_servers
    ]
    keys = sorted({key for pool in configured for key in pool.match})
    known: dict[tuple[str, ...], PoolSettings | None] = {}

    def find(gpu: Gpu) -> PoolSettings | None:
        values = tuple(getattr(gpu, key) for key in keys)
        if values not in known:
            known[values] = next(
                (pool for pool, tests in patterns if all(test.fullmatch(getattr(gpu, key)) for key, test in tests)),
                None,
            )
        return known[values]

    return find


def is_allocated(facts: Facts, gpu: Gpu) -> bool | None:
    """Whether the GPU is in use: a process, or more memory than a driver takes. None if unknown."""
    memory, processes = facts.value(MEMORY_USED, gpu.uuid), facts.value(PROCESSES, gpu.uuid)
    if memory is None and processes is None:
        return None
    return (memory or 0) > ALLOCATED_MEMORY_RATIO or (processes or 0) > 0


def measure_usage(facts: Facts, gpus: Sequence[Gpu]) -> PoolUsage:
    """Of the GPUs of a pool that are not lost."""
    in_use = [is_allocated(facts, gpu) for gpu in gpus]
    busy = [facts.value(UTILIZATION, gpu.uuid) for gpu in gpus]
    return PoolUsage(
        capacity=len(gpus),
        allocated=None if None in in_use else sum(1 for one in in_use if one),
        busy=None if None in busy else sum(value for value in busy if value is not None),
    )
