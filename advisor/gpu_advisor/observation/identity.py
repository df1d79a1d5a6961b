"""GPUs and nodes from the identity series of all exporters, one entry each. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from gpu_advisor.evaluation.facts import Gpu, Node
from gpu_advisor.promql.expressions import Labels
from gpu_advisor.sources.exporters.detection import GpuInventory, TargetKey, row_target, target_key
from gpu_advisor.sources.exporters.identity_rows import Row
from gpu_advisor.sources.exporters.node_names import NodeNames, match_nodes, mismatch_hint

#: Driver states in which an exporter lists no GPUs because it cannot, not because there are none.
FAILED_DRIVER_STATES = frozenset({"failed", "hung", "no_permission"})

#: Nodes named in a message.
MAX_SHOWN_NODES = 3


def build_gpus(
    inventory: GpuInventory,
    up: Mapping[str, float],
    targets: Mapping[TargetKey, float],
    drivers: Iterable[Labels],
    nodes: Sequence[Node] = (),
    recent_targets: Collection[TargetKey] = (),
) -> tuple[Gpu, ...]:
    """The GPUs present, and recent ones whose exporter is down: an outage must not look like fewer GPUs.

    `up` is the health of GPUs by key, `targets` the health of scrape targets, `drivers` the state of GPU drivers. A GPU
    that a healthy exporter no longer lists is removed, and so is one whose exporter is no longer scraped, once it is
    not in `recent_targets` either. A target without `up`, as in federated or pushed series, may be down. If several
    exporters report a GPU, the one with the lowest rank is used.
    """
    shared = shared_uuids(inventory)
    without_driver = {target_key(labels) for labels in drivers if dict(labels).get("state") in FAILED_DRIVER_STATES}
    scraped_jobs = {target.job for target in (*targets, *recent_targets)}

    def is_unreachable(target: TargetKey) -> bool:
        if target.job not in scraped_jobs or target in without_driver:
            return True
        health = targets.get(target)
        return health == 0 if health is not None else target in recent_targets

    unreachable = [row for row in inventory.recent if is_unreachable(row_target(row))]
    found: dict[str, Gpu] = {}
    # The present identity wins over a former one, a lower rank over a higher one.
    rows = [*inventory.present, *unreachable]
    matched = match_nodes([NodeNames.of(row) for row in rows], [_names_of(node) for node in nodes]).matched
    for number, each in enumerate(rows):
        uuid = gpu_key(each, shared)
        if uuid and uuid not in found:
            instance, cluster = each.get("instance", ""), each.get("cluster", "")
            node = each.get("nodename")
            own_name = qualify(node, cluster) if node else instance
            name = nodes[matched[number]].name if number in matched else own_name
            state = up.get(uuid)
            found[uuid] = Gpu(
                uuid, each.get("index", ""), each.get("name", ""), each.get("vendor", ""), name,
                None if state is None else state > 0, each.get("exporter", ""), cluster,
                each.get("unified") == "true", each.get("mig_profile", ""),
                gpu_key({**each, "uuid": each.get("parent_uuid", "")}, shared),
            )  # fmt: skip
    return tuple(sorted(found.values(), key=lambda gpu: (gpu.node, gpu.index.zfill(6), gpu.uuid)))


def nodes_by_address(nodes: Iterable[Node]) -> dict[tuple[str, str], str]:
    """The node of each cluster and address; none where several have one address: their series are mixed."""
    return {address: names[0] for address, names in _names_by_address(nodes).items() if len(names) == 1}


def _names_by_address(nodes: Iterable[Node]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for node in nodes:
        found.setdefault((node.cluster, node.instance), []).append(node.name)
    return found


def explain_unmatched_hosts(inventory: GpuInventory, nodes: Sequence[Node]) -> str:
    """Which GPUs have no host metrics although there are some, and how to join them; empty if all have."""
    gpus = [NodeNames.of(row) for row in inventory.present if row.get("uuid")]
    names = [_names_of(node) for node in nodes]
    unmatched = mismatch_hint(gpus, names, match_nodes(gpus, names))
    return "; ".join(filter(None, (unmatched, *_shared_addresses(nodes))))


def _shared_addresses(nodes: Iterable[Node]) -> Iterator[str]:
    """Several nodes behind one address, as of a proxy."""
    for (_, instance), names in _names_by_address(nodes).items():
        if len(names) > 1:
            shown = ", ".join(names[:MAX_SHOWN_NODES]) + (", ..." if len(names) > MAX_SHOWN_NODES else "")
            yield (
                f"nodes {shown} have one instance, {instance}, so their host metrics cannot be separated. Set the label"
                " `instance` to the node by relabeling (behind a proxy, from __param_target)"
            )


def _names_of(node: Node) -> NodeNames:
    return NodeNames(node.cluster, node.name.removeprefix(qualify("", node.cluster)), node.target, node.instance)


def qualify(name: str, cluster: str) -> str:
    """A node's name: two clusters in one store may use the same."""
    return f"{cluster}/{name}" if cluster else name


def shared_uuids(inventory: GpuInventory) -> frozenset[str]:
    """Identifiers that GPUs of several clusters have."""
    if len({row.get("cluster", "") for row in inventory.rows}) < 2:  # nearly always, and then one look suffices
        return frozenset()
    clusters: dict[str, str] = {}
    shared: set[str] = set()
    for each in inventory.rows:
        uuid, cluster = each.get("uuid", ""), each.get("cluster", "")
        if clusters.setdefault(uuid, cluster) != cluster:
            shared.add(uuid)
    return frozenset(shared)


def gpu_key(row: Mapping[str, str], shared: Collection[str]) -> str:
    """What a GPU is called in the facts: its uuid, with its cluster if GPUs of several clusters share it."""
    uuid = row.get("uuid", "")
    return qualify(uuid, row.get("cluster", "")) if uuid in shared else uuid


def find_duplicate_gpus(inventory: GpuInventory) -> dict[str, tuple[str, ...]]:
    """GPUs that several exporter families report, with these families in order of precedence."""
    shared = shared_uuids(inventory)
    found: dict[str, dict[str, None]] = {}
    for each in inventory.present:
        if "uuid" in each:
            found.setdefault(gpu_key(each, shared), {})[each["exporter"]] = None
    return {uuid: tuple(exporters) for uuid, exporters in found.items() if len(exporters) > 1}


#: Labels that name an owner; the first ones present are used.
OWNER_NAME_LABELS = (("training_job",), ("owner_namespace", "owner_pod"), ("owner_unit",), ("owner_container",))
#: Kinds of owners that hold a GPU also if it is not known which: Slurm has allocated it to some job.
NAMELESS_OWNER_KINDS = ("slurm",)


def jobs_by_gpu(owners: Iterable[Labels], shared: Collection[str] = ()) -> dict[str, str]:
    """The owner of each GPU, by its key. A shared GPU has none."""
    found: dict[str, set[str]] = {}
    for labels in owners:
        each = dict(labels)
        named = (tuple(each[label] for label in names if each.get(label)) for names in OWNER_NAME_LABELS)
        name = next((parts for parts in named if parts), None)
        if not name and each.get("owner_kind") in NAMELESS_OWNER_KINDS:
            name = (each["owner_kind"],)
        if name and "uuid" in each:
            found.setdefault(gpu_key(each, shared), set()).add("/".join(name))
    return {uuid: next(iter(names)) for uuid, names in found.items() if len(names) == 1}


def down_reasons_by_gpu(rows: Iterable[Labels], shared: Collection[str] = ()) -> dict[str, str]:
    """Why each GPU is down, by its key. Two reasons at once, as from two exporters, are no reason."""
    found: dict[str, set[str]] = {}
    for labels in rows:
        each = dict(labels)
        if "uuid" in each and each.get("reason"):
            found.setdefault(gpu_key(each, shared), set()).add(each["reason"])
    return {uuid: next(iter(reasons)) for uuid, reasons in found.items() if len(reasons) == 1}


def gpus_of_targets(inventory: GpuInventory, series: Iterable[Labels]) -> frozenset[str]:
    """The keys of the GPUs, present and recent, of the scrape targets that these series come from."""
    targets = {target_key(labels) for labels in series}
    if not targets:
        return frozenset()
    shared = shared_uuids(inventory)
    return frozenset(gpu_key(row, shared) for row in inventory.rows if row_target(row) in targets)


def find_down_targets(targets: Mapping[TargetKey, float], rows: Iterable[Row]) -> tuple[str, ...]:
    """Addresses of targets that are down, of the jobs of these rows; of all jobs if there are none."""
    if all(value != 0 for value in targets.values()):
        return ()
    jobs = {row_target(row).job for row in rows}
    return tuple(
        sorted({each.instance for each, value in targets.items() if value == 0 and (not jobs or each.job in jobs)})
    )


def complete_jobs(
    inventory: GpuInventory, targets: Mapping[TargetKey, float], drivers: Iterable[Labels]
) -> frozenset[str]:
    """Names of the scraped jobs with GPUs or nodes that have no target down and no driver that failed."""
    incomplete = {target.job for target, health in targets.items() if health == 0}
    incomplete |= {target_key(labels).job for labels in drivers if dict(labels).get("state") in FAILED_DRIVER_STATES}
    scraped = {target.job for target in targets}
    return frozenset(row_target(row).job for row in inventory.rows) & scraped - incomplete - {""}


def build_nodes(rows: Iterable[Row]) -> tuple[Node, ...]:
    """One node per name and cluster. If two exporters report a node, the first by address is used."""
    found: dict[str, Node] = {}
    for each in sorted(rows, key=lambda row: row.get("instance", "")):
        name, instance, cluster = each.get("nodename"), each.get("instance"), each.get("cluster", "")
        if name and instance:
            full = qualify(name, cluster)
            found.setdefault(full, Node(full, instance, cluster, each.get("node", "")))
    return tuple(sorted(found.values()))
