"""Which GPUs and nodes exist now, from the identity series of every exporter: one entry each. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gpu_advisor.evaluation.facts import Gpu, Node, host_of
from gpu_advisor.promql.expressions import Labels, Vector
from gpu_advisor.sources.exporters.detection import GpuInventory, target_key

#: States of a GPU driver in which an exporter names no GPUs because it cannot, not because there are none.
FAILED_DRIVER_STATES = frozenset({"failed", "hung", "no_permission"})


def build_gpus(
    inventory: GpuInventory, up: Mapping[str, float], targets: Vector, drivers: Vector, nodes: Sequence[Node] = ()
) -> tuple[Gpu, ...]:
    """The GPUs there now, and those there lately whose exporter is silent: that must not look like fewer GPUs.

    `up` is the GPUs' health by uuid, `targets` the health of what is scraped, `drivers` the state of the exporters'
    drivers. A GPU that an answering exporter no longer names is gone, and so is one whose exporter is no longer scraped
    at all. Where several exporters tell of a GPU, the one of the lowest rank is listened to.
    """
    health = {target_key(labels): value for labels, value in targets.items()}
    blind = {target_key(labels) for labels in drivers if dict(labels).get("state") in FAILED_DRIVER_STATES}
    hosts = {host_of(node.instance): node.name for node in nodes}
    unreachable = [
        labels
        for labels in inventory.recent
        if not health or health.get(target_key(labels)) == 0 or target_key(labels) in blind
    ]
    found: dict[str, Gpu] = {}
    for labels in (
        *inventory.present,
        *unreachable,
    ):  # the present identity wins over a former one, a lower rank over a higher
        each = dict(labels)
        uuid = each.get("uuid", "")
        if uuid and uuid not in found:
            instance = each.get("instance", "")
            node = each.get("nodename") or hosts.get(host_of(instance)) or instance
            state = up.get(uuid)
            found[uuid] = Gpu(
                uuid, each.get("index", ""), each.get("name", ""), each.get("vendor", ""), node,
                None if state is None else state > 0, each.get("exporter", ""),
            )  # fmt: skip
    return tuple(sorted(found.values(), key=lambda gpu: (gpu.node, gpu.index.zfill(6), gpu.uuid)))


def find_duplicate_gpus(inventory: GpuInventory) -> dict[str, tuple[str, ...]]:
    """GPUs that several exporter families tell of now, and these families, the one that is listened to first."""
    found: dict[str, dict[str, None]] = {}
    for labels in inventory.present:
        each = dict(labels)
        if "uuid" in each:
            found.setdefault(each["uuid"], {})[each["exporter"]] = None
    return {uuid: tuple(exporters) for uuid, exporters in found.items() if len(exporters) > 1}


#: What an owner is called by: the first of these that is there.
OWNER_NAME_LABELS = (("training_job",), ("owner_namespace", "owner_pod"), ("owner_unit",), ("owner_container",))


def jobs_by_gpu(owners: Vector) -> dict[str, str]:
    """Whose work a GPU does, by uuid. A GPU that several share is nobody's."""
    found: dict[str, set[str]] = {}
    for labels in owners:
        each = dict(labels)
        named = (tuple(each[label] for label in names if each.get(label)) for names in OWNER_NAME_LABELS)
        name = next((parts for parts in named if parts), None)
        if name and "uuid" in each:
            found.setdefault(each["uuid"], set()).add("/".join(name))
    return {uuid: next(iter(names)) for uuid, names in found.items() if len(names) == 1}


def find_down_targets(targets: Vector, gpu_series: Iterable[Labels]) -> tuple[str, ...]:
    """Addresses that do not answer, of the jobs that watch GPUs; of all jobs while none is known to."""
    jobs = {target_key(labels)[0] for labels in gpu_series}
    silent = {target_key(labels) for labels, value in targets.items() if value == 0}
    return tuple(sorted({instance for job, instance in silent if not jobs or job in jobs}))


def build_nodes(rows: Iterable[Labels]) -> tuple[Node, ...]:
    """One node a name. Where two exporters speak for a node, the first by address is listened to."""
    found: dict[str, Node] = {}
    for labels in sorted(rows, key=lambda labels: dict(labels).get("instance", "")):
        each = dict(labels)
        name, instance = each.get("nodename"), each.get("instance")
        if name and instance:
            found.setdefault(name, Node(name, instance))
    return tuple(sorted(found.values()))
