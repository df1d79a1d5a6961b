"""The published view as the documents of schema.py, for the API, the command line and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Literal, TypeVar

from gpu_advisor.documents import advice_groups, schema
from gpu_advisor.documents.owner_names import recommendation_owners
from gpu_advisor.documents.savings import money_summary, savings_fields
from gpu_advisor.documents.slo import pool_slo
from gpu_advisor.evaluation.actions import Action
from gpu_advisor.evaluation.engine import Evaluation, PoolState
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import (
    FLEET,
    Abstention,
    Check,
    Evidence,
    Projection,
    Reason,
    Recommendation,
    Scope,
)
from gpu_advisor.evaluation.what_if import WhatIfComparison
from gpu_advisor.state.active import Snooze
from gpu_advisor.state.feedback import Feedback
from gpu_advisor.state.measures import Measurement
from gpu_advisor.state.outcomes import Outcome, latest_verdict
from gpu_advisor.state.view import PublishedRecommendation, SourceStatus, View

T = TypeVar("T")

#: Pages of recommendations and checks include up to this many abstentions, and checks of up to this many pools or
#: nodes. Larger fleets: see /checks and /abstentions.
MAX_SUMMARY_ITEMS = 64


def format_rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_optional_rfc3339(seconds: float | None) -> str | None:
    return None if seconds is None else format_rfc3339(seconds)


def scope(of: Scope) -> schema.ScopeDocument:
    return {"kind": of.kind, "name": of.name, "label": str(of)}


def evidence(of: Evidence) -> schema.EvidenceDocument:
    return {
        "signal": of.signal,
        "about": of.about,
        "statistic": of.statistic,
        "window_seconds": of.window_seconds,
        "value": of.value,
        "unit": of.unit,
        "threshold": of.threshold,
        "samples": of.samples,
        "coverage_ratio": of.coverage,
        "promql": of.promql,
    }


def projection(of: Projection) -> schema.ProjectionDocument:
    return {
        "utilization_ratio": of.utilization_ratio,
        "memory_ratio": of.memory_ratio,
        "throughput_ratio": of.throughput_ratio,
        "cost_change_per_hour": of.cost_change_per_hour,
        "intervals": {name: list(ends) for name, ends in of.intervals.items()},
    }


def snooze(of: Snooze) -> schema.SnoozeDocument:
    return {"reason": of.reason, "made": format_rfc3339(of.made), "until": format_rfc3339(of.until)}


def action(of: Action) -> schema.ActionDocument:
    parameters = {name: list(value) if isinstance(value, tuple) else value for name, value in of.parameters.items()}
    return {"kind": of.kind, "target": of.target, "parameters": parameters, "note": of.note}


def recommendation_summary(id_: str, of: Recommendation) -> schema.RecommendationSummary:
    return {
        "id": id_,
        "kind": of.kind,
        "scope": scope(of.scope),
        "severity": of.severity,
        "summary": of.summary,
        "current": of.current,
        "recommended": of.recommended,
        "unit": of.unit,
        "diagnosis": of.diagnosis,
        "confidence": of.confidence,
        "projection": projection(of.projection),
        "apply": list(of.apply),
        "actions": [action(each) for each in of.actions],
        **savings_fields(of.savings),
    }


def recommendation(issued: PublishedRecommendation, view: View) -> schema.RecommendationDocument:
    of = issued.recommendation
    return {
        **recommendation_summary(issued.id, of),
        "direction": of.direction,
        "explanation": of.explanation,
        "since": format_rfc3339(issued.since),
        "held": issued.stale,
        "last_seen": format_optional_rfc3339(issued.last_seen),
        "snoozed": snooze(issued.snoozed) if issued.snoozed else None,
        "feedback": feedback(issued.feedback) if issued.feedback else None,
        "evidence": [evidence(each) for each in of.evidence],
        "rejected": [{"action": each.action, "why_not": each.why_not} for each in of.rejected],
        "runbook": issued.runbook,
        "gpus": list(of.gpus),
        "nodes": list(of.nodes),
        "owners": recommendation_owners(view.evaluation, of),
    }


def abstention(of: Abstention) -> schema.AbstentionDocument:
    return {"reason": of.reason.value, "subject": of.subject, "scope": scope(of.scope), "message": of.message}


def check(of: Check) -> schema.CheckDocument:
    return {
        "item": of.item,
        "title": of.title,
        "scope": scope(of.scope),
        "status": of.status.value,
        "severity": of.severity,
        "value": of.value,
        "low": of.low,
        "high": of.high,
        "missed_by": of.missed_by,
        "reason": of.reason.value if of.reason else None,
        "message": of.message,
        "evidence": [evidence(each) for each in of.evidence],
    }


def pool(
    state: PoolState, replicas: int, desired: int | None, replicas_are: Literal["gpus", "servers"] = "gpus"
) -> schema.PoolDocument:
    settings, numbers = state.pool.settings, state.usage
    return {
        "name": settings.name,
        "kind": settings.kind,
        "inferred_kind": _inferred_kind(state.pool),
        "kind_evidence": list(state.pool.inference.pool.evidence) if state.pool.inference else [],
        "capacity_gpus": numbers.capacity,
        "allocated_gpus": numbers.allocated,
        "busy_gpus": numbers.busy,
        "gpus_per_replica": settings.gpus_per_replica,
        "replicas": replicas,
        "replicas_are": replicas_are,
        "desired_replicas": desired,
        "slo": pool_slo(state.headroom, settings.gpus_per_replica) if state.headroom else None,
    }


def _inferred_kind(of: Pool) -> str | None:
    known = of.inference.pool.kind if of.inference else "undecided"
    return None if known == "undecided" else known


def pools(view: View) -> list[schema.PoolDocument]:
    if view.evaluation is None:
        return []
    present, desired = view.evaluation.replicas, _desired_replicas(view, view.evaluation)
    names = [state.pool.settings.name for state in view.evaluation.pools]
    return [
        pool(state, present[name], desired.get(name), _replica_unit(view.evaluation, name))
        for name, state in zip(names, view.evaluation.pools, strict=True)
    ]


def _replica_unit(evaluation: Evaluation, pool_name: str) -> Literal["gpus", "servers"]:
    return "servers" if pool_name in evaluation.pools_counted_by_servers else "gpus"


def _desired_replicas(view: View, evaluation: Evaluation) -> Mapping[str, int]:
    """By pool; empty while the view is stale: nothing may scale on stale data."""
    return {} if view.stale else dict(evaluation.desired_replicas)


def source(of: SourceStatus) -> schema.SourceDocument:
    return {
        "name": of.name,
        "address": of.address,
        "up": of.up,
        "error": of.error or None,
        "message": of.message,
        "last_success": format_optional_rfc3339(of.last_success),
    }


def header(view: View) -> schema.Header:
    """Common to all responses: time of the evaluation, freshness and data source."""
    evaluation = view.evaluation
    return {
        "cluster": view.cluster,
        "at": format_optional_rfc3339(evaluation.at) if evaluation else None,
        "stale": view.stale,
        "simulated": evaluation.facts.simulated if evaluation else None,
        "source": source(view.source),
    }


def _pagination(view: View, total: int, page: int, per_page: int) -> schema.PaginationHeader:
    return {**header(view), "total": total, "page": page, "per_page": per_page}


def recommendations(
    view: View, selection: Sequence[PublishedRecommendation], page: int, per_page: int
) -> schema.Recommendations:
    """One page of the selected recommendations, with abstentions, pools and the checklist."""
    return {
        **_pagination(view, len(selection), page, per_page),
        "recommendations": [recommendation(each, view) for each in page_slice(selection, page, per_page)],
        "groups": _groups(view, selection),
        "abstentions": [abstention(each) for each in all_abstentions(view)[:MAX_SUMMARY_ITEMS]],
        "abstentions_total": len(all_abstentions(view)),
        "pools": pools(view),
        "checks": {
            "counts": check_counts(view.evaluation),
            "items": [check(each) for each in _summary_checks(view.evaluation)],
        },
        "summary": money_summary(view, selection),
    }


def _groups(view: View, selection: Sequence[PublishedRecommendation]) -> list[schema.RecommendationGroupDocument]:
    selected = {each.id for each in selection}
    return [
        {
            "node": each.node,
            "summary": each.summary,
            "ids": list(each.ids),
            "apply": list(each.apply),
            **savings_fields(advice_groups.worth(each, view)),
        }
        for each in advice_groups.group_by_node(view)
        if each.is_several and not selected.isdisjoint(each.ids)
    ]


def checks(view: View, selection: Sequence[Check], page: int, per_page: int) -> schema.Checks:
    return {
        **_pagination(view, len(selection), page, per_page),
        "checks": [check(each) for each in page_slice(selection, page, per_page)],
        "abstentions": [abstention(each) for each in all_abstentions(view)[:MAX_SUMMARY_ITEMS]],
        "abstentions_total": len(all_abstentions(view)),
    }


def abstentions_page(view: View, selection: Sequence[Abstention], page: int, per_page: int) -> schema.Abstentions:
    return {
        **_pagination(view, len(selection), page, per_page),
        "abstentions": [abstention(each) for each in page_slice(selection, page, per_page)],
    }


def feedback(of: Feedback) -> schema.FeedbackDocument:
    return {"verdict": of.verdict, "reason": of.reason, "by": of.by, "made": format_rfc3339(of.made)}


def outcomes(view: View, selection: Sequence[Outcome], page: int, per_page: int) -> schema.OutcomesDocument:
    return {
        **_pagination(view, len(selection), page, per_page),
        "suggestions": list(view.suggestions),
        "outcomes": [outcome(each, view.feedback) for each in page_slice(selection, page, per_page)],
    }


def outcome(of: Outcome, verdicts: Iterable[Feedback] = ()) -> schema.OutcomeDocument:
    """`verdicts` are the feedback on all recommendations, oldest first."""
    tracked, verdict = of.closed.tracked, latest_verdict(of, verdicts)
    return {
        "id": tracked.id,
        "kind": tracked.kind,
        "scope": scope(tracked.scope),
        "unit": tracked.unit,
        "current": tracked.current,
        "recommended": tracked.recommended,
        "observed": of.closed.size,
        "result": of.result.value,
        "given": format_rfc3339(tracked.given),
        "ended": format_rfc3339(of.closed.at),
        "judged": format_rfc3339(of.judged),
        "utilization_before_ratio": tracked.utilization_ratio,
        "utilization_projected_ratio": tracked.projected_ratio,
        "utilization_after_ratio": of.utilization_ratio,
        "measured": measurement(of.measured) if of.measured else None,
        "not_measured": of.not_measured,
        "improved": of.improved,
        "projection_error_ratio": of.error_ratio,
        "feedback": feedback(verdict) if verdict else None,
    }


def measurement(of: Measurement) -> schema.MeasurementDocument:
    return {"signal": of.signal, "unit": of.unit, "before": of.before, "after": of.after}


def what_if(view: View, comparison: WhatIfComparison) -> schema.WhatIf:
    now, then = comparison.current_advice, comparison.changed_advice
    both = [id_ for id_ in then if id_ in now]
    return {
        **header(view),
        "now": [recommendation_summary(id_, each) for id_, each in now.items()],
        "then": [recommendation_summary(id_, each) for id_, each in then.items()],
        "difference": {
            "begins": [id_ for id_ in then if id_ not in now],
            "ends": [id_ for id_ in now if id_ not in then],
            "changes": [
                {"id": id_, "recommended_now": now[id_].recommended, "recommended_then": then[id_].recommended}
                for id_ in both
                if now[id_].recommended != then[id_].recommended
            ],
        },
        "pools": _what_if_pools(view, comparison),
        "checks_now": check_counts(comparison.current),
        "checks_then": check_counts(comparison.changed),
        "items_then": [check(each) for each in _summary_checks(comparison.changed)],
    }


def _what_if_pools(view: View, comparison: WhatIfComparison) -> list[schema.WhatIfPool]:
    now, then = (_desired_replicas(view, each) for each in (comparison.current, comparison.changed))
    return [
        {
            "name": state.pool.settings.name,
            "sized": state.pool.settings.kind == "serving",
            "replicas": comparison.changed.replicas[state.pool.settings.name],
            "replicas_are": _replica_unit(comparison.changed, state.pool.settings.name),
            "gpus_per_replica": state.pool.settings.gpus_per_replica,
            "desired_now": now.get(state.pool.settings.name),
            "desired_then": then.get(state.pool.settings.name),
            "cannot_tell": "" if state.pool.settings.name in then else _unsized_reason(view, comparison.changed, state),
        }
        for state in comparison.changed.pools
    ]


def _unsized_reason(view: View, evaluation: Evaluation, state: PoolState) -> str:
    """Why a pool has no desired number of replicas."""
    if state.pool.settings.kind != "serving":
        return f"the pool's kind is {state.pool.settings.kind}: only serving pools are sized"
    if view.stale:
        return f"{Reason.STALE.value}: nothing may scale on stale data"
    messages = [
        f"{each.reason.value}: {each.message}" for each in evaluation.abstentions if each.scope == state.pool.scope
    ]
    return messages[0] if messages else "the pool has no GPUs"


def page_slice(items: Sequence[T], page: int, per_page: int) -> Sequence[T]:
    return items[(page - 1) * per_page : page * per_page]


def check_counts(evaluation: Evaluation | None) -> dict[schema.CheckStatusName, int]:
    return dict(Counter(each.status.value for each in evaluation.checks)) if evaluation else {}


def all_abstentions(view: View) -> tuple[Abstention, ...]:
    """The evaluation's abstentions, preceded by one for the data source while it is down."""
    messages = view.evaluation.abstentions if view.evaluation else ()
    if view.source.up:
        return messages
    reason = Reason.STALE if view.evaluation else Reason.NO_DATA
    return (Abstention(reason, "source", FLEET, view.source.message), *messages)


def _summary_checks(evaluation: Evaluation | None) -> list[Check]:
    if evaluation is None:
        return []
    sizes = Counter((each.scope.kind, each.item) for each in evaluation.checks)
    large = {kind for (kind, _), count in sizes.items() if count > MAX_SUMMARY_ITEMS}
    return [each for each in evaluation.checks if each.scope.kind != "gpu" and each.scope.kind not in large]
