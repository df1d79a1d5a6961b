"""What one evaluation knows: who is there, and each signal's value for each of them. No clock, no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import fsum

from gpu_advisor.expressions import Expression, Labels, Vector
from gpu_advisor.recommendation import Abstention, Evidence, Reason, Scope
from gpu_advisor.settings import Evaluation
from gpu_advisor.signals import Signal, for_things
from gpu_advisor.sources.base import Trail
from gpu_advisor.sources.mapping import ScopeName


@dataclass(frozen=True, slots=True, order=True)
class Gpu:
    """One GPU. `up` is None for a GPU that was there lately and of which nothing is heard now."""

    uuid: str
    index: str
    name: str
    vendor: str
    node: str
    up: bool | None

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
    at: float
    gpus: tuple[Gpu, ...]
    nodes: tuple[Node, ...]
    values: Mapping[str, Mapping[str, float]]
    expressions: Mapping[str, Expression]
    evaluation: Evaluation
    trails: Mapping[str, Trail] = field(default_factory=dict)
    drivers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    silent_targets: tuple[str, ...] = ()
    simulated: bool = False

    def value(self, signal: Signal, name: str) -> float | None:
        """The signal's value for a GPU's uuid or a node's name; None if there is none."""
        return self.values.get(signal.name, {}).get(name)

    def supports(self, signal: Signal) -> bool:
        """Whether the exporters here can give this signal at all."""
        return signal.name in self.expressions

    def evidence(
        self,
        signal: Signal,
        names: tuple[str, ...],
        threshold: float | None = None,
        samples: int | None = None,
        coverage: float | None = None,
    ) -> Evidence:
        """The signal's value for one thing, or its mean over several that all have one."""
        values = [value for value in (self.value(signal, name) for name in names) if value is not None]
        label, keys = self._selector(signal.scope, names)
        expression = self.expressions.get(signal.name)
        held = None
        if expression is not None and keys:
            everything = set(self.values.get(signal.name, {})) <= set(names)
            held = for_things(expression, label, keys, everything)
        return Evidence(
            signal=signal.name,
            about=signal.about,
            unit=signal.unit,
            statistic=signal.reduction,
            window_seconds=signal.window_seconds(self.evaluation),
            value=fsum(values) / len(values) if values else None,
            at=self.at,
            expression=held,
            threshold=threshold,
            samples=samples,
            coverage=coverage,
        )

    def _selector(self, scope: ScopeName, names: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        if scope == "gpu":
            return "uuid", names
        instances = {node.name: node.instance for node in self.nodes}
        return "instance", tuple(instances[name] for name in names if name in instances)

    def missing(self, signal: Signal, scope: Scope, gpu: Gpu | None = None) -> Abstention:
        """Why there is no value, as far as it can be told, and what would mend it."""
        if not self.supports(signal):
            reason, message = Reason.UNSUPPORTED, "no exporter here publishes what this needs"
        elif gpu is not None and gpu.up is False:
            reason, message = Reason.NO_DATA, f"{gpu.scope} is down: see gpu_down_info of the exporter for the reason"
        elif gpu is not None and gpu.up is None:
            reason, message = Reason.STALE, f"nothing is heard of {gpu.scope} any more: see if its exporter is up"
        else:
            reason, message = Reason.NO_DATA, "no sample in the window: too early, or the kernel or driver lacks it"
        return Abstention(reason, signal.name, scope, message)


#: States of a GPU driver in which an exporter names no GPUs because it cannot, not because there are none.
BLIND_DRIVERS = frozenset({"failed", "hung", "no_permission"})


def build_gpus(
    info: Vector, seen: Vector, up: Mapping[str, float], targets: Vector, drivers: Vector
) -> tuple[Gpu, ...]:
    """The GPUs there now, and those there lately whose exporter is silent: that must not look like fewer GPUs.

    `info` are the identity series there now, `seen` those of the time before, `up` the GPUs' health by uuid, `targets`
    the health of what is scraped, `drivers` the state of the exporters' drivers. A GPU that an answering exporter no
    longer names is gone, and so is one whose exporter is no longer scraped at all.
    """
    health = {target_of(labels): value for labels, value in targets.items()}
    blind = {target_of(labels) for labels in drivers if dict(labels).get("state") in BLIND_DRIVERS}
    lost = [
        labels
        for labels in sorted(seen)
        if not health or health.get(target_of(labels)) == 0 or target_of(labels) in blind
    ]
    found: dict[str, Gpu] = {}
    for labels in (*lost, *sorted(info)):  # the present identity wins over a former one
        each = dict(labels)
        uuid = each.get("uuid")
        if uuid:
            node = each.get("nodename") or each.get("instance", "")
            state = up.get(uuid)
            found[uuid] = Gpu(
                uuid, each.get("index", ""), each.get("name", ""), each.get("vendor", ""), node,
                None if state is None else state > 0,
            )  # fmt: skip
    return tuple(sorted(found.values(), key=lambda gpu: (gpu.node, gpu.index.zfill(6), gpu.uuid)))


def target_of(labels: Labels) -> tuple[str, str]:
    """Which scraped target a series is of: one address may be scraped by several jobs."""
    each = dict(labels)
    return each.get("job", ""), each.get("instance", "")


def silent_targets(targets: Vector, gpu_series: Iterable[Labels]) -> tuple[str, ...]:
    """Addresses that do not answer, of the jobs that watch GPUs; of all jobs while none is known to."""
    jobs = {target_of(labels)[0] for labels in gpu_series}
    silent = {target_of(labels) for labels, value in targets.items() if value == 0}
    return tuple(sorted({instance for job, instance in silent if not jobs or job in jobs}))


def build_nodes(info: Vector) -> tuple[Node, ...]:
    """One node a name. Where two exporters speak for a node, the first by address is listened to."""
    found: dict[str, Node] = {}
    for labels in sorted(info, key=lambda labels: dict(labels).get("instance", "")):
        each = dict(labels)
        name, instance = each.get("nodename"), each.get("instance")
        if name and instance:
            found.setdefault(name, Node(name, instance))
    return tuple(sorted(found.values()))


def by_thing(vector: Vector, label: str, rename: Mapping[str, str] | None = None) -> dict[str, float]:
    """A vector by the value of one label; `rename` maps these values to names, and leaves out what it has not."""
    values: dict[str, float] = {}
    for labels, value in vector.items():
        key = dict(labels).get(label)
        name = key if rename is None or key is None else rename.get(key)
        if name is not None:
            values[name] = value
    return values
