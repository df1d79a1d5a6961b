"""The API's documents as TypedDicts: handlers are type-checked against them, the OpenAPI document is built from them.

Ratios are 0..1, times are RFC 3339 in UTC, and an unknown value is null, never zero.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from gpu_advisor.evaluation.actions import ActionKind
from gpu_advisor.evaluation.money import Bound
from gpu_advisor.evaluation.recommendation import Confidence, ScopeKind, Severity

Rfc3339Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
CheckStatusName = Literal["met", "missed", "unknown"]


class ScopeDocument(TypedDict):
    kind: ScopeKind
    name: Annotated[str, Field(description="stable identifier, such as a GPU's UUID")]
    label: Annotated[str, Field(description="name for people")]


class EvidenceDocument(TypedDict):
    signal: str
    about: str
    statistic: str
    window_seconds: int | None
    value: float | None
    unit: str
    threshold: float | None
    samples: int | None
    coverage_ratio: float | None
    promql: Annotated[str | None, Field(description="pinned to the time of the evaluation: returns the same value")]


class ProjectionDocument(TypedDict):
    utilization_ratio: float | None
    memory_ratio: float | None
    throughput_ratio: float | None
    cost_change_per_hour: float | None
    intervals: Annotated[
        dict[str, list[float]],
        Field(description="of inference servers: lowest and highest throughput_ratio, itl_seconds, ttft_seconds"),
    ]


class AlternativeDocument(TypedDict):
    action: str
    why_not: str


class ActionDocument(TypedDict):
    kind: ActionKind
    target: Annotated[str, Field(description="the job, pool or node; empty where any")]
    parameters: Annotated[
        dict[str, bool | int | float | str | list[str]],
        Field(description="trainer settings, flags of a server, `python`, `argv` or `replicas`, by kind"),
    ]
    note: Annotated[str, Field(description="when or why, for people")]


class FeedbackDocument(TypedDict):
    """A person's verdict on a recommendation."""

    verdict: Literal["accepted", "dismissed"]
    reason: str
    by: Annotated[str, Field(description="empty: unknown")]
    made: Rfc3339Time


class SnoozeDocument(TypedDict):
    reason: str
    made: Rfc3339Time
    until: Rfc3339Time


class SavingsFields(TypedDict):
    """What is freed or recovered; null if unknown. A month has 730 hours."""

    savings_gpus: float | None
    savings_per_hour: float | None
    savings_per_month: float | None
    savings_bound: Annotated[Bound | None, Field(description="how to read the savings; null if they are unknown")]
    currency: Annotated[str | None, Field(description="ISO 4217")]
    estimated: Annotated[bool | None, Field(description="at list prices, not at prices of the settings")]
    price_basis: Annotated[str, Field(description="of an estimate: the dates of its list prices")]


class WasteGroupDocument(TypedDict):
    """What the GPUs of an owner, team, namespace, user, pool or node lose now, as far as recommendations measure it."""

    name: str
    gpus: float | None
    per_hour: float | None
    per_month: float | None
    bound: Bound | None
    estimated: bool


class WasteByDocument(TypedDict):
    owner: list[WasteGroupDocument]
    team: list[WasteGroupDocument]
    namespace: list[WasteGroupDocument]
    user: list[WasteGroupDocument]
    pool: list[WasteGroupDocument]
    node: list[WasteGroupDocument]


class MoneySummaryDocument(SavingsFields):
    """Of the selected recommendations that are not snoozed, on all pages; no GPU counts twice."""

    waste_per_hour: Annotated[float | None, Field(description="lost now, whether it can be released or not")]
    waste_per_month: float | None
    waste_bound: Bound | None
    waste_by: Annotated[WasteByDocument, Field(description="the largest first, up to 64 of each")]


class RecommendationSummary(SavingsFields):
    """A recommendation without its evidence."""

    id: Annotated[str, Field(description="hash of cluster, kind, scope and direction, never of values")]
    kind: str
    scope: ScopeDocument
    severity: Severity
    summary: str
    current: float
    recommended: float
    unit: str
    diagnosis: str
    confidence: Confidence
    projection: ProjectionDocument
    apply: Annotated[list[str], Field(description="the actions as text, a line each")]
    actions: list[ActionDocument]


class RecommendationDocument(RecommendationSummary):
    direction: Literal["up", "down", "change"]
    explanation: str
    since: Rfc3339Time
    held: Annotated[bool, Field(description="stale: the data that would confirm or resolve it is missing now")]
    last_seen: Annotated[
        Rfc3339Time | None,
        Field(description="the last evaluation that made it; null: the present one. Its cause may come again soon"),
    ]
    snoozed: Annotated[SnoozeDocument | None, Field(description="null: not snoozed")]
    feedback: Annotated[FeedbackDocument | None, Field(description="the latest; null: none")]
    evidence: list[EvidenceDocument]
    rejected: list[AlternativeDocument]
    runbook: str
    gpus: list[str]
    nodes: list[str]
    owners: Annotated[list[str], Field(description="who uses its GPUs at present, as text; empty: nobody known")]


class AbstentionDocument(TypedDict):
    reason: str
    subject: str
    scope: ScopeDocument
    message: str


class CheckDocument(TypedDict):
    item: str
    title: str
    scope: ScopeDocument
    status: CheckStatusName
    severity: Severity
    value: float | None
    low: float | None
    high: float | None
    missed_by: float | None
    reason: str | None
    message: str
    evidence: list[EvidenceDocument]


class FrontierPointDocument(TypedDict):
    """What an objective would cost, by the replay of the pool's past."""

    unserved_ratio: float | None
    missed_windows_ratio: float | None
    headroom_deviations: float
    min_replicas: Annotated[int, Field(description="kept ready whatever the forecast; 0: none")]
    gpu_hours_per_day: float


class PoolSloDocument(TypedDict):
    """The objective `slo.unserved` or `slo.windows`, the headroom tuned to it, and what that reached in a replay of the
    pool's past."""

    unserved_ratio: Annotated[
        float | None,
        Field(description="the objective: share of the demanded GPU-time above capacity; null: of windows"),
    ]
    missed_windows_ratio: Annotated[
        float | None,
        Field(description="the objective: share of windows that miss a latency objective; null: of demand"),
    ]
    headroom_deviations: float
    min_replicas: Annotated[int, Field(description="kept ready whatever the forecast; 0: none")]
    history_seconds: float
    missing_seconds: Annotated[
        float, Field(description="history still to come; until then the headroom is the default")
    ]
    reached_ratio: Annotated[
        float | None,
        Field(description="unserved share, or share of missed windows, in the replay; null without history"),
    ]
    reached_upper_ratio: Annotated[float | None, Field(description="its upper bound, 95 % confidence")]
    shortages: Annotated[int, Field(description="periods with too few replicas in the replay")]
    gpu_hours_per_day: float | None
    frontier: list[FrontierPointDocument]


#: What a pool's number of replicas counts.
ReplicaUnit = Annotated[
    Literal["gpus", "servers"],
    Field(description="gpus: whole groups of gpus_per_replica GPUs; servers: inference servers that report"),
]


class PoolDocument(TypedDict):
    name: str
    kind: Annotated[str, Field(description="as set; `undecided` if not")]
    inferred_kind: Annotated[
        str | None, Field(description="where the kind is not set: what jobs, servers and owners show; null: unknown")
    ]
    kind_evidence: Annotated[list[str], Field(description="what the inferred kind follows from")]
    capacity_gpus: int
    allocated_gpus: int | None
    busy_gpus: float | None
    gpus_per_replica: int
    replicas: int
    replicas_are: ReplicaUnit
    desired_replicas: Annotated[int | None, Field(description="null while the advisor abstains, and if not serving")]
    slo: Annotated[PoolSloDocument | None, Field(description="null: nothing that tunes the headroom")]


class SourceDocument(TypedDict):
    name: str
    address: str
    up: bool
    error: str | None
    message: str
    last_success: Rfc3339Time | None


class Header(TypedDict):
    """Common to all responses: time of the evaluation, freshness and data source."""

    cluster: str
    at: Rfc3339Time | None
    stale: Annotated[bool, Field(description="the data source is down: this is the last successful evaluation")]
    simulated: bool | None
    source: SourceDocument


class PaginationHeader(Header):
    total: int
    page: int
    per_page: int


class Checklist(TypedDict):
    counts: dict[CheckStatusName, int]
    items: list[CheckDocument]


class RecommendationGroupDocument(SavingsFields):
    """Recommendations for several GPUs of a node that have the same cause and remedy: one visit to the node.

    Savings are of those that are not snoozed.
    """

    node: str
    summary: Annotated[str, Field(description="of all of them, as in `3 of 8 GPUs of node-1 are lost: ...`")]
    ids: Annotated[list[str], Field(description="their recommendations, the most urgent first")]
    apply: Annotated[list[str], Field(description="their actions as text; what they share, once")]


class Recommendations(PaginationHeader):
    recommendations: list[RecommendationDocument]
    groups: Annotated[
        list[RecommendationGroupDocument],
        Field(description="with at least one of the selected recommendations, on any page"),
    ]
    abstentions: Annotated[list[AbstentionDocument], Field(description="the first of them; GET /abstentions has all")]
    abstentions_total: int
    pools: list[PoolDocument]
    checks: Checklist
    summary: MoneySummaryDocument


class RecommendationDetail(Header):
    recommendation: RecommendationDocument


class Checks(PaginationHeader):
    checks: list[CheckDocument]
    abstentions: Annotated[list[AbstentionDocument], Field(description="the first of them; GET /abstentions has all")]
    abstentions_total: int


class Abstentions(PaginationHeader):
    abstentions: list[AbstentionDocument]


class MeasurementDocument(TypedDict):
    """The mean of a signal over the GPUs of a recommendation, when it was made and when it was judged."""

    signal: str
    unit: str
    before: float
    after: float


class OutcomeDocument(TypedDict):
    """Outcome of a resolved recommendation."""

    id: str
    kind: str
    scope: ScopeDocument
    unit: str
    current: float
    recommended: float
    observed: Annotated[float | None, Field(description="size when it resolved; null: nothing shows one")]
    result: Literal["applied", "partly_applied", "not_applied", "cause_gone"]
    given: Rfc3339Time
    ended: Rfc3339Time
    judged: Rfc3339Time
    utilization_before_ratio: float | None
    utilization_projected_ratio: float | None
    utilization_after_ratio: float | None
    measured: Annotated[MeasurementDocument | None, Field(description="null: see not_measured")]
    not_measured: Annotated[str, Field(description="why nothing was measured; empty if something was")]
    improved: bool | None
    projection_error_ratio: Annotated[float | None, Field(description="observed minus projected utilization")]
    feedback: Annotated[FeedbackDocument | None, Field(description="the latest before it was judged; null: none")]


class OutcomesDocument(PaginationHeader):
    suggestions: Annotated[list[str], Field(description="what feedback suggests to change; nothing changes by itself")]
    outcomes: list[OutcomeDocument]


class ChangedRecommendation(TypedDict):
    id: str
    recommended_now: float
    recommended_then: float


class DifferenceDocument(TypedDict):
    begins: Annotated[list[str], Field(description="ids of recommendations that would be added")]
    ends: Annotated[list[str], Field(description="ids of recommendations that would be removed")]
    changes: list[ChangedRecommendation]


class WhatIfPool(TypedDict):
    name: str
    sized: Annotated[bool, Field(description="whether the advisor sizes it: serving pools only")]
    replicas: int
    replicas_are: ReplicaUnit
    gpus_per_replica: int
    desired_now: int | None
    desired_then: int | None
    cannot_tell: Annotated[str, Field(description="why desired_then is null; empty if it is not")]


class WhatIf(Header):
    now: list[RecommendationSummary]
    then: list[RecommendationSummary]
    difference: DifferenceDocument
    pools: list[WhatIfPool]
    checks_now: dict[CheckStatusName, int]
    checks_then: dict[CheckStatusName, int]
    items_then: Annotated[list[CheckDocument], Field(description="of fleet and pools; of nodes up to 64 of them")]


class FieldError(TypedDict):
    pointer: Annotated[str, Field(description="JSON Pointer (RFC 6901) into the request body")]
    detail: str


class ProblemDocument(TypedDict):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: Annotated[str, Field(description="what is wrong, and how to fix it")]
    errors: NotRequired[list[FieldError]]
    reasons: NotRequired[Annotated[list[str], Field(description="why each node cannot serve a GPU request")]]
