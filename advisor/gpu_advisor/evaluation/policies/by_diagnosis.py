"""Diagnosis before action: the causes found in a pool, and the policy for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from gpu_advisor.evaluation.diagnosis.decision_table import DIAGNOSES, UNKNOWN
from gpu_advisor.evaluation.diagnosis.diagnose import GpuDiagnosis, diagnose, signals_of
from gpu_advisor.evaluation.diagnosis.peers import build_peers
from gpu_advisor.evaluation.diagnosis.questions import OpenQuestion, open_question
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
from gpu_advisor.evaluation.policies.waste import waste_of
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
    pool = replace(pool, gpus=pool.devices)
    known = build_peers(facts, pool.gpus)
    outcomes = diagnose(facts, known, [pool])
    for finding in group_findings(facts, settings, pool, known, outcomes):
        for kind in DIAGNOSES[finding.diagnosis].kinds:
            if kind == batch_size.KIND and calibrated_batch_size.has_profile(facts, finding.gpus):
                continue  # the size is known: calibrated_batch_size recommends it
            if kind in POLICIES_BY_KIND:
                yield _recommendation(finding, kind, POLICIES_BY_KIND[kind](finding))
    yield from _abstain(facts, pool, outcomes)


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
        explanation=f"{advice.cause or DIAGNOSES[finding.diagnosis].explanation} Observed: {finding.rows[0].reason}.",
        confidence=advice.confidence,
        projection=advice.projection,
        evidence=tuple(finding.evidence(advice)),
        rejected=advice.rejected,
        actions=advice.actions,
        gpus=tuple(gpu.uuid for gpu in finding.gpus),
        nodes=tuple(sorted({gpu.node for gpu in finding.gpus})),
        waste=waste_of(finding),
    )


def _abstain(facts: Facts, pool: Pool, outcomes: Sequence[GpuDiagnosis]) -> Iterator[Abstention]:
    """GPUs without a diagnosis. The sizing policies report GPUs without any data."""
    nearly = [outcome for outcome in outcomes if outcome.borderline and outcome.name == UNKNOWN]
    if nearly:
        causes = dict.fromkeys(name.replace("_", " ") for outcome in nearly for name in outcome.borderline)
        names = ", ".join(causes)
        message = f"{len(nearly)} of {len(pool.gpus)} GPUs: {names} or not? Values are within the dead band"
        yield Abstention(Reason.CONFLICTING, SUBJECT, pool.scope, message, _uuids(nearly), KINDS)
    by_question: dict[OpenQuestion, list[GpuDiagnosis]] = {}
    for outcome in outcomes:
        asked = open_question(outcome)
        if asked is not None:
            by_question.setdefault(asked, []).append(outcome)
    for asked, found in by_question.items():
        yield _ask(facts, pool, asked, found)


def _ask(facts: Facts, pool: Pool, asked: OpenQuestion, found: Sequence[GpuDiagnosis]) -> Abstention:
    """The one input that would settle the cause for these GPUs, and how to get it."""
    signals = signals_of(asked.input.features)
    had = any(facts.supports(signal, outcome.gpu) for signal in signals for outcome in found)
    causes = " or ".join(cause.replace("_", " ") for cause in asked.question.causes)
    verb = asked.question.observed_on(len(found))
    message = (
        f"{len(found)} of {len(pool.gpus)} GPUs {verb}: {causes}? To settle it ({asked.source.cost}): "
        f"{asked.source.how}"
    )
    reason = Reason.NO_DATA if had else Reason.UNSUPPORTED
    return Abstention(reason, SUBJECT, pool.scope, message, _uuids(found), asked.kinds, asked.input.name)


def _uuids(outcomes: Sequence[GpuDiagnosis]) -> tuple[str, ...]:
    return tuple(outcome.gpu.uuid for outcome in outcomes)
