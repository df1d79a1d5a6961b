"""Diagnosis before action: the causes found in a pool, and the policy for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from gpu_advisor.evaluation.diagnosis.decision_table import DIAGNOSES, UNKNOWN
from gpu_advisor.evaluation.diagnosis.diagnose import GpuDiagnosis, diagnose, signals_of
from gpu_advisor.evaluation.diagnosis.peers import build_peers
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.evaluation.policies import (
    batch_size,
    calibrated_batch_size,
    communication,
    cooling,
    data_loading,
    memory_saving,
    mixed_precision,
    power_limit,
    profiling,
    smaller_gpu,
    straggler,
)
from gpu_advisor.evaluation.policies.findings import Finding, PolicyAdvice, group_findings
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import Abstention, Reason, Recommendation
from gpu_advisor.settings import Settings

SUBJECT = "diagnosis"

#: The policy of each kind of recommendation.
POLICIES_BY_KIND: Mapping[str, Callable[[Finding], PolicyAdvice]] = {
    module.KIND: module.advise
    for module in (
        batch_size, communication, cooling, data_loading, memory_saving, mixed_precision, power_limit, profiling,
        smaller_gpu, straggler,
    )
}  # fmt: skip

KINDS = tuple(POLICIES_BY_KIND)


def recommend(facts: Facts, settings: Settings, pool: Pool, /) -> Iterator[Recommendation | Abstention]:
    known = build_peers(facts, pool.gpus)
    outcomes = diagnose(facts, known, [pool])
    for finding in group_findings(facts, settings, pool, known, outcomes):
        for kind in DIAGNOSES[finding.diagnosis].kinds:
            if kind == batch_size.KIND and calibrated_batch_size.has_profile(facts, finding.gpus):
                continue  # the size is known: calibrated_batch_size recommends it
            if kind in POLICIES_BY_KIND:
                yield _recommendation(finding, kind, POLICIES_BY_KIND[kind](finding))
    yield from _abstain(facts, settings, pool, outcomes)


def _recommendation(finding: Finding, kind: str, advice: PolicyAdvice) -> Recommendation:
    return Recommendation(
        kind=kind,
        direction=advice.direction,
        scope=finding.scope,
        severity=advice.severity,
        summary=advice.summary,
        current=len(finding.gpus),
        recommended=0,
        unit="affected GPUs",
        diagnosis=finding.diagnosis,
        explanation=f"{DIAGNOSES[finding.diagnosis].explanation} Observed: {finding.rows[0].reason}.",
        confidence=advice.confidence,
        projection=advice.projection,
        evidence=tuple(finding.evidence()),
        rejected=advice.rejected,
        actions=advice.actions,
        gpus=tuple(gpu.uuid for gpu in finding.gpus),
        nodes=tuple(sorted({gpu.node for gpu in finding.gpus})),
    )


def _abstain(facts: Facts, settings: Settings, pool: Pool, outcomes: Sequence[GpuDiagnosis]) -> Iterator[Abstention]:
    """GPUs without a diagnosis. The sizing policies report GPUs without any data."""
    nearly = [outcome for outcome in outcomes if outcome.borderline and outcome.name == UNKNOWN]
    if nearly:
        names = ", ".join(dict.fromkeys(name for outcome in nearly for name in outcome.borderline))
        message = f"{len(nearly)} of {len(pool.gpus)} GPUs: {names} or not? Values are within the dead band"
        yield Abstention(Reason.CONFLICTING, SUBJECT, pool.scope, message, _uuids(nearly), KINDS)
    target = settings.gpu_limits(pool.settings).target_utilization / 100
    undiagnosed = [
        outcome
        for outcome in outcomes
        if outcome.observed and outcome.name == UNKNOWN and outcome.missing_features and not outcome.borderline
        and (outcome.features["utilization"] or 0.0) < target
    ]  # fmt: skip
    by_reason: dict[Reason, list[GpuDiagnosis]] = {}
    for outcome in undiagnosed:
        had = any(facts.supports(signal, outcome.gpu) for signal in signals_of(outcome.missing_features))
        by_reason.setdefault(Reason.NO_DATA if had else Reason.UNSUPPORTED, []).append(outcome)
    for reason, found in by_reason.items():
        wanted = dict.fromkeys(signal.name for outcome in found for signal in signals_of(outcome.missing_features))
        kind_missing = pool.settings.kind == "undecided" and any(
            "trains" in outcome.missing_features for outcome in found
        )
        fix = f"; if {pool.settings.name} is for training, set kind: training under pools" if kind_missing else ""
        message = (
            f"{len(found)} of {len(pool.gpus)} GPUs are below {target:.0%} utilization; the cause needs one of: "
            f"{', '.join(wanted)}{fix}"
        )
        yield Abstention(reason, SUBJECT, pool.scope, message, _uuids(found), KINDS)


def _uuids(outcomes: Sequence[GpuDiagnosis]) -> tuple[str, ...]:
    return tuple(outcome.gpu.uuid for outcome in outcomes)
