"""What one evaluation knows: who is there, and each signal's value for each of them. No clock, no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import fsum

from gpu_advisor.calibration.profile_index import ProfileIndex
from gpu_advisor.evaluation.history import DemandSignal, PoolSample
from gpu_advisor.evaluation.recommendation import Abstention, Evidence, LabelSelection, Reason, Scope
from gpu_advisor.evaluation.signals import Signal
from gpu_advisor.promql.expressions import Expression
from gpu_advisor.promql.vocabulary import ScopeName
from gpu_advisor.settings import EvaluationSettings


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

    `exporters` are the exporter families that can give a signal, `doubled` the GPUs that several of them tell of.
    `jobs` is whose work each GPU does, where it is one owner's; `reported_jobs` are the jobs that report themselves,
    by GPU, and `shelf` what was measured of such jobs beforehand. `trails`, the work in the last step of each
    (`pool_work_expressions`) and `demands` are by pool, of those that are scaled.
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
    drivers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    down_targets: tuple[str, ...] = ()
    simulated: bool = False
    exporters_by_signal: Mapping[str, frozenset[str]] = field(default_factory=dict)
    implausible_values: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    exporters_of_duplicates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _instances: Mapping[str, str] = field(init=False, repr=False, compare=False)
    jobs: Mapping[str, str] = field(default_factory=dict)
    reported_jobs: Mapping[str, str] = field(default_factory=dict)
    profiles: ProfileIndex = field(default_factory=ProfileIndex)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_instances", {node.name: node.instance for node in self.nodes})

    def value(self, signal: Signal, name: str) -> float | None:
        """The signal's value for a GPU's uuid or a node's name; None if there is none."""
        return self.values.get(signal.name, {}).get(name)

    def supports(self, signal: Signal, gpu: Gpu | None = None) -> bool:
        """Whether the exporters here, or the one of this GPU, can give this signal at all."""
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
        """The signal's value for one thing, or its mean over several that all have one."""
        all_values = self.values.get(signal.name, {})
        values = [all_values[name] for name in names if name in all_values]
        label, keys = self._selector(signal.scope, names)
        # Most evidence is on one of very many: then there is nothing to compare.
        everything = len(names) >= len(all_values) and all_values.keys() <= set(names)
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
            things=LabelSelection(label, keys, everything),
        )

    def _selector(self, scope: ScopeName, names: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        if scope == "gpu":
            return "uuid", names
        return "instance", tuple(self._instances[name] for name in names if name in self._instances)

    def explain_missing(self, signal: Signal, scope: Scope, gpu: Gpu | None = None) -> Abstention:
        """Why there is no value, as far as it can be told, and what would mend it."""
        refused = None if gpu is None else self.implausible_values.get(signal.name, {}).get(gpu.uuid)
        if not self.supports(signal):
            reason, message = Reason.UNSUPPORTED, "no exporter here publishes what this needs"
        elif not self.supports(signal, gpu) and gpu is not None:
            reason, message = Reason.UNSUPPORTED, f"{gpu.exporter} does not publish what this needs for {gpu.scope}"
        elif refused is not None and gpu is not None:
            reason, message = Reason.CONFLICTING, _implausible_message(refused, signal, gpu)
        elif gpu is not None and gpu.up is False:
            reason, message = Reason.NO_DATA, f"{gpu.scope} is down: see gpu_down_info of the exporter for the reason"
        elif gpu is not None and gpu.up is None:
            reason, message = Reason.STALE, f"nothing is heard of {gpu.scope} any more: see if its exporter is up"
        else:
            reason, message = Reason.NO_DATA, "no sample in the window: too early, or the kernel or driver lacks it"
        return Abstention(reason, signal.name, scope, message)


def _implausible_message(value: float, signal: Signal, gpu: Gpu) -> str:
    told = f"{value:.4g}" if signal.unit != "ratio" else f"{100 * value:.4g} %"
    who = gpu.exporter or "the exporter"
    return f"{who} says {told} of {gpu.scope} for the {signal.about}, which cannot be: see what ails that exporter"


def host_of(instance: str) -> str:
    """The host of HOST:PORT."""
    return instance.rpartition(":")[0] or instance
