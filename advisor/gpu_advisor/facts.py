"""What one evaluation knows: who is there, and each signal's value for each of them. No clock, no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum

from gpu_advisor.calibration.curves import Shelf
from gpu_advisor.demand import Reading
from gpu_advisor.expressions import Expression, Labels, Vector
from gpu_advisor.recommendation import Abstention, Evidence, Reason, Scope, Things
from gpu_advisor.settings import Evaluation
from gpu_advisor.signals import Signal
from gpu_advisor.sources.detection import Roster, target_of
from gpu_advisor.sources.mapping import ScopeName
from gpu_advisor.trails import Seen


@dataclass(frozen=True, slots=True, order=True)
class Gpu:
    """One GPU. `up` is None for a GPU that was there lately and of which nothing is heard now.

    `exporter` is the family that is listened to for it, by the name of its mapping.
    """

    uuid: str
    index: str
    name: str
    vendor: str
    node: str
    up: bool | None
    exporter: str = ""

    @property
    def scope(self) -> Scope:
        return Scope("gpu", self.uuid, f"{self.node} GPU {self.index}" if self.index else self.uuid)


@dataclass(frozen=True, slots=True, order=True)
class Node:
    name: str
    instance: str

    @property
    def scope(self) -> Scope:
        return Scope("node", self.name)


@dataclass(frozen=True, slots=True)
class Facts:
    """`values` are by signal and by a GPU's uuid or a node's name; `refused` are those that cannot be true.

    `speaking` are the exporter families that can give a signal, `doubled` the GPUs that several of them tell of.
    `jobs` is whose work each GPU does, where it is one owner's; `reported_jobs` are the jobs that report themselves,
    by GPU, and `shelf` what was measured of such jobs beforehand. `trails`, the work in the last step of each
    (`trail_expressions`) and `demands` are by pool, of those that are scaled.
    """

    at: float
    gpus: tuple[Gpu, ...]
    nodes: tuple[Node, ...]
    values: Mapping[str, Mapping[str, float]]
    expressions: Mapping[str, Expression]
    evaluation: Evaluation
    trails: Mapping[str, tuple[Seen, ...]] = field(default_factory=dict)
    trail_expressions: Mapping[str, Expression] = field(default_factory=dict)
    demands: Mapping[str, Reading] = field(default_factory=dict)
    drivers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    silent_targets: tuple[str, ...] = ()
    simulated: bool = False
    speaking: Mapping[str, frozenset[str]] = field(default_factory=dict)
    refused: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    doubled: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _instances: Mapping[str, str] = field(init=False, repr=False, compare=False)
    jobs: Mapping[str, str] = field(default_factory=dict)
    reported_jobs: Mapping[str, str] = field(default_factory=dict)
    shelf: Shelf = field(default_factory=Shelf)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_instances", {node.name: node.instance for node in self.nodes})

    def value(self, signal: Signal, name: str) -> float | None:
        """The signal's value for a GPU's uuid or a node's name; None if there is none."""
        return self.values.get(signal.name, {}).get(name)

    def supports(self, signal: Signal, gpu: Gpu | None = None) -> bool:
        """Whether the exporters here, or the one of this GPU, can give this signal at all."""
        speaking = self.speaking.get(signal.name)
        if gpu is None or not gpu.exporter or speaking is None:
            return signal.name in self.expressions
        return gpu.exporter in speaking

    def evidence(
        self,
        signal: Signal,
        names: tuple[str, ...],
        threshold: float | None = None,
        samples: int | None = None,
        coverage: float | None = None,
    ) -> Evidence:
        """The signal's value for one thing, or its mean over several that all have one."""
        everybody = self.values.get(signal.name, {})
        values = [everybody[name] for name in names if name in everybody]
        label, keys = self._selector(signal.scope, names)
        # Most evidence is on one of very many: then there is nothing to compare.
        everything = len(names) >= len(everybody) and everybody.keys() <= set(names)
        return Evidence(
            signal=signal.name,
            about=signal.about,
            unit=signal.unit,
            statistic=signal.reduction,
            window_seconds=signal.window_seconds(self.evaluation),
            value=fsum(values) / len(values) if values else None,
            at=self.at,
            expression=self.expressions.get(signal.name) if keys else None,
            threshold=threshold,
            samples=samples,
            coverage=coverage,
            things=Things(label, keys, everything),
        )

    def _selector(self, scope: ScopeName, names: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        if scope == "gpu":
            return "uuid", names
        return "instance", tuple(self._instances[name] for name in names if name in self._instances)

    def missing(self, signal: Signal, scope: Scope, gpu: Gpu | None = None) -> Abstention:
        """Why there is no value, as far as it can be told, and what would mend it."""
        refused = None if gpu is None else self.refused.get(signal.name, {}).get(gpu.uuid)
        if not self.supports(signal):
            reason, message = Reason.UNSUPPORTED, "no exporter here publishes what this needs"
        elif not self.supports(signal, gpu) and gpu is not None:
            reason, message = Reason.UNSUPPORTED, f"{gpu.exporter} does not publish what this needs for {gpu.scope}"
        elif refused is not None and gpu is not None:
            reason, message = Reason.CONFLICTING, _refusal(refused, signal, gpu)
        elif gpu is not None and gpu.up is False:
            reason, message = Reason.NO_DATA, f"{gpu.scope} is down: see gpu_down_info of the exporter for the reason"
        elif gpu is not None and gpu.up is None:
            reason, message = Reason.STALE, f"nothing is heard of {gpu.scope} any more: see if its exporter is up"
        else:
            reason, message = Reason.NO_DATA, "no sample in the window: too early, or the kernel or driver lacks it"
        return Abstention(reason, signal.name, scope, message)


def _refusal(value: float, signal: Signal, gpu: Gpu) -> str:
    told = f"{value:.4g}" if signal.unit != "ratio" else f"{100 * value:.4g} %"
    who = gpu.exporter or "the exporter"
    return f"{who} says {told} of {gpu.scope} for the {signal.about}, which cannot be: see what ails that exporter"


#: Rounding of whole percents, and of two counters that are read one after the other.
SHARE_SLACK = 0.005

#: DCGM says "no value" by numbers from 1.4e14 (as a fraction) to 9.2e18 (as a whole number) on; no GPU has so much.
BEYOND_MEASURE = 1e14


def believable(signal: Signal) -> tuple[float, float]:
    """Between what a reading can be true. A rate may overshoot, being extrapolated; what is read as it is may not."""
    if signal.scope != "gpu" or signal.unit != "ratio" or signal.reduction in ("rate", "increase", "coverage"):
        return -BEYOND_MEASURE, BEYOND_MEASURE
    return -SHARE_SLACK, 1 + SHARE_SLACK


#: States of a GPU driver in which an exporter names no GPUs because it cannot, not because there are none.
BLIND_DRIVERS = frozenset({"failed", "hung", "no_permission"})


def build_gpus(
    roster: Roster, up: Mapping[str, float], targets: Vector, drivers: Vector, nodes: Sequence[Node] = ()
) -> tuple[Gpu, ...]:
    """The GPUs there now, and those there lately whose exporter is silent: that must not look like fewer GPUs.

    `up` is the GPUs' health by uuid, `targets` the health of what is scraped, `drivers` the state of the exporters'
    drivers. A GPU that an answering exporter no longer names is gone, and so is one whose exporter is no longer scraped
    at all. Where several exporters tell of a GPU, the one of the lowest rank is listened to.
    """
    health = {target_of(labels): value for labels, value in targets.items()}
    blind = {target_of(labels) for labels in drivers if dict(labels).get("state") in BLIND_DRIVERS}
    hosts = {host_of(node.instance): node.name for node in nodes}
    lost = [
        labels
        for labels in roster.seen
        if not health or health.get(target_of(labels)) == 0 or target_of(labels) in blind
    ]
    found: dict[str, Gpu] = {}
    for labels in (*roster.present, *lost):  # the present identity wins over a former one, a lower rank over a higher
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


def host_of(instance: str) -> str:
    """The host of HOST:PORT."""
    return instance.rpartition(":")[0] or instance


def doubled(roster: Roster) -> dict[str, tuple[str, ...]]:
    """GPUs that several exporter families tell of now, and these families, the one that is listened to first."""
    found: dict[str, dict[str, None]] = {}
    for labels in roster.present:
        each = dict(labels)
        if "uuid" in each:
            found.setdefault(each["uuid"], {})[each["exporter"]] = None
    return {uuid: tuple(exporters) for uuid, exporters in found.items() if len(exporters) > 1}


#: What an owner is called by: the first of these that is there.
JOB_LABELS = (("training_job",), ("owner_namespace", "owner_pod"), ("owner_unit",), ("owner_container",))


def job_of_each(owners: Vector) -> dict[str, str]:
    """Whose work a GPU does, by uuid. A GPU that several share is nobody's."""
    found: dict[str, set[str]] = {}
    for labels in owners:
        each = dict(labels)
        named = (tuple(each[label] for label in names if each.get(label)) for names in JOB_LABELS)
        name = next((parts for parts in named if parts), None)
        if name and "uuid" in each:
            found.setdefault(each["uuid"], set()).add("/".join(name))
    return {uuid: next(iter(names)) for uuid, names in found.items() if len(names) == 1}


def silent_targets(targets: Vector, gpu_series: Iterable[Labels]) -> tuple[str, ...]:
    """Addresses that do not answer, of the jobs that watch GPUs; of all jobs while none is known to."""
    jobs = {target_of(labels)[0] for labels in gpu_series}
    silent = {target_of(labels) for labels, value in targets.items() if value == 0}
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


def by_thing(vector: Vector, label: str, rename: Mapping[str, str] | None = None) -> dict[str, float]:
    """A vector by the value of one label; `rename` maps these values to names, and leaves out what it has not."""
    values: dict[str, float] = {}
    for labels, value in vector.items():
        if len(labels) == 1 and labels[0][0] == label:  # nearly always, in fleets of thousands
            key: str | None = labels[0][1]
        else:
            key = dict(labels).get(label)
        name = key if rename is None or key is None else rename.get(key)
        if name is not None:
            values[name] = value
    return values
