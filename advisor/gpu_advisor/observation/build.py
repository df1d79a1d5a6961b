"""Query results -> the facts of an evaluation: values by GPU and node. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.owners import GpuOwner, with_team
from gpu_advisor.evaluation.signals import Signal
from gpu_advisor.observation.identity import (
    build_gpus,
    build_nodes,
    down_reasons_by_gpu,
    explain_unmatched_hosts,
    find_down_targets,
    find_duplicate_gpus,
    gpu_key,
    gpus_of_targets,
    jobs_by_gpu,
    nodes_by_address,
    qualify,
    shared_uuids,
)
from gpu_advisor.observation.owners import WHOLE_WINDOW_RATIO, owners_from_info, owners_from_pods
from gpu_advisor.observation.queries import CURRENT_PREFIX, OWNER_SAMPLES, RECENT_PREFIX, cluster_label, mappings_of
from gpu_advisor.observation.series import ObservedSeries
from gpu_advisor.promql.expressions import Expression, Labels, ScopeName, Vector, union
from gpu_advisor.settings import Settings
from gpu_advisor.sources.exporters.detection import CanonicalRows, GpuInventory, canonical_targets, job_key
from gpu_advisor.sources.exporters.mapping import ExporterMapping

#: Rounding of whole percents, and of two counters that are read one after the other.
RATIO_TOLERANCE = 0.005

#: DCGM encodes "no value" as numbers from 1.4e14 (floats) and 9.2e18 (integers) on; no real value is that large.
MAX_PLAUSIBLE_VALUE = 1e14


def plausible_range(signal: Signal) -> tuple[float, float]:
    """The range of plausible values. A rate is extrapolated and may overshoot; a gauge may not."""
    if signal.scope != "gpu" or signal.unit != "ratio" or signal.reduction in ("rate", "increase", "coverage"):
        return -MAX_PLAUSIBLE_VALUE, MAX_PLAUSIBLE_VALUE
    return -RATIO_TOLERANCE, 1 + RATIO_TOLERANCE


def values_by_label(
    vector: Vector, label: str, cluster_label: str, rename: Callable[[str, str], str | None] | None = None
) -> dict[str, float]:
    """Key a vector by name: `rename` maps a cluster and the value of a label to it, or to None to drop the value.

    Without `rename`, the value of the label is the name.
    """
    if rename is None:
        with suppress(ValueError):  # nearly always all have this label only, in fleets of thousands
            return {key: value for ((name, key),), value in vector.items() if name == label and key}
    values: dict[str, float] = {}
    for labels, value in vector.items():
        each = dict(labels)
        key, cluster = each.get(label, ""), each.get(cluster_label, "")
        found = (key if rename is None else rename(cluster, key)) if key else None
        if found is not None:
            values[found] = value
    return values


def build_facts(
    results: Mapping[str, Vector],
    canonical: CanonicalRows,
    inventory: GpuInventory,
    families: Mapping[str, Mapping[str, Expression]],
    settings: Settings,
    at: float,
    observed: ObservedSeries,
    discarded: Mapping[str, Vector],
) -> Facts:
    """Query results by label set -> values by GPU and node. `families`: expressions by signal and exporter family;
    `discarded`: readings by signal that mean no value.
    """
    label = cluster_label(settings)
    mappings_by_name = {mapping.name: mapping for mapping in mappings_of(settings)}
    gpu_exporters = {
        name for name, mapping in mappings_by_name.items() if mapping.scope == "gpu" and not mapping.companion
    }
    gpu_inventory = inventory.of_exporters(gpu_exporters)
    node_exporters = {name for name, mapping in mappings_by_name.items() if mapping.scope == "node"}
    nodes = build_nodes(inventory.of_exporters(node_exporters).present)
    shared = shared_uuids(gpu_inventory)
    names = _Names(label, shared, nodes_by_address(nodes))
    unresolved = {gpu_key({"cluster": thing[0], "uuid": thing[1]}, shared)
                  for name in gpu_exporters for thing in observed.unresolved.get(name, ())}  # fmt: skip
    targets = canonical_targets(results["targets"], label)

    def rows(name: str) -> list[Labels]:
        return [_canonical_cluster(labels, label) for labels in results[name]]

    drivers = rows("drivers")
    wanted = [signal for signal in signals.SIGNALS if signal.name in families]
    values, implausible_values = _signal_values(wanted, results, discarded, names, unresolved)
    up = _health(gpu_inventory, mappings_by_name, gpu_exporters, values, shared)
    gpus = build_gpus(gpu_inventory, up, targets, drivers, nodes, canonical_targets(results["recent_targets"], label))
    owners = _in_clusters(_owners(results, canonical, settings, observed, shared), gpus)
    return Facts(
        at=at,
        gpus=gpus,
        nodes=nodes,
        values=values,
        expressions={name: union(*parts.values()) for name, parts in families.items()},
        evaluation=settings.evaluation,
        drivers=_driver_states(results["drivers"]),
        down_targets=find_down_targets(targets, chain(gpu_inventory.rows, map(dict, drivers))),
        simulated=bool(results["simulated"]),
        exporters_by_signal=_exporters_by_signal(families, mappings_by_name, gpu_exporters),
        implausible_values=implausible_values,
        exporters_of_duplicates=find_duplicate_gpus(gpu_inventory),
        jobs=jobs_by_gpu(rows("owners"), shared),
        reported_jobs=jobs_by_gpu(rows("reports"), shared),
        owners=owners,
        down_reasons=down_reasons_by_gpu(rows("down_reasons"), shared),
        unresolved=frozenset(unresolved),
        unmatched_hosts=explain_unmatched_hosts(gpu_inventory, nodes),
        cluster_label=label,
        slurm_nodes=_slurm_nodes(gpus, gpus_of_targets(gpu_inventory, rows("slurm")), owners),
    )


def _health(
    inventory: GpuInventory,
    mappings: Mapping[str, ExporterMapping],
    gpu_exporters: Iterable[str],
    values: Mapping[str, Mapping[str, float]],
    shared: frozenset[str],
) -> dict[str, float]:
    """1 for GPUs that are up. Where an exporter has no health metric, a GPU with identity series counts as up."""
    without_metric = {name for name in gpu_exporters if not mappings[name].definitions(signals.GPU_UP.quantity)}
    assumed_up = {gpu_key(row, shared): 1.0 for row in inventory.present if row["exporter"] in without_metric}
    return {**assumed_up, **values.get(signals.GPU_UP.name, {})}


def _exporters_by_signal(
    families: Mapping[str, Iterable[str]], mappings: Mapping[str, ExporterMapping], gpu_exporters: Iterable[str]
) -> dict[str, frozenset[str]]:
    """A companion reports on GPUs of all exporters."""
    return {
        name: frozenset(gpu_exporters if any(mappings[each].companion for each in parts) else parts)
        for name, parts in families.items()
    }


def _slurm_nodes(
    gpus: Iterable[Gpu], on_slurm: Collection[str], owners: Mapping[str, Sequence[GpuOwner]]
) -> frozenset[str]:
    """Where Slurm runs, by the exporter, or holds a GPU."""
    return frozenset(
        gpu.node
        for gpu in gpus
        if gpu.uuid in on_slurm or any(owner.kind == "slurm" for owner in owners.get(gpu.uuid, ()))
    )


@dataclass(frozen=True, slots=True)
class _Names:
    """What GPUs and nodes are called. `shared`: uuids of GPUs in several clusters; `nodes`: names by cluster and
    instance."""

    cluster_label: str
    shared: frozenset[str]
    nodes: Mapping[tuple[str, str], str]

    def values(self, vector: Vector, scope: ScopeName) -> dict[str, float]:
        """The vector by name."""
        if scope == "gpu":
            return values_by_label(vector, "uuid", self.cluster_label, self._gpu if self.shared else None)
        return values_by_label(vector, "instance", self.cluster_label, self._node)

    def _gpu(self, cluster: str, uuid: str) -> str:
        return qualify(uuid, cluster) if uuid in self.shared else uuid

    def _node(self, cluster: str, instance: str) -> str | None:
        return self.nodes.get((cluster, instance))


def _signal_values(
    wanted: Iterable[Signal],
    results: Mapping[str, Vector],
    discarded: Mapping[str, Vector],
    names: _Names,
    unresolved: Collection[str],
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """By signal and by name: the values, and those that cannot be true."""
    values: dict[str, dict[str, float]] = {}
    implausible: dict[str, dict[str, float]] = {}
    for signal in wanted:
        read = names.values(results[signal.name], signal.scope)
        left_out = names.values(discarded.get(signal.name, {}), signal.scope)
        values[signal.name], bad = _split_plausible(signal, read, left_out, unresolved)
        if bad:
            implausible[signal.name] = bad
    return values, implausible


def _split_plausible(
    signal: Signal, read: dict[str, float], left_out: Mapping[str, float], unresolved: Collection[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """The values to use, and those that cannot be true. `left_out` are readings that mean no value; things that are
    `unresolved` have no values over a window.
    """
    found = {**left_out, **read} if left_out else read
    if unresolved and signal.window != "now":
        found = {name: value for name, value in found.items() if name not in unresolved}
    low, high = plausible_range(signal)
    every = np.fromiter(found.values(), np.float64, len(found))
    if not left_out and bool(np.all((every >= low) & (every <= high))):  # a comparison with NaN is false
        return found, {}
    used = {name: value for name, value in found.items() if low <= value <= high and left_out.get(name) != value}
    return used, {name: value for name, value in found.items() if name not in used}


def _driver_states(rows: Iterable[Labels]) -> dict[str, frozenset[str]]:
    """The states of each driver, over all nodes."""
    found: dict[str, set[str]] = {}
    for labels in rows:
        each = dict(labels)
        found.setdefault(each.get("driver", ""), set()).add(each.get("state", ""))
    return {name: frozenset(states) for name, states in found.items()}


def _owners(
    results: Mapping[str, Vector],
    canonical: CanonicalRows,
    settings: Settings,
    observed: ObservedSeries,
    shared: Collection[str],
) -> dict[str, tuple[GpuOwner, ...]]:
    """gpu-exporter's owners win over the pod labels of other exporters."""
    found: dict[str, tuple[GpuOwner, ...]] = {}
    window, label = settings.evaluation.idle_window_seconds, canonical.cluster_label
    expected = {key: window / interval for key, interval in observed.intervals.items()}
    for mapping in mappings_of(settings):
        present = results.get(CURRENT_PREFIX + mapping.name)
        if present and mapping.scope == "gpu" and not mapping.companion and mapping.rank > 0:
            recent = results[RECENT_PREFIX + mapping.name]
            found |= owners_from_pods(mapping, canonical, list(present), recent, results["targets"], expected, shared)
    own = {_canonical_cluster(labels, label): value for labels, value in results["owners"].items()}
    starts = {_canonical_cluster(labels, label): value for labels, value in results["owner_starts"].items()}
    whole = frozenset(
        _canonical_cluster(labels, label)
        for labels, count in results[OWNER_SAMPLES].items()
        if count >= WHOLE_WINDOW_RATIO * expected.get(job_key(labels, label), math.inf)
    )
    found |= owners_from_info(own, starts, whole, shared)
    if not settings.teams:
        return found
    return {uuid: tuple(with_team(owner, settings.teams) for owner in every) for uuid, every in found.items()}


def _in_clusters(owners: dict[str, tuple[GpuOwner, ...]], gpus: Collection[Gpu]) -> dict[str, tuple[GpuOwner, ...]]:
    """Where the GPUs are in several clusters, the owners with theirs."""
    clusters = {gpu.uuid: gpu.cluster for gpu in gpus}
    if len(set(clusters.values())) < 2:
        return owners
    return {
        uuid: tuple(replace(owner, cluster=clusters.get(uuid, "")) for owner in every) for uuid, every in owners.items()
    }


def _canonical_cluster(labels: Labels, cluster_label: str) -> Labels:
    """Labels with the cluster under its canonical name, as identity rows have it."""
    if cluster_label == "cluster":
        return labels
    each = dict(labels)
    each.pop("cluster", None)
    if cluster := each.get(cluster_label):
        each["cluster"] = cluster
    return tuple(sorted(each.items()))
