"""Batch size by measurement: the curve of a probe profile, joined with the metrics of the running job.

A profile belongs to a job by name: its `workload` equals the job's `training_job`, on the same GPU type. Three ceilings
are shown: memory, the knee of throughput, and gradient noise if the job reports it. Memory is never scaled linearly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpu_advisor.calibration.byte_sizes import format_bytes
from gpu_advisor.calibration.errors import CalibrationError
from gpu_advisor.calibration.profile_index import ProfileCurve
from gpu_advisor.evaluation.actions import configure_trainer, notes
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.missing import explain_missing
from gpu_advisor.evaluation.policies.batch_size import KIND
from gpu_advisor.evaluation.pools import Pool
from gpu_advisor.evaluation.recommendation import (
    Abstention,
    Alternative,
    Evidence,
    Projection,
    Reason,
    Recommendation,
    Scope,
)
from gpu_advisor.evaluation.signals import JOB_BATCH_SIZE, JOB_GRADIENT_NOISE, JOB_PEAK_MEMORY, MEMORY_TOTAL
from gpu_advisor.settings import Settings

if TYPE_CHECKING:
    from gpu_advisor.calibration.batch_size_advice import BatchSizeAdvice

SUBJECT = "batch_size"

#: A smaller throughput gain does not justify retuning the learning rate.
MIN_THROUGHPUT_GAIN = 0.05
#: A job whose own peak deviates further from its profile's curve runs another model than the probed one.
MAX_PEAK_DEVIATION = 0.15


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """A training job on GPUs of one pool and type. `batch_size` is per rank; `ranks` counts those of all pools."""

    name: str
    gpus: tuple[Gpu, ...]
    ranks: int
    batch_size: int
    memory_bytes: int
    peak_bytes: float | None
    gradient_noise: float | None

    @property
    def scope(self) -> Scope:
        return Scope("job", self.name)

    @property
    def uuids(self) -> tuple[str, ...]:
        return tuple(gpu.uuid for gpu in self.gpus)


def recommend(facts: Facts, settings: Settings, pool: Pool, /) -> Iterator[Recommendation | Abstention]:
    """For each job with a profile, all of it: from the pool of its first GPU."""
    jobs = {facts.reported_jobs[gpu.uuid] for gpu in pool.gpus if has_profile(facts, (gpu,))}
    members: dict[str, list[Gpu]] = {}
    for gpu in facts.gpus if jobs else ():
        if facts.reported_jobs.get(gpu.uuid) in jobs and has_profile(facts, (gpu,)):
            members.setdefault(facts.reported_jobs[gpu.uuid], []).append(gpu)
    here = frozenset(pool.uuids)
    for name, gpus in members.items():
        if gpus[0].uuid not in here:
            continue
        job = _job(facts, name, tuple(gpus))
        yield from ((job,) if isinstance(job, Abstention) else _recommend_for_job(facts, settings, job))


def has_profile(facts: Facts, gpus: Iterable[Gpu]) -> bool:
    """Whether there is a profile for the job of each of these GPUs."""
    jobs = facts.reported_jobs
    return all(gpu.uuid in jobs and facts.profiles.find(gpu.name, jobs[gpu.uuid]) for gpu in gpus)


def unreadable_profiles(facts: Facts, cluster: str) -> Iterator[Abstention]:
    """Profiles that cannot be read."""
    for error in facts.profiles.errors:
        yield Abstention(Reason.NO_DATA, SUBJECT, Scope("fleet", cluster), error, kinds=(KIND,))


def _job(facts: Facts, name: str, gpus: tuple[Gpu, ...]) -> TrainingJob | Abstention:
    sizes = {facts.value(JOB_BATCH_SIZE, gpu.uuid) for gpu in gpus}
    types = {gpu.name for gpu in gpus}
    memory = [facts.value(MEMORY_TOTAL, gpu.uuid) for gpu in gpus]
    scope, uuids = Scope("job", name), tuple(gpu.uuid for gpu in gpus)
    if None in sizes or None in memory:
        gpu = next(g for g in gpus if None in (facts.value(JOB_BATCH_SIZE, g.uuid), facts.value(MEMORY_TOTAL, g.uuid)))
        signal = JOB_BATCH_SIZE if facts.value(JOB_BATCH_SIZE, gpu.uuid) is None else MEMORY_TOTAL
        missing = explain_missing(facts, signal, scope, gpu)
        return Abstention(missing.reason, SUBJECT, scope, missing.message, uuids, (KIND,))
    if len(sizes) > 1 or len(types) > 1:
        message = "its ranks differ in batch size or GPU type: no single size fits them"
        return Abstention(Reason.CONFLICTING, SUBJECT, scope, message, uuids, (KIND,))
    peaks = [peak for uuid in uuids if (peak := facts.value(JOB_PEAK_MEMORY, uuid)) is not None]
    noises = [noise for uuid in uuids if (noise := facts.value(JOB_GRADIENT_NOISE, uuid)) is not None]
    ranks = sum(1 for job in facts.reported_jobs.values() if job == name)
    return TrainingJob(
        name, gpus, ranks, max(1, round(sizes.pop() or 0)), int(min(each for each in memory if each is not None)),
        max(peaks, default=None), max(noises, default=None),
    )  # fmt: skip


def _recommend_for_job(facts: Facts, settings: Settings, job: TrainingJob) -> Iterator[Recommendation | Abstention]:
    from gpu_advisor.calibration.batch_size_advice import BatchSizeRequest, recommend_batch_size

    def abstain(reason: Reason, message: str) -> Abstention:
        return Abstention(reason, SUBJECT, job.scope, message, job.uuids, (KIND,))

    fits = [
        (distance, curve) for curve in _curves(facts, job) if (distance := _profile_mismatch(curve, job)) is not None
    ]
    curve = min(fits, key=lambda pair: pair[0])[1] if fits else None
    if curve is None:
        peak = f"{format_bytes(job.peak_bytes or 0)} at batch size {job.batch_size}"
        yield abstain(
            Reason.CONFLICTING,
            f"the job's peak memory ({peak}) does not match its profile: probe the model that runs now",
        )
        return
    limits = settings.resources.memory
    # The noise scale is over all ranks; the recommended batch is per rank.
    noise = max(1, int(job.gradient_noise / job.ranks)) if job.gradient_noise else None
    request = BatchSizeRequest(job.memory_bytes, limits.target_usage / 100, (), job.batch_size, noise)
    try:
        advice = recommend_batch_size(curve.points, request)
    except CalibrationError as error:
        yield abstain(Reason.CONFLICTING, f"its profile cannot be used: {error}")
        return
    best, here = advice.recommended_batch_size, advice.current
    if best is None or here is None or advice.recommended is None:
        yield abstain(Reason.SATURATED, advice.notes[0])
        return
    too_full = here.memory.peak_memory_bytes > (limits.target_usage + limits.tolerance) / 100 * job.memory_bytes
    worthwhile = advice.gain_ratio is None or advice.gain_ratio >= MIN_THROUGHPUT_GAIN
    if (best > job.batch_size and worthwhile) or (best < job.batch_size and too_full):
        yield _recommendation(facts, job, curve, advice, best)


def _curves(facts: Facts, job: TrainingJob) -> tuple[ProfileCurve, ...]:
    return facts.profiles.find(job.gpus[0].name, job.name)


def _profile_mismatch(curve: ProfileCurve, job: TrainingJob) -> float | None:
    """Relative distance of the job's own peak from the curve; None if the profile cannot be of this job."""
    from gpu_advisor.calibration.memory_fit import fit_memory

    if curve.allocated is None or job.peak_bytes is None:
        return MAX_PEAK_DEVIATION  # no evidence against it, but a profile that agrees is preferred
    expected = fit_memory(curve.allocated).predict(job.batch_size)
    off = abs(job.peak_bytes / expected.peak_memory_bytes - 1)
    within = expected.low <= job.peak_bytes <= expected.high
    return off if within or off <= MAX_PEAK_DEVIATION else None


def _recommendation(
    facts: Facts, job: TrainingJob, curve: ProfileCurve, advice: BatchSizeAdvice, best: int
) -> Recommendation:
    assert advice.recommended is not None
    memory, gain = advice.recommended.memory, advice.gain_ratio
    grows = best > job.batch_size
    gained = "" if gain is None else f", {gain:+.0%} throughput"
    takes = f"{format_bytes(memory.peak_memory_bytes)} ({format_bytes(memory.low)} to {format_bytes(memory.high)})"
    within = best <= curve.points.largest.batch_size
    return Recommendation(
        kind=KIND,
        direction="up" if grows else "down",
        scope=job.scope,
        severity="info" if grows else "warning",
        summary=f"{job.scope}: batch size {job.batch_size} -> {best}{gained}, {takes} of "
        f"{format_bytes(job.memory_bytes)}, calibrated on {curve.gpu_type} ({curve.precision})",
        current=job.batch_size,
        recommended=best,
        unit="samples",
        diagnosis="batch_below_ceiling" if grows else "memory_above_target",
        explanation=f"{_ceilings(advice)} {format_bytes(advice.margin_bytes or 0)} headroom above the 90 % interval.",
        confidence="high" if within else "medium" if len(curve.points.points) > 2 else "low",
        projection=Projection(
            memory_ratio=memory.peak_memory_bytes / job.memory_bytes,
            throughput_ratio=None if gain is None else 1 + gain,
        ),
        evidence=tuple(_evidence(facts, job, advice.limit_bytes)),
        rejected=tuple(_rejected(job, advice)),
        actions=(
            configure_trainer(str(job.scope), "of each rank", per_device_train_batch_size=best),
            *notes(*advice.notes),
        ),
        gpus=job.uuids,
        nodes=tuple(sorted({gpu.node for gpu in job.gpus})),
    )


def _ceilings(advice: BatchSizeAdvice) -> str:
    ceilings = advice.ceilings
    known = (
        ("memory", ceilings.memory, "too small for one sample"),
        ("throughput (95 % of the best)", ceilings.throughput_knee, "not measured"),
        ("gradient noise", ceilings.gradient_noise, "not reported"),
    )
    listed = "; ".join(f"{name} {size if size is not None else why}" for name, size, why in known)
    return f"Batch size ceilings per rank: {listed}."


def _evidence(facts: Facts, job: TrainingJob, limit_bytes: int) -> Iterator[Evidence]:
    for signal, threshold in (
        (JOB_BATCH_SIZE, None), (JOB_PEAK_MEMORY, float(limit_bytes)), (MEMORY_TOTAL, None), (JOB_GRADIENT_NOISE, None),
    ):  # fmt: skip
        uuids = tuple(uuid for uuid in job.uuids if facts.value(signal, uuid) is not None)
        if uuids:
            yield facts.evidence(signal, uuids, threshold)


def _rejected(job: TrainingJob, advice: BatchSizeAdvice) -> Iterator[Alternative]:
    ceiling = advice.ceilings.memory
    if ceiling is not None:
        yield Alternative(f"more than {ceiling}", f"may exceed {format_bytes(advice.limit_bytes)}, the memory target")
    if advice.current is not None:
        scaled = int(job.batch_size * advice.limit_bytes / advice.current.memory.peak_memory_bytes)
        yield Alternative(f"{scaled}, scaled by the free memory", "memory does not grow in proportion to the batch")
