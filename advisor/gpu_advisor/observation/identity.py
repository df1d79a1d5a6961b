"""GPUs and nodes from the identity series of all exporters, one entry each. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from gpu_advisor.evaluation.facts import Gpu, Node, host_of
from gpu_advisor.promql.expressions import Labels, Vector
from gpu_advisor.sources.exporters.detection import GpuInventory, target_key

#: Driver states in which an exporter lists no GPUs because it cannot, not because there are none.
FAILED_DRIVER_STATES = frozenset({"failed", "hung", "no_permission"})


def build_gpus(
    inventory: GpuInventory, up: Mapping[str, float], targets: Vector, drivers: Vector, nodes: Sequence[Node] = ()
) -> tuple[Gpu, ...]:
    """The GPUs present, and recent ones whose exporter is down: an outage must not look like fewer GPUs.

    `up` is the health of GPUs by uuid, `targets` the health of scrape targets, `drivers` the state of GPU drivers. A
    GPU that a healthy exporter no longer lists is removed, and so is one whose exporter is no longer scraped. If
    several exporters report a GPU, the one with the lowest rank is used.
    """
    health = {target_key(labels): value for labels, value in targets.items()}
    without_driver = {target_key(labels) for labels in drivers if dict(labels).get("state") in FAILED_DRIVER_STATES}
    hosts = {host_of(node.instance): node.name for node in nodes}
    unreachable = [
        labels
        for labels in inventory.recent
        if not health or health.get(target_key(labels)) == 0 or target_key(labels) in without_driver
    ]
    found: dict[str, Gpu] = {}
    # The present identity wins over a former one, a lower rank over a higher one.
    for labels in (*inventory.present, *unreachable):
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
    """GPUs that several exporter families report, with these families in order of precedence."""
    found: dict[str, dict[str, None]] = {}
    for labels in inventory.present:
        each = dict(labels)
        if "uuid" in each:
            found.setdefault(each["uuid"], {})[each["exporter"]] = None
    return {uuid: tuple(exporters) for uuid, exporters in found.items() if len(exporters) > 1}


#: Labels that name an owner; the first ones present are used.
OWNER_NAME_LABELS = (("training_job",), ("owner_namespace", "owner_pod"), ("owner_unit",), ("owner_container",))


def jobs_by_gpu(owners: Vector) -> dict[str, str]:
    """The owner of each GPU, by uuid. A shared GPU has none."""
    found: dict[str, set[str]] = {}
    for labels in owners:
        each = dict(labels)
        named = (tuple(each[label] for label in names if each.get(label)) for names in OWNER_NAME_LABELS)
        name = next((parts for parts in named if parts), None)
        if name and "uuid" in each:
            found.setdefault(each["uuid"], set()).add("/".join(name))
    return {uuid: next(iter(names)) for uuid, names in found.items() if len(names) == 1}


def find_down_targets(targets: Vector, gpu_series: Iterable[Labels]) -> tuple[str, ...]:
    """Addresses of targets that are down, of the jobs with GPU series; of all jobs if none has any."""
    jobs = {target_key(labels)[0] for labels in gpu_series}
    down = {target_key(labels) for labels, value in targets.items() if value == 0}
    return tuple(sorted({instance for job, instance in down if not jobs or job in jobs}))


def build_nodes(rows: Iterable[Labels]) -> tuple[Node, ...]:
    """One node per name. If two exporters report a node, the first by address is used."""
    found: dict[str, Node] = {}
    for labels in sorted(rows, key=lambda labels: dict(labels).get("instance", "")):
        each = dict(labels)
        name, instance = each.get("nodename"), each.get("instance")
        if name and instance:
            found.setdefault(name, Node(name, instance))
    return tuple(sorted(found.values()))
