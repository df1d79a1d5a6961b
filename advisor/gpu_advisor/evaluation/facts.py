"""The facts of one evaluation: the GPUs and nodes, and each signal's value for each of them. No clock, no network."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import overload

from gpu_advisor.calibration.profile_index import ProfileIndex
from gpu_advisor.cost.list_prices import ListPrice
from gpu_advisor.cost.offers import GpuVariant
from gpu_advisor.evaluation.history import DemandSignal, PoolSample
from gpu_advisor.evaluation.owners import GpuOwner, Lease
from gpu_advisor.evaluation.recommendation import Evidence, LabelSelection, Scope
from gpu_advisor.evaluation.serving.facts import ServingFacts
from gpu_advisor.evaluation.signals import Signal
from gpu_advisor.promql.expressions import Expression, Matcher, ScopeName, TimeSeries
from gpu_advisor.promql.query_language import PROMQL, QueryLanguage
from gpu_advisor.settings import EvaluationSettings


@dataclass(frozen=True, slots=True, order=True)
class Gpu:
    """One GPU. `up` is None for a GPU that was observed recently but does not report now.

    `uuid` has its cluster before it, and a slash, if GPUs of several clusters share it. `exporter` is the exporter
    family used for it, by the name of its mapping. `unified`: its memory is also the CPU's. A MIG slice has a profile,
    and the uuid of its board as `parent`.
    """

    uuid: str
    index: str
    name: str
    vendor: str
    node: str
    up: bool | None
    exporter: str = ""
    cluster: str = ""
    unified: bool = False
    mig_profile: str = ""
    parent: str = ""

    @property
    def host(self) -> str:
        """What the node itself and its scheduler call it: its name without the cluster."""
        return self.node.removeprefix(f"{self.cluster}/")

    @property
    def scope(self) -> Scope:
        return Scope("gpu", self.uuid, f"{self.node} GPU {self.index}" if self.index else self.uuid)


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """A node. Its name begins with its cluster, if the source has a label for that; `target` is what service discovery
    calls it.
    """

    name: str
    instance: str
    cluster: str = ""
    target: str = ""

    @property
    def scope(self) -> Scope:
        return Scope("node", self.name)


@dataclass(frozen=True, slots=True)
class FleetIndex:
    """GPUs and nodes, found by name. Facts that replace others keep it: it is made once per evaluation.

    `clusters` are those of GPUs by uuid, where they have one; `several_clusters` says whether these differ.
    """

    gpus: tuple[Gpu, ...] = ()
    nodes: tuple[Node, ...] = ()
    gpus_of_nodes: Mapping[str, tuple[Gpu, ...]] = field(default_factory=dict)
    nodes_by_name: Mapping[str, Node] = field(default_factory=dict)
    clusters: Mapping[str, str] = field(default_factory=dict)
    several_clusters: bool = False

    @classmethod
    def of(cls, gpus: tuple[Gpu, ...], nodes: tuple[Node, ...]) -> FleetIndex:
        gpus_of_nodes: dict[str, list[Gpu]] = {}
        for gpu in gpus:
            gpus_of_nodes.setdefault(gpu.node, []).append(gpu)
        clusters = {gpu.uuid: gpu.cluster for gpu in gpus if gpu.cluster}
        return cls(
            gpus,
            nodes,
            {node: tuple(found) for node, found in gpus_of_nodes.items()},
            {node.name: node for node in nodes},
            clusters,
            len({gpu.cluster for gpu in gpus}) > 1 if clusters else False,
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """`values` are by signal and by GPU uuid or node name; `implausible_values` are those that cannot be true.

    `exporters_by_signal` are the exporter families that support a signal; `exporters_of_duplicates` are those of GPUs
    that several exporters report. `jobs` names the owner of each GPU that has a single one; `reported_jobs` are the
    jobs that report metrics themselves, by GPU uuid, and `profiles` the probe profiles of such jobs. `pool_histories`,
    the work in the last step of each (`pool_work_expressions`) and `demand_signals` are by pool, for scaled pools;
    `slo_histories` reach back a day, for pools whose headroom is tuned to an SLO.
    `owners` and `leases` are by GPU; `activity` is the utilization of idle GPUs over the last day, by steps, or None if
    only windows were read. `down_reasons` say why GPUs are down, by the exporter's word; `unmapped_exporters` says
    which exporters are not read, `unmatched_hosts` which GPUs have no host metrics, and how to fix it. `unresolved` are
    GPUs with overlapping series; `cluster_label` names the cluster in series, if they have one. `list_prices` are what
    GPUs cost that have no price in the settings. On `slurm_nodes`, by name, Slurm schedules.
    """

    at: float
    gpus: tuple[Gpu, ...]
    nodes: tuple[Node, ...]
    values: Mapping[str, Mapping[str, float]]
    expressions: Mapping[str, Expression]
    evaluation: EvaluationSettings
    pool_histories: Mapping[str, tuple[PoolSample, ...]] = field(default_factory=dict)
    pool_work_expressions: Mapping[str, Expression] = field(default_factory=dict)
    demand_signals: Mapping[str, DemandSignal] = field(default_factory=dict)
    slo_histories: Mapping[str, tuple[PoolSample, ...]] = field(default_factory=dict)
    drivers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    down_targets: tuple[str, ...] = ()
    simulated: bool = False
    exporters_by_signal: Mapping[str, frozenset[str]] = field(default_factory=dict)
    implausible_values: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    exporters_of_duplicates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    owners: Mapping[str, tuple[GpuOwner, ...]] = field(default_factory=dict)
    activity: Mapping[str, TimeSeries] | None = None
    activity_step_seconds: float = 300
    down_reasons: Mapping[str, str] = field(default_factory=dict)
    unresolved: frozenset[str] = frozenset()
    unmapped_exporters: tuple[str, ...] = ()
    unmatched_hosts: str = ""
    cluster_label: str = ""
    language: QueryLanguage = PROMQL  # of the engine that gave the values
    jobs: Mapping[str, str] = field(default_factory=dict)
    reported_jobs: Mapping[str, str] = field(default_factory=dict)
    profiles: ProfileIndex = field(default_factory=ProfileIndex)
    list_prices: Mapping[GpuVariant, ListPrice] = field(default_factory=dict)
    leases: Mapping[str, Lease] = field(default_factory=dict)
    serving: ServingFacts = field(default_factory=ServingFacts)
    slurm_nodes: frozenset[str] = frozenset()
    index: FleetIndex = field(default=FleetIndex(), repr=False, compare=False)  # of `gpus` and `nodes`

    def __post_init__(self) -> None:
        if self.index.gpus is not self.gpus or self.index.nodes is not self.nodes:
            object.__setattr__(self, "index", FleetIndex.of(self.gpus, self.nodes))

    def column(self, signal: Signal) -> Mapping[str, float]:
        """The signal's values by GPU or node; those without one are absent."""
        return self.values.get(signal.name, {})

    def value(self, signal: Signal, name: str) -> float | None:
        """The signal's value for a GPU's uuid or a node's name; None if there is none."""
        return self.values.get(signal.name, {}).get(name)

    def uuid_label(self, uuid: str) -> str:
        """The label value of a GPU's uuid in its series, without the cluster."""
        cluster = self.index.clusters.get(uuid)
        return uuid if cluster is None else uuid.removeprefix(f"{cluster}/")

    def cluster_of(self, gpu: Gpu) -> str:
        """The GPU's cluster, for commands and names of owners; empty if all GPUs are in one."""
        return gpu.cluster if self.index.several_clusters else ""

    def gpus_of_node(self, node: str) -> tuple[Gpu, ...]:
        return self.index.gpus_of_nodes.get(node, ())

    def supports(self, signal: Signal, gpu: Gpu | None = None) -> bool:
        """Whether the exporters present, or the one of this GPU, support this signal at all."""
        exporters = self.exporters_by_signal.get(signal.name)
        if gpu is None or not gpu.exporter or exporters is None:
            return signal.name in self.expressions
        return gpu.exporter in exporters

    def evidence(
        self,
        signal: Signal,
        names: tuple[str, ...],
        threshold: float | None = None,
        samples: int | None = None,
        coverage: float | None = None,
    ) -> Evidence:
        """The signal's value for one GPU or node, or its mean over several that all have one."""
        all_values = self.column(signal)
        label, keys, matchers = self._selector(signal.scope, names)
        # Most evidence is on one of very many: the lengths decide without comparing sets.
        everything = len(names) >= len(all_values) and all_values.keys() <= set(names)
        return Evidence(
            signal=signal.name,
            about=signal.about,
            unit=signal.unit,
            statistic=signal.reduction,
            window_seconds=signal.window_seconds(self.evaluation),
            value=self.mean(signal, names),
            at=self.at,
            expression=self.expressions.get(signal.name) if keys else None,
            threshold=threshold,
            samples=samples,
            coverage=coverage,
            things=LabelSelection(label, keys, everything, matchers),
            language=self.language,
        )

    def evidence_on_demand(
        self, signal: Signal, names: tuple[str, ...], threshold: float | None = None, coverage: float | None = None
    ) -> Sequence[Evidence]:
        """`evidence`, made when somebody looks at it: a checklist of 10,000 GPUs has 27,500, and few are shown."""
        return EvidenceOnDemand(self, signal, names, threshold, coverage)

    def mean(self, signal: Signal, names: Collection[str]) -> float | None:
        """The signal's mean over those GPUs or nodes that have a value."""
        all_values = self.column(signal)
        values = [all_values[name] for name in names if name in all_values]
        return fsum(values) / len(values) if values else None

    def _selector(self, scope: ScopeName, names: tuple[str, ...]) -> tuple[str, tuple[str, ...], tuple[Matcher, ...]]:
        """The label, its values and, for things of one cluster, its matcher."""
        if scope == "node":
            named = self.index.nodes_by_name
            nodes = [named[name] for name in names if name in named]
            return (
                "instance",
                tuple(node.instance for node in nodes),
                self._in_cluster({each.cluster for each in nodes}),
            )
        if not self.index.clusters:
            return "uuid", names, ()
        clusters = {self.index.clusters.get(name, "") for name in names}
        return "uuid", tuple(map(self.uuid_label, names)), self._in_cluster(clusters)

    def _in_cluster(self, clusters: set[str]) -> tuple[Matcher, ...]:
        if not self.cluster_label or len(clusters) != 1 or not (cluster := next(iter(clusters))):
            return ()
        return (Matcher(self.cluster_label, "=", cluster),)


@dataclass(slots=True)  # frozen would take three times as long, 27,500 times
class EvidenceOnDemand(Sequence[Evidence]):
    """A sequence of the one evidence that these arguments give."""

    facts: Facts = field(repr=False, compare=False)
    signal: Signal
    names: tuple[str, ...]
    threshold: float | None
    coverage: float | None

    def __len__(self) -> int:
        return 1

    @overload
    def __getitem__(self, index: int) -> Evidence: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Evidence, ...]: ...

    def __getitem__(self, index: int | slice) -> Evidence | tuple[Evidence, ...]:
        return (self.facts.evidence(self.signal, self.names, self.threshold, coverage=self.coverage),)[index]


def host_of(instance: str) -> str:
    """The host of HOST:PORT."""
    return instance.rpartition(":")[0] or instance
