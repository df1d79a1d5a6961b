"""Hung job: its processes hold an idle GPU and make no training step. Reported to its owner, never reclaimed."""

from __future__ import annotations

from collections.abc import Iterator

from gpu_advisor.evaluation.actions import notes
from gpu_advisor.evaluation.diagnosis.idle_owner import judge_idle_gpus
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.policies.gpu_commands import dump_stacks
from gpu_advisor.evaluation.policies.idle_gpus import idle_gpus
from gpu_advisor.evaluation.policies.owner_actions import owner_actions
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import Alternative, Recommendation, Scope, Waste
from gpu_advisor.evaluation.signals import IDLE_UTILIZATION, JOB_STEP_TIME
from gpu_advisor.rendering.durations import duration
from gpu_advisor.settings import Settings

KIND = "hung_job"


def recommend(facts: Facts, _settings: Settings, pool: Pool, /) -> Iterator[Recommendation]:
    """One recommendation for each job with GPUs that are idle while it makes no step."""
    if pool.settings.kind == "serving":
        return
    hung = [
        gpu for gpu, found in judge_idle_gpus(facts, idle_gpus(facts, pool.gpus)).items() if found.verdict == "report"
    ]
    names = {
        owner.workload: facts.reported_jobs[gpu.uuid]
        for gpu in hung
        if gpu.uuid in facts.reported_jobs
        for owner in facts.owners[gpu.uuid]
    }
    jobs: dict[str, list[Gpu]] = {}
    for gpu in hung:
        owner = facts.owners[gpu.uuid][0]
        name = facts.reported_jobs.get(gpu.uuid) or names.get(owner.workload) or str(owner)
        jobs.setdefault(name, []).append(gpu)
    for job, gpus in sorted(jobs.items()):
        yield _recommendation(facts, job, gpus)


def _recommendation(facts: Facts, job: str, gpus: list[Gpu]) -> Recommendation:
    uuids = tuple(gpu.uuid for gpu in gpus)
    window = duration(facts.evaluation.idle_window_seconds)
    count = "its GPU is" if len(gpus) == 1 else f"its {len(gpus)} GPUs are"
    return Recommendation(
        kind=KIND,
        direction="change",
        scope=Scope("job", job),
        severity="warning",
        summary=f"{job} makes no training step, and {count} idle for {window}: does it hang?",
        current=len(gpus),
        recommended=0,
        unit="GPUs of the job",
        diagnosis="hung_job",
        explanation="The job reported steps before, and makes none now; its GPUs are idle, and the host is not busy.",
        confidence="medium",
        evidence=(facts.evidence(JOB_STEP_TIME, uuids), facts.evidence(IDLE_UTILIZATION, uuids)),
        rejected=(Alternative("release its GPUs", "the job would lose what it has done since its last checkpoint"),),
        actions=(
            *owner_actions(facts, gpus),
            *dump_stacks(facts, gpus[0], "where the job's processes wait"),
            *notes("if all ranks wait in a collective, one of them is missing: restart from the last checkpoint"),
        ),
        gpus=uuids,
        nodes=tuple(sorted({gpu.node for gpu in gpus})),
        waste=(Waste(),),
    )
