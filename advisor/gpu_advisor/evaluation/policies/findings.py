"""One cause, found on some GPUs of one scope: the input and the result of a policy on a diagnosis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal

from gpu_advisor.evaluation.actions import Action
from gpu_advisor.evaluation.diagnosis.decision_table import DIAGNOSES, DecisionRow
from gpu_advisor.evaluation.diagnosis.diagnose import SINGLE_GPU_DIAGNOSES, GpuDiagnosis, features_of, signals_of
from gpu_advisor.evaluation.diagnosis.peers import MIN_BUSY_RATIO, Peers, model_group
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import Alternative, Confidence, Evidence, Projection, Scope, Severity
from gpu_advisor.evaluation.signals import IDLE_UTILIZATION, SM_CLOCK, Signal
from gpu_advisor.settings import Settings

#: At most this many GPUs get lines of their own.
MAX_LISTED_GPUS = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """`rows` are the matching rows of the decision table, one for each of `outcomes`."""

    facts: Facts
    settings: Settings
    pool: Pool
    peers: Peers
    scope: Scope
    diagnosis: str
    outcomes: tuple[GpuDiagnosis, ...]
    rows: tuple[DecisionRow, ...]

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        return tuple(outcome.gpu for outcome in self.outcomes)

    @property
    def count(self) -> str:
        """The number of GPUs as text."""
        return f"{len(self.outcomes)} {self.agreeing('GPU', 'GPUs')}"

    def agreeing(self, one: str, several: str) -> str:
        """The word that agrees with the number of GPUs: `waits` or `wait`."""
        return one if len(self.outcomes) == 1 else several

    def has_variant(self, variant: str) -> bool:
        return any(row.variant == variant for row in self.rows)

    def mean(self, feature: str) -> float | None:
        """The mean over all GPUs that have the feature."""
        values = [value for outcome in self.outcomes if (value := outcome.features[feature]) is not None]
        return fmean(values) if values else None

    def at_least(self, feature: str, level: float) -> bool:
        """Whether the mean is known and reaches `level`."""
        value = self.mean(feature)
        return value is not None and value >= level

    def evidence(self, advice: PolicyAdvice) -> Iterator[Evidence]:
        """Each signal that the rows use or the advice quotes, utilization first, with a threshold if the signal itself
        is compared."""
        thresholds = _thresholds(self.rows)
        used = (*(feature for row in dict.fromkeys(self.rows) for feature in features_of(row)), *advice.quotes)
        found = (IDLE_UTILIZATION, *signals_of(used), *advice.signals)
        names = {"gpu": tuple(gpu.uuid for gpu in self.gpus), "node": tuple(sorted({gpu.node for gpu in self.gpus}))}
        for signal in dict.fromkeys(found):
            measured = self._measured(signal, names[signal.scope])
            evidence = self.facts.evidence(signal, measured, thresholds.get(signal.name))
            if evidence.value is not None:
                yield evidence
        for signal in advice.peer_signals:
            yield from self._peers_evidence(signal)

    def _peers_evidence(self, signal: Signal) -> Iterator[Evidence]:
        """The value that these GPUs are compared with: that of the model's GPU which is nearest to the median."""
        gpu = self.gpus[0]
        median = self.peers.median_of_others(model_group(gpu), signal.name, self.facts.value(signal, gpu.uuid))
        own = {each.uuid for each in self.gpus}
        others = {
            each.uuid: value
            for each in self.pool.devices
            if each.name == gpu.name and each.uuid not in own and self._is_compared(signal, each)
            and (value := self.facts.value(signal, each.uuid)) is not None
        }  # fmt: skip
        if median is not None and others:
            typical = min(others, key=lambda uuid: (abs(others[uuid] - median), uuid))
            yield replace(self.facts.evidence(signal, (typical,)), about=f"{signal.about} of a typical peer")

    def _is_compared(self, signal: Signal, gpu: Gpu) -> bool:
        """Of clocks, only those of busy GPUs are, as in build_peers."""
        busy = self.facts.value(IDLE_UTILIZATION, gpu.uuid)
        return signal is not SM_CLOCK or (busy is not None and busy >= MIN_BUSY_RATIO)

    def _measured(self, signal: Signal, names: tuple[str, ...]) -> tuple[str, ...]:
        """The names that have a value of the signal."""
        return tuple(name for name in names if self.facts.value(signal, name) is not None)


def _thresholds(rows: Iterable[DecisionRow]) -> dict[str, float]:
    """Thresholds by signal, for features that are a signal's own value."""
    found: dict[str, float] = {}
    for row in rows:
        for condition in row.conditions:
            for part in condition.parts():
                if part.feature in SINGLE_SIGNAL_FEATURES:
                    (signal,) = signals_of((part.feature,))
                    found.setdefault(signal.name, part.holds_from)
    return found


#: Features that are a signal's own value.
SINGLE_SIGNAL_FEATURES = frozenset(
    {"utilization", "sm_activity", "memory_held", "day_peak", "cpu", "io_pressure", "input_rate"}
)


@dataclass(frozen=True, slots=True)
class PolicyAdvice:
    """What a policy contributes to a recommendation; the rest is the same for all policies.

    `cause` explains the diagnosis where it has several, else its own explanation does. `quotes` are the features whose
    values the summary quotes: evidence shows their signals, further `signals`, and `peer_signals` of the peers.
    """

    summary: str
    actions: tuple[Action, ...]
    rejected: tuple[Alternative, ...]
    confidence: Confidence = "medium"
    severity: Severity = "warning"
    direction: Literal["up", "down", "change"] = "change"
    projection: Projection = field(default_factory=Projection)
    cause: str = ""
    quotes: tuple[str, ...] = ()
    signals: tuple[Signal, ...] = ()
    peer_signals: tuple[Signal, ...] = ()


def group_findings(
    facts: Facts, settings: Settings, pool: Pool, peers: Peers, outcomes: Iterable[GpuDiagnosis]
) -> tuple[Finding, ...]:
    """GPUs grouped by cause and by job, node or pool."""
    found: dict[tuple[str, Scope], list[tuple[GpuDiagnosis, DecisionRow]]] = {}
    for outcome in outcomes:
        for row in (*((outcome.row,) if outcome.row else ()), *outcome.secondary_rows):
            if DIAGNOSES[row.diagnosis].kinds:
                scope = scope_of(row.diagnosis, pool, peers, outcome.gpu)
                found.setdefault((row.diagnosis, scope), []).append((outcome, row))
    return tuple(
        Finding(facts, settings, pool, peers, scope, diagnosis, *zip(*members, strict=True))
        for (diagnosis, scope), members in found.items()
    )


def scope_of(diagnosis: str, pool: Pool, peers: Peers, gpu: Gpu) -> Scope:
    """The node if hardware is the cause; else the job, else the pool."""
    job = peers.jobs.get(gpu.uuid)
    if diagnosis in SINGLE_GPU_DIAGNOSES and (diagnosis != "straggler" or job is None):
        return Scope("node", gpu.node)
    return pool.scope if job is None else Scope("job", job)


def percent(value: float | None) -> str:
    return "?" if value is None else f"{value:.0%}"


def more_gpus(gpus: Sequence[Gpu]) -> Iterator[str]:
    """How many more there are than have lines of their own, and which."""
    rest = gpus[MAX_LISTED_GPUS:]
    if rest:
        names = str(rest[0].scope) if len(rest) == 1 else f"{rest[0].scope} to {rest[-1].scope}"
        yield f"and {len(rest)} more: {names}"


def listed_gpus(gpus: Iterable[Gpu]) -> tuple[Gpu, ...]:
    """The first few, which get lines of their own."""
    return tuple(gpus)[:MAX_LISTED_GPUS]
