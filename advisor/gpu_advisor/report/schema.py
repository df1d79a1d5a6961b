"""The report as JSON: what the API returns and what is rendered.

Ratios are 0..1, hours are GPU-hours, times are RFC 3339 in UTC, and unknown values are null, never zero.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from gpu_advisor.documents import schema as shapes
from gpu_advisor.documents.schema import Rfc3339Time
from gpu_advisor.evaluation.money import Bound


class PeriodDocument(TypedDict):
    start: Rfc3339Time
    end: Rfc3339Time
    step_seconds: int
    points: int
    queries: Annotated[int, Field(description="sent to the data source to read it")]
    data_start: Annotated[Rfc3339Time | None, Field(description="start of the first step with data")]
    data_end: Annotated[Rfc3339Time | None, Field(description="end of the last step with data")]


class GpuHours(TypedDict):
    present: Annotated[float, Field(description="of each GPU from its first to its last sample in the period")]
    observed: Annotated[float, Field(description="the part of these with data")]
    unobserved: Annotated[float, Field(description="the part of these without data: neither busy nor unused")]
    busy: Annotated[float, Field(description="a kernel ran")]
    unused: Annotated[float, Field(description="observed, and no kernel ran")]
    memory_allocated: Annotated[float | None, Field(description="more than 5 % of the memory was allocated")]
    idle_allocated: Annotated[float | None, Field(description="memory allocated, and idle for at least half an hour")]
    memory_unknown: Annotated[float, Field(description="observed, but memory use is unknown")]


class Cost(TypedDict):
    """In the report's currency."""

    total: Annotated[float | None, Field(description="of present GPU-hours: busy, unused and unobserved")]
    unobserved: float | None
    unused: float | None
    idle_allocated: float | None
    unpriced_gpu_hours: Annotated[float, Field(description="of models without a price, excluded from the sums")]


class LostGpus(TypedDict):
    """GPUs that are lost or down for a hardware reason now: in the period, since the utilization of each was read last.
    Not in the observed hours.
    """

    gpus: int
    gpu_hours: Annotated[float | None, Field(description="of those with known hours; null if none has any")]
    cost: Annotated[float | None, Field(description="of those with a price and known hours; null if none has both")]
    unpriced_gpus: int
    unknown_gpus: Annotated[int, Field(description="of unknown hours, as they were read in the last step")]


class Band(TypedDict):
    low: float | None
    high: float | None


class TargetsDocument(TypedDict):
    gpu_utilization: Band
    gpu_memory: Band
    cpu: Band


class Trends(TypedDict):
    """A value for each step of the period; null without data."""

    gpu_utilization: list[float | None]
    gpu_memory: list[float | None]
    cpu: list[float | None]
    gpus: list[float | None]
    busy_gpus: list[float | None]


class UsageGroup(TypedDict):
    """The fleet or a pool."""

    kind: Literal["fleet", "pool"]
    name: str
    pool_kind: str | None
    gpus: Annotated[int, Field(description="present at any time in the period")]
    nodes: int
    gpu_hours: GpuHours
    cost: Cost
    lost: LostGpus
    gpu_utilization_ratio: float | None
    gpu_memory_ratio: float | None
    cpu_ratio: float | None
    coverage_ratio: Annotated[float | None, Field(description="observed / present: since each GPU's first sample")]
    targets: TargetsDocument
    trends: Trends


class GpuModelUsage(TypedDict):
    """All GPUs of a model."""

    name: str
    gpus: int
    price_per_hour: float | None
    price_estimated: Annotated[bool | None, Field(description="a list price, not a price of the settings")]
    gpu_hours: GpuHours
    cost: Cost
    gpu_utilization_ratio: float | None


class MonthlyUsage(TypedDict):
    """The fleet or a pool, in GPU-hours and the report's currency a month."""

    kind: Literal["fleet", "pool"]
    name: str
    present: float
    busy: float
    unused: float
    unobserved: float
    cost: float | None
    cost_unobserved: float | None
    cost_unused: float | None


class ProjectionDocument(TypedDict):
    """The period scaled to a month: what it comes to if all goes on at this rate."""

    month_hours: float
    min_data_hours: Annotated[float, Field(description="with less data in the period there is no projection")]
    data_hours: Annotated[float, Field(description="time of the period that has data of any GPU")]
    data_ratio: Annotated[float, Field(description="data_hours / length of the period")]
    groups: Annotated[list[MonthlyUsage], Field(description="as `groups`; empty with too little data")]


class Change(TypedDict):
    """A number of the period, and of the period of the same length before. Null where it is unknown."""

    now: float | None
    before: float | None
    difference: float | None
    difference_ratio: Annotated[float | None, Field(description="difference / before; null if that was zero")]
    verdict: Annotated[
        Literal["better", "worse"] | None, Field(description="null: unchanged, unknown, or good in neither direction")
    ]


class FleetChanges(TypedDict):
    """GPU-hours and money are per day with data, so that periods with gaps compare."""

    gpus: Annotated[Change, Field(description="present at any time")]
    gpu_utilization_ratio: Change
    gpu_memory_ratio: Change
    busy_per_day: Change
    unused_per_day: Change
    idle_allocated_per_day: Change
    cost_per_day: Change
    cost_unobserved_per_day: Change
    cost_unused_per_day: Change


class OwnerChanges(TypedDict):
    """What the GPUs of a team, namespace or user left unused, in GPU-hours and money per day with data."""

    name: str
    observed_per_day: Change
    unused_per_day: Change
    cost_unused_per_day: Change


class ChangesByOwner(TypedDict):
    """Empty where owners are unknown, or nobody has a team, namespace or user."""

    team: list[OwnerChanges]
    namespace: list[OwnerChanges]
    user: list[OwnerChanges]


class ComparisonDocument(TypedDict):
    """The period and the one of the same length before it."""

    period: Annotated[PeriodDocument, Field(description="the one before")]
    data_ratio: Annotated[float, Field(description="time of the period before that has data / its length")]
    unavailable: Annotated[list[str], Field(description="what could not be read of it, and why")]
    fleet: FleetChanges
    by: Annotated[ChangesByOwner, Field(description="the largest first, up to 64 of each")]


class FirstAction(TypedDict):
    """A recommendation to start with."""

    id: str
    summary: str
    savings_gpus: float | None
    savings_per_month: float | None
    savings_bound: Annotated[Bound | None, Field(description="how to read the money")]
    owners: Annotated[list[str], Field(description="who uses its GPUs at present; empty: nobody known")]
    url: Annotated[str, Field(description="its page, if the settings have web.external_url")]


class SavingsDocument(TypedDict):
    """Of all active recommendations that are not snoozed, where known."""

    gpus: float | None
    money_per_hour: float | None
    bound: Annotated[Bound | None, Field(description="how to read the money")]


class QueryDocument(TypedDict):
    """A query that reproduces a number of the fleet. `path` is its JSON pointer in this document."""

    about: str
    path: str
    promql: str


class Report(shapes.Header):
    period: PeriodDocument
    recorded: Annotated[bool, Field(description="whether recorded series were used")]
    unavailable: Annotated[list[str], Field(description="what could not be read, and why")]
    groups: Annotated[list[UsageGroup], Field(description="the fleet, then its pools; empty if no GPU was observed")]
    models: list[GpuModelUsage]
    projection: ProjectionDocument
    comparison: Annotated[ComparisonDocument | None, Field(description="null: no GPU was observed in the period")]
    first_actions: Annotated[
        list[FirstAction], Field(description="the three active recommendations that save most, by money")
    ]
    queries: list[QueryDocument]
    checks: shapes.Checklist
    recommendations: Annotated[
        list[shapes.RecommendationDocument], Field(description="the first; the most urgent first")
    ]
    recommendations_total: int
    savings: SavingsDocument
    summary: shapes.MoneySummaryDocument
    currency: Annotated[str, Field(description="of all money: ISO 4217")]
    budget_per_hour: Annotated[float | None, Field(description="of the settings, for all GPUs; null: none is set")]
    price_basis: Annotated[str, Field(description="dates of the list prices used; empty if none was")]
    abstentions: list[shapes.AbstentionDocument]
    outcomes: Annotated[
        list[shapes.OutcomeDocument] | None, Field(description="newest first; null from a one-shot evaluation")
    ]
    suggestions: Annotated[list[str], Field(description="what feedback suggests to change in the settings")]
