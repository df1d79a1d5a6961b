"""One diagnosis per GPU: by the decision table first, then reconciled with the other GPUs of its job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gpu_advisor.evaluation.diagnosis.conditions import Features, Truth, all_of
from gpu_advisor.evaluation.diagnosis.decision_table import (
    DECISION_TABLE,
    HEALTHY,
    SECONDARY_ROWS,
    UNKNOWN,
    WAITING_FOR_STRAGGLER,
    DecisionRow,
)
from gpu_advisor.evaluation.diagnosis.features import FEATURES_BY_NAME, GpuSignals, LazyFeatures
from gpu_advisor.evaluation.diagnosis.peers import Peers
from gpu_advisor.evaluation.diagnosis.screening import Columns, Screened, possible_rows
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.signals import IDLE_COVERAGE, IDLE_UTILIZATION, Signal

#: Diagnoses of single GPUs. All others concern the workload, which all GPUs of a job share.
SINGLE_GPU_DIAGNOSES = frozenset({"throttled_thermal", "throttled_power", "straggler"})

#: Diagnoses of a GPU that only waits in a collective for a slow GPU of its job.
WAITING_SYMPTOMS = frozenset({"communication_bound", "small_batch", "memory_bound", "busy_but_empty"})

#: A kernel without SM activity is not a collective.
NOT_WAITING = ("busy_but_empty", "")


#: Screening costs a pool a millisecond and saves 20 microseconds a GPU: rows of smaller pools are not screened.
SCREENED_FROM = 64
UNSCREENED = Screened(DECISION_TABLE, is_decided=False)


@dataclass(frozen=True, slots=True)
class GpuDiagnosis:
    """The diagnosis of one GPU.

    `row` is the matching row of the table, or None. `borderline` are the diagnoses within a dead band, of rows before
    it. `observed` is False if the GPU has too little data; `features` are the values computed.
    """

    gpu: Gpu
    name: str
    row: DecisionRow | None = None
    borderline: tuple[str, ...] = ()
    observed: bool = True
    secondary_rows: tuple[DecisionRow, ...] = ()
    features: Features = field(default_factory=dict, compare=False, repr=False)


def features_of(row: DecisionRow) -> tuple[str, ...]:
    """The features that a row uses."""
    return tuple(dict.fromkeys(part.feature for condition in row.conditions for part in condition.parts()))


def signals_of(features: Iterable[str]) -> tuple[Signal, ...]:
    """The signals that features are computed from."""
    return tuple(dict.fromkeys(signal for name in features for signal in FEATURES_BY_NAME[name].signals))


def match_row(
    features: Features, rows: Iterable[DecisionRow] = DECISION_TABLE
) -> tuple[DecisionRow | None, tuple[str, ...]]:
    """The first matching row, or None, and the borderline diagnoses of rows before it."""
    borderline: dict[str, None] = {}
    for row in rows:
        truth = all_of(row.conditions, features)
        if truth is Truth.YES:
            return row, tuple(borderline)
        if truth is Truth.BORDERLINE:
            borderline[row.diagnosis] = None
    return None, tuple(borderline)


def diagnose(facts: Facts, peers: Peers, pools: Sequence[Pool]) -> tuple[GpuDiagnosis, ...]:
    """One diagnosis for each GPU of the pools, in their order."""
    single = [outcome for pool in pools for outcome in _diagnose_pool(facts, peers, pool)]
    return tuple(_reconcile_jobs(single, peers))


def _diagnose_pool(facts: Facts, peers: Peers, pool: Pool) -> Iterator[GpuDiagnosis]:
    if len(pool.gpus) < SCREENED_FROM:
        for gpu in pool.gpus:
            yield _diagnose_gpu(facts, peers, pool, gpu, UNSCREENED, SECONDARY_ROWS)
        return
    columns = Columns(facts, pool.gpus, peers)
    primary = possible_rows(columns, DECISION_TABLE)
    secondary = [possible_rows(columns, (row,)) for row in SECONDARY_ROWS]  # each holds or not, whatever the others do
    for gpu, screened, *others in zip(pool.gpus, primary, *secondary, strict=True):
        yield _diagnose_gpu(facts, peers, pool, gpu, screened, [row for found in others for row in found.rows])


def _diagnose_gpu(
    facts: Facts,
    peers: Peers,
    pool: Pool,
    gpu: Gpu,
    screened: Screened,
    secondary_rows: Sequence[DecisionRow],
) -> GpuDiagnosis:
    """The diagnosis by those rows that may match."""
    coverage = facts.value(IDLE_COVERAGE, gpu.uuid)
    if not gpu.up or facts.value(IDLE_UTILIZATION, gpu.uuid) is None:
        return GpuDiagnosis(gpu, UNKNOWN, observed=False)
    if coverage is not None and coverage < facts.evaluation.min_coverage_ratio:
        return GpuDiagnosis(gpu, UNKNOWN, observed=False)
    features = LazyFeatures(GpuSignals(facts, gpu, peers, pool.kind_of(gpu)))
    row, borderline = (screened.rows[0], ()) if screened.is_decided else match_row(features, screened.rows)
    secondary_found = tuple(row for row in secondary_rows if all_of(row.conditions, features) is Truth.YES)
    return GpuDiagnosis(
        gpu,
        row.diagnosis if row else UNKNOWN,
        row,
        borderline,
        secondary_rows=secondary_found,
        features=features,
    )


def _reconcile_jobs(single: Sequence[GpuDiagnosis], peers: Peers) -> Iterable[GpuDiagnosis]:
    """Drop symptoms of waiting for a slow GPU, and diagnoses that most GPUs of a job do not share."""
    slow_jobs = {peers.jobs.get(each.gpu.uuid) for each in single if each.name in SINGLE_GPU_DIAGNOSES} - {None}
    slow_nodes = {(each.gpu.node, each.gpu.name) for each in single if each.name in SINGLE_GPU_DIAGNOSES}
    common = _common_diagnoses(single, peers.jobs)
    for each in single:
        job = peers.jobs.get(each.gpu.uuid)
        near_slow = job in slow_jobs if job is not None else (each.gpu.node, each.gpu.name) in slow_nodes
        if each.name in SINGLE_GPU_DIAGNOSES or each.name == HEALTHY:
            yield each
        elif near_slow and _may_wait(each, job):
            yield replace(each, name=WAITING_FOR_STRAGGLER, row=None)
        elif job is not None and each.row is not None and each.name not in common[job]:
            yield replace(each, name=UNKNOWN, row=None)
        else:
            yield each


def _may_wait(outcome: GpuDiagnosis, job: str | None) -> bool:
    """Whether waiting for another GPU explains the diagnosis."""
    if outcome.row is None:
        return job is not None and outcome.observed
    return outcome.name in WAITING_SYMPTOMS and (outcome.name, outcome.row.variant) != NOT_WAITING


def _common_diagnoses(single: Sequence[GpuDiagnosis], jobs: Mapping[str, str]) -> dict[str, set[str]]:
    """By job, the diagnoses that at least half of its GPUs share."""
    found: dict[str, Counter[str]] = {}
    for each in single:
        job = jobs.get(each.gpu.uuid)
        if job is not None:
            found.setdefault(job, Counter())[each.name] += 1
    return {job: {name for name, count in names.items() if 2 * count >= names.total()} for job, names in found.items()}
