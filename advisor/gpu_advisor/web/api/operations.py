"""The operations of the API: what each is asked and answers. Handlers and OpenAPI document are both made from this."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field

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
    """No alert about a recommendation until then; it ends by itself."""

    reason: str = Field(min_length=1, max_length=500, description="for those who wonder why there is no alert")
    until: AwareDatetime = Field(description="RFC 3339, in the future, within a year")


class PoolOverride(StrictModel):
    """Other limits of a pool. What is not given stays."""

    gpu: GpuLimits | None = None
    gpus_per_replica: int = Field(1, ge=1)


class WhatIfRequestBody(StrictModel):
    """Other settings, in the shape of the configuration file. What is not given stays as it is."""

    resources: ResourceSettings = ResourceSettings()
    cost: CostSettings = CostSettings()
    pools: dict[str, PoolOverride] = Field(default_factory=dict, description="configured pools by name")


_ReportSeconds = Annotated[int, Field(ge=MIN_REPORT_SECONDS, le=MAX_REPORT_SECONDS)]
_FORMAT = Parameter("format", "json, or csv with all that was chosen on one page", Literal["json", "csv"], "json")
_KIND = Parameter("kind", "kind of recommendation, as idle_reclaim")
_POOL = Parameter("pool", "of this pool, or of GPUs of this pool")

OPERATIONS: dict[str, Operation] = {
    "recommendations": Operation(
        "GET", "/recommendations", "What to do now, why, and what is expected of it",
        {JSON: schema.Recommendations, CSV: None},
        (
            _KIND, Parameter("severity", "how urgent", Severity), Parameter("node", "concerns this node"), _POOL,
            Parameter("job", "concerns this job"), _FORMAT, *PAGINATION,
        ),
        has_etag=True,
    ),
    "one_recommendation": Operation(
        "GET", "/recommendations/{id}", "One recommendation", {JSON: schema.RecommendationDetail}, errors=(404,),
        has_etag=True,
    ),
    "snooze": Operation(
        "POST", "/recommendations/{id}/snooze", "No alert about this for a while; instead of a former snooze",
        {JSON: schema.SnoozeDocument}, body=SnoozeRequestBody, errors=(404, 503),
    ),
    "end_snooze": Operation(
        "DELETE", "/recommendations/{id}/snooze", "Alert about this again", {}, status=204, errors=(404, 503),
    ),
    "checks": Operation(
        "GET", "/checks", "The checklist: met, missed (by how much) or unknown (why)",
        {JSON: schema.Checks, CSV: None},
        (
            Parameter("item", "as gpu_utilization"), Parameter("status", "how it stands", CheckStatus),
            Parameter("scope_kind", "of what kind of thing", ScopeKind), Parameter("scope", "of this thing, by name"),
            _FORMAT, *PAGINATION,
        ),
        has_etag=True,
    ),
    "abstentions": Operation(
        "GET", "/abstentions", "What the advisor cannot tell, why, and what would mend it", {JSON: schema.Abstentions},
        (Parameter("reason", "why", Reason), Parameter("subject", "as scale"), *PAGINATION), has_etag=True,
    ),
    "outcomes": Operation(
        "GET", "/outcomes", "What became of recommendations that ended: applied, improved, as projected? Newest first",
        {JSON: schema.OutcomesDocument}, (_KIND, Parameter("pool", "of this pool"), *PAGINATION), has_etag=True,
    ),
    "what_if": Operation(
        "POST", "/what-if", "What would be recommended with other targets, limits or prices. Changes nothing",
        {JSON: schema.WhatIf}, body=WhatIfRequestBody, errors=(503,),
    ),
    "report": Operation(
        "GET", "/report", "The last days: use, cost and waste, advice and what became of it",
        {JSON: Report, HTML: None, MARKDOWN: None},
        (
            Parameter("since_seconds", "how far back", _ReportSeconds, 7 * DAY),
            Parameter("format", "json, html (to print) or md (Markdown)", Literal["json", "html", "md"], "json"),
        ),
        errors=(503,),
    ),
    **GPU_OPERATIONS,
    "own_metrics": Operation("GET", "/metrics", "The advisor's own metrics, for Prometheus", {METRICS: None}),
    "openapi": Operation("GET", "/openapi.json", "This document", {JSON: dict[str, Any]}),
    "healthy": Operation("GET", "/-/healthy", "The service runs", {TEXT: None}),
    # A source that is away makes answers stale, marked as such; it does not take the service out.
    "ready": Operation("GET", "/-/ready", "The service was started with a valid configuration", {TEXT: None}),
}  # fmt: skip
