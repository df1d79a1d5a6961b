"""Who uses a GPU, and the GPUs of a recommendation, as people read it. Pure."""

from __future__ import annotations

from gpu_advisor.evaluation.engine import Evaluation
from gpu_advisor.evaluation.recommendation import Recommendation


def owner_names(evaluation: Evaluation, uuid: str) -> tuple[str, ...]:
    """Who uses a GPU; the training job that reports, where no owner is known."""
    owners = tuple(dict.fromkeys(map(str, evaluation.facts.owners.get(uuid, ()))))
    job = evaluation.facts.jobs.get(uuid, "")
    return owners or ((f"job {job}",) if job else ())


def recommendation_owners(evaluation: Evaluation | None, advice: Recommendation) -> list[str]:
    """Who uses its GPUs at present, in the order of these."""
    if evaluation is None:
        return []
    return list(dict.fromkeys(name for uuid in advice.gpus for name in owner_names(evaluation, uuid)))
