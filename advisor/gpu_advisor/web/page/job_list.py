"""Jobs: who uses GPUs, with how many, how well, and what is recommended. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpu_advisor.evaluation.owners import NO_OWNER
from gpu_advisor.state.view import PublishedRecommendation
from gpu_advisor.web.page.gpu_list import GpuList, GpuRow, PartialMean, natural


@dataclass(frozen=True, slots=True)
class JobRow:
    """An owner (pod, job, unit, user) or a set of owners that share GPUs.

    Means are of what the rows of its GPUs show.
    """

    name: str
    gpus: tuple[GpuRow, ...]
    utilization: PartialMean
    memory: PartialMean
    advice: tuple[PublishedRecommendation, ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.gpu.node for row in self.gpus))

    @property
    def owned(self) -> bool:
        return self.name != NO_OWNER


def job_rows(gpus: GpuList) -> list[JobRow]:
    """One row for each set of owners; those with advice first, then by number of GPUs, then by name."""
    by_owner: dict[str, list[GpuRow]] = {}
    for row in gpus.rows:
        by_owner.setdefault(", ".join(row.owners) or NO_OWNER, []).append(row)
    rows = [_row(name, found) for name, found in by_owner.items()]
    return sorted(rows, key=lambda row: (not row.owned, not row.advice, -len(row.gpus), natural(row.name)))


def _row(name: str, gpus: Sequence[GpuRow]) -> JobRow:
    advice = {each.id: each for row in gpus for each in row.advice}
    return JobRow(
        name,
        tuple(gpus),
        PartialMean.of([row.shown_utilization for row in gpus]),
        PartialMean.of([row.shown_memory for row in gpus]),
        tuple(advice.values()),
    )
