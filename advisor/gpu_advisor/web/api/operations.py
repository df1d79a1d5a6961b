"""The operations of the API with their parameters and bodies: routes and OpenAPI document are built from these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, model_validator

from gpu_advisor.documents import schema
from gpu_advisor.evaluation.recommendation import CheckStatus, Reason, ScopeKind, Severity
from gpu_advisor.report.period import DAY, MAX_REPORT_SECONDS, MIN_REPORT_SECONDS
from gpu_advisor.report.schema import Report
from gpu_advisor.settings import CostSettings, GpuLimits, ResourceSettings
from gpu_advisor.settings.field_types import StrictModel
from gpu_advisor.web.api.allocation_operations import GPU_OPERATIONS
from gpu_advisor.web.api.base import CSV, HTML, JSON, MARKDOWN, METRICS, TEXT, Operation
from gpu_advisor.web.api.query_parameters import PAGINATION, Parameter


class SnoozeRequestBody(StrictModel):
    """Suppress the alert of a recommendation until `until`."""

    reason: str = Field(min_length=1, max_length=500, description="shown beside the recommendation")
    until: AwareDatetime = Field(description="RFC 3339, in the future, within a year")


class FeedbackRequestBody(StrictModel):
    """A verdict on a recommendation. It changes no threshold; GET /outcomes has what feedback suggests."""

    verdict: Literal["accepted", "dismissed"]
    reason: str = Field("", max_length=500, description="why; needed to dismiss")
    by: str = Field("", max_length=100, description="who says so")

    @model_validator(mode="after")
    def _dismissals_have_a_reason(self) -> FeedbackRequestBody:
        if self.verdict == "dismissed" and not self.reason.strip():
            raise ValueError("to dismiss a recommendation, give a reason, as in 'too early'")
        return self


class PoolOverride(StrictModel):
    """Other limits of a pool. Omitted fields keep their values."""

    gpu: GpuLimits | None = None
    gpus_per_replica: int = Field(1, ge=1)


class WhatIfRequestBody(StrictModel):
    """Other settings, as in the configuration file. Omitted fields keep their values."""

    resources: ResourceSettings = ResourceSettings()
    cost: CostSettings = CostSettings()
    pools: dict[str, PoolOverride] = Field(default_factory=dict, description="configured pools by name")


_ReportSeconds = Annotated[int, Field(ge=MIN_REPORT_SECONDS, le=MAX_REPORT_SECONDS)]
_FORMAT = Parameter("format", "json, or csv with all matching rows on one page", Literal["json", "csv"], "json")
_KIND = Parameter("kind", "kind of recommendation, e.g. idle_reclaim")
_POOL = Parameter("pool", "for this pool, or for GPUs of this pool")

OPERATIONS: dict[str, Operation] = {
    "recommendations": Operation(
        "GET", "/recommendations", "Active recommendations, with evidence and projections",
        {JSON: schema.Recommendations, CSV: None},
        (
            _KIND, Parameter("severity", "severity", Severity), Parameter("node", "affects this node"), _POOL,
            Parameter("job", "for GPUs of this training job or owner"), _FORMAT, *PAGINATION,
        ),
        has_etag=True,
    ),
    "one_recommendation": Operation(
        "GET", "/recommendations/{id}", "One recommendation", {JSON: schema.RecommendationDetail}, errors=(404,),
        has_etag=True,
    ),
    "snooze": Operation(
        "POST", "/recommendations/{id}/snooze", "Snooze the alert of a recommendation; replaces an earlier snooze",
        {JSON: schema.SnoozeDocument}, body=SnoozeRequestBody, errors=(404, 503), changes_state=True,
    ),
    "end_snooze": Operation(
        "DELETE", "/recommendations/{id}/snooze", "End the snooze", {}, status=204, errors=(404, 503),
        changes_state=True,
    ),
    "feedback": Operation(
        "POST", "/recommendations/{id}/feedback", "Accept or dismiss a recommendation, also one that has resolved",
        {JSON: schema.FeedbackDocument}, body=FeedbackRequestBody, errors=(404, 503), changes_state=True,
    ),
    "checks": Operation(
        "GET", "/checks", "The checklist: met, missed (by how much) or unknown (why)",
        {JSON: schema.Checks, CSV: None},
        (
            Parameter("item", "e.g. gpu_utilization"), Parameter("status", "status", CheckStatus),
            Parameter("scope_kind", "kind of scope", ScopeKind), Parameter("scope", "name of the scope"),
            _FORMAT, *PAGINATION,
        ),
        has_etag=True,
    ),
    "abstentions": Operation(
        "GET", "/abstentions", "Where data is insufficient: why, and how to fix it", {JSON: schema.Abstentions},
        (Parameter("reason", "reason", Reason), Parameter("subject", "e.g. scale"), *PAGINATION), has_etag=True,
    ),
    "outcomes": Operation(
        "GET", "/outcomes", "Outcomes of resolved recommendations: applied, improved, as projected? Newest first",
        {JSON: schema.OutcomesDocument}, (_KIND, Parameter("pool", "for this pool"), *PAGINATION), has_etag=True,
    ),
    "what_if": Operation(
        "POST", "/what-if", "What would be recommended with other targets, limits or prices. Changes nothing",
        {JSON: schema.WhatIf}, body=WhatIfRequestBody, errors=(503,),
    ),
    "report": Operation(
        "GET", "/report", "Use, cost and waste of the last days, recommendations and their outcomes",
        {JSON: Report, HTML: None, MARKDOWN: None},
        (
            Parameter("since_seconds", "length of the period until now", _ReportSeconds, 7 * DAY),
            Parameter("format", "json, html (to print) or md (Markdown)", Literal["json", "html", "md"], "json"),
        ),
        errors=(503,),
    ),
    **GPU_OPERATIONS,
    "own_metrics": Operation("GET", "/metrics", "The advisor's own metrics, for Prometheus", {METRICS: None}),
    "openapi": Operation("GET", "/openapi.json", "This document", {JSON: dict[str, Any]}),
    "healthy": Operation("GET", "/-/healthy", "Liveness: the service runs", {TEXT: None}),
    # Independent of the data source: while it is down, responses are stale and marked so, and still useful.
    "reload": Operation(
        "POST", "/-/reload", "Read the settings file again (web.enable_lifecycle)", {TEXT: None}, changes_state=True
    ),
    "ready": Operation("GET", "/-/ready", "Readiness: the configuration is valid", {TEXT: None}),
}  # fmt: skip
