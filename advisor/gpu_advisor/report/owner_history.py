"""Who used each GPU in each step of a period. Pure.

From gpu-exporter's series, else from the pod labels of another exporter: the owners that advice names
(observation/owners.py), at the end of each step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gpu_advisor.evaluation.owners import GpuOwner
from gpu_advisor.observation.owners import owner_of_row
from gpu_advisor.observation.pod_labels import is_ambiguous, workload
from gpu_advisor.promql.expressions import ConstantLabel, Labels, Matcher, Selector, union
from gpu_advisor.report import series
from gpu_advisor.sources.exporters.detection import JobKey, TargetKey, row_target

#: The owners of a GPU by index of a step.
OwnersByStep = Mapping[int, frozenset[GpuOwner]]

_OWNER, _OWNER_SOURCE = "owner", "owner_source"

#: Owners, and the exporter's working sources of owners: while there is one, a GPU without an owner has none.
OWNERS = union(
    ConstantLabel(Selector("gpu_owner_info"), series.PART_LABEL, _OWNER),
    ConstantLabel(
        Selector("gpu_exporter_owner_source_info", matchers=(Matcher("state", "=~", "ok|stale"),)),
        series.PART_LABEL,
        _OWNER_SOURCE,
    ),
)


def owners_by_step(
    rows: Mapping[Labels, Mapping[int, float]], key: Callable[[Mapping[str, str]], str]
) -> tuple[dict[str, OwnersByStep], frozenset[int]]:
    """By `key` of a row, the GPU's, and the steps in which owners are known."""
    found: dict[str, dict[int, frozenset[GpuOwner]]] = {}
    known: set[int] = set()
    for labels, steps in rows.items():
        each = dict(labels)
        known.update(steps)
        owner = owner_of_row(each) if each[series.PART_LABEL] == _OWNER else None
        if owner is not None:
            of_gpu = found.setdefault(key(each), {})
            for index in steps:
                of_gpu[index] = of_gpu.get(index, frozenset()) | {owner}
    return dict(found), frozenset(known)


@dataclass(frozen=True, slots=True)
class IdentitySeries:
    """An identity series of a GPU: the GPU's key, the labels as the exporter has them, the target, the steps.

    `own` are those of gpu-exporter, which has a series for owners.
    """

    gpu: str
    labels: Mapping[str, str]
    target: TargetKey
    steps: frozenset[int]
    own: bool = False

    @staticmethod
    def of(gpu: str, labels: Labels, row: Mapping[str, str], steps: Iterable[int], own: bool) -> IdentitySeries:
        return IdentitySeries(gpu, dict(labels), row_target(row), frozenset(steps), own)

    @property
    def job(self) -> JobKey:
        return JobKey(self.target.job, self.target.cluster)


def ambiguous_jobs(rows: Sequence[IdentitySeries]) -> tuple[str, ...]:
    """The jobs where only the targets' own labels distinguish workloads' pods from the exporter's."""
    renaming = _renaming_jobs(rows)
    ambiguous = (row for row in rows if not row.own and is_ambiguous(row.labels))
    return tuple(sorted({row.target.job for row in ambiguous if row.job not in renaming}))


def _renaming_jobs(rows: Iterable[IdentitySeries]) -> frozenset[JobKey]:
    """Jobs whose workloads' pods are renamed, so that the label `pod` is always the exporter's: it is set per job."""
    return frozenset(row.job for row in rows if row.labels.get("exported_pod"))


def pods_by_step(
    rows: Sequence[IdentitySeries], own_pods: Mapping[TargetKey, Collection[str]] | None
) -> tuple[dict[str, OwnersByStep], dict[str, frozenset[int]]]:
    """By GPU, and the steps in which each GPU's pods are known: if the exporters of its job show any in the period.

    `own_pods` are the exporters' own pods by target; None if they could not be read: then nobody knows whose pod an
    ambiguous label names.
    """
    found: dict[str, dict[int, frozenset[GpuOwner]]] = {}
    steps_of_jobs: dict[JobKey, dict[str, set[int]]] = {}
    mapped, renaming = set[JobKey](), _renaming_jobs(rows)
    for row in rows:
        own = {row.labels.get("pod", "")} if row.job in renaming else (own_pods or {}).get(row.target, ())
        if row.own or (own_pods is None and is_ambiguous(row.labels) and not own):
            continue
        steps_of_jobs.setdefault(row.job, {}).setdefault(row.gpu, set()).update(row.steps)
        pod = workload(row.labels, own)
        if pod is not None:
            mapped.add(row.job)
            owner = frozenset({GpuOwner(*pod, kind="kubernetes")})
            of_gpu = found.setdefault(row.gpu, {})
            for index in row.steps:
                of_gpu[index] = of_gpu.get(index, frozenset()) | owner
    known: dict[str, frozenset[int]] = {}
    for job in mapped:
        for gpu, steps in steps_of_jobs[job].items():
            known[gpu] = known.get(gpu, frozenset()) | steps
    return dict(found), known


def merged(preferred: Mapping[str, OwnersByStep], others: Mapping[str, OwnersByStep]) -> dict[str, OwnersByStep]:
    """The owners of both; in a step in which both have some, the preferred ones."""
    return {gpu: {**others.get(gpu, {}), **preferred.get(gpu, {})} for gpu in others.keys() | preferred.keys()}
