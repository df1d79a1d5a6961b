"""The advisor's results: checks, recommendations, abstentions, and the evidence for each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, NamedTuple

from gpu_advisor.evaluation.actions import Action, render
from gpu_advisor.evaluation.money import Interval, Money
from gpu_advisor.evaluation.signals import Unit, select_or_average
from gpu_advisor.promql.compiler import to_promql
from gpu_advisor.promql.expressions import Expression, Matcher
from gpu_advisor.promql.query_language import PROMQL, QueryLanguage

ScopeKind = Literal["fleet", "pool", "node", "gpu", "job"]
Severity = Literal["info", "warning", "critical"]
Confidence = Literal["low", "medium", "high"]


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """The subject of a result. `name` never changes (a uuid), `label` is what people call it.

    `lease` is the id of a lease of this advisor, if that is the subject.
    """

    kind: ScopeKind
    name: str
    label: str = ""
    lease: str = ""

    def __str__(self) -> str:
        return self.label or self.name


FLEET = Scope("fleet", "fleet")


class Reason(str, Enum):
    """Why the advisor abstains."""

    NO_DATA = "no_data"
    STALE = "stale"
    INSUFFICIENT_HISTORY = "insufficient_history"
    SATURATED = "saturated"
    CONFLICTING = "conflicting"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class Abstention:
    """Insufficient data for a recommendation. `message` says what is missing and how to fix it.

    `gpus` are the uuids of the GPUs concerned; empty means the whole scope. `kinds` are the kinds of recommendation
    that need the data; empty means all. `input` is the one input that would settle it, if there is one: a name of
    evaluation/diagnosis/inputs.py. `resolves`: the data is there and speaks against such a recommendation, which
    therefore ends; otherwise it is stale until the data is back.
    """

    reason: Reason
    subject: str
    scope: Scope
    message: str
    gpus: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    input: str = ""
    resolves: bool = False


class LabelSelection(NamedTuple):
    """The series behind a number: values of a label, whether these are all values, and further matchers."""

    label: str
    values: tuple[str, ...]
    everything: bool
    matchers: tuple[Matcher, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """One number that a conclusion is based on, and how to reproduce it.

    `expression` is the signal's, restricted to `things`. `value` is None if missing; `samples` and `coverage` (0..1 of
    the window) are set where known.
    """

    signal: str
    about: str
    unit: Unit
    statistic: str
    window_seconds: int | None
    value: float | None
    at: float
    expression: Expression | None
    threshold: float | None = None
    samples: int | None = None
    coverage: float | None = None
    things: LabelSelection | None = None
    written: str | None = None  # the query of evidence loaded from storage, which has no expression
    language: QueryLanguage = PROMQL  # of the engine that gave the value

    @property
    def promql(self) -> str | None:
        """The query, pinned to the time of the evaluation. Rendered on demand: a fleet has many."""
        if self.expression is None:
            return self.written
        selected = self.expression if self.things is None else select_or_average(self.expression, *self.things)
        return to_promql(selected, self.at, self.language)


class CheckStatus(str, Enum):
    MET = "met"
    MISSED = "missed"
    UNKNOWN = "unknown"


class Check(NamedTuple):
    """One item of the checklist. Values are ratios 0..1, or money per hour for the item `cost`.

    `missed_by` is the distance to the nearer edge of the band, negative below it. `reason` is set if the status is
    unknown, and so is `message`, which may explain other values as well.
    """

    item: str
    title: str
    scope: Scope
    status: CheckStatus
    severity: Severity
    value: float | None
    low: float | None
    high: float | None
    missed_by: float | None = None
    reason: Reason | None = None
    message: str = ""
    evidence: Sequence[Evidence] = ()


@dataclass(frozen=True, slots=True)
class Projection:
    """The expected effect. None where unknown; cost in the currency of the settings.

    `intervals` are of inference servers: the lowest and highest expected `throughput_ratio`, `itl_seconds` (inter-token
    latency) and `ttft_seconds` (time to first token).
    """

    utilization_ratio: float | None = None
    memory_ratio: float | None = None
    throughput_ratio: float | None = None
    cost_change_per_hour: float | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Alternative:
    """An alternative considered, and why it was rejected."""

    action: str
    why_not: str


@dataclass(frozen=True, slots=True)
class Waste:
    """The share of their time that GPUs lose, between `low` and `high` (0..1). No uuids: all of the recommendation.

    `high` is None where no signal bounds it.
    """

    gpus: tuple[str, ...] = ()
    low: float = 1.0
    high: float | None = 1.0

    @property
    def share(self) -> Interval:
        return Interval(self.low, self.high)


@dataclass(frozen=True, slots=True)
class Savings:
    """GPUs that a recommendation frees or recovers, and what they cost per hour."""

    gpus: Interval
    money: Money


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to do, why, and the expected effect. `current` and `recommended` are counts of `unit`.

    `waste` is what the GPUs lose now, `saves` what of that the recommendation recovers (None: all of it), and `savings`
    its worth, None if it has no measure. `of_several` is the summary after "3 of 8 GPUs of NODE", where one visit to
    the node is for all GPUs with the same; empty: each stands alone.
    """

    kind: str
    direction: Literal["up", "down", "change"]
    scope: Scope
    severity: Severity
    summary: str
    current: float
    recommended: float
    unit: str
    diagnosis: str
    explanation: str
    confidence: Confidence
    evidence: tuple[Evidence, ...]
    rejected: tuple[Alternative, ...]
    projection: Projection = Projection()
    actions: tuple[Action, ...] = ()
    gpus: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    waste: tuple[Waste, ...] = ()
    saves: tuple[Waste, ...] | None = None
    savings: Savings | None = None
    of_several: str = ""

    @property
    def apply(self) -> tuple[str, ...]:
        """The actions as lines of text."""
        return render(self.actions)

    def id(self, cluster: str) -> str:
        """A hash of scope and kind, never of values: the same recommendation keeps its id."""
        return stable_id((cluster, self.kind, self.scope.kind, self.scope.name, self.direction))


def stable_id(parts: Iterable[str]) -> str:
    """16 hexadecimal digits. The length of each part is hashed, so that no two lists of parts collide."""
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
