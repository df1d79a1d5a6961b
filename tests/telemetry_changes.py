"""Situations in which the telemetry itself changes: labels, jobs, intervals, outages. Each with what is true."""

from __future__ import annotations

from collections.abc import Iterator

from tests.telemetry_histories import Sample
from tests.telemetry_oracle import AT
from tests.telemetry_situations import Situation, Target, chain, constant, dcgm_gpu, own_gpu, summarize, target

HALF_WINDOW = AT - 900


def _two_gpus(where: Target, node: str = "n1") -> Iterator[Sample]:
    """GPU-0 is busy 95 % of the time, GPU-1 is idle with some memory allocated."""
    yield from own_gpu(where, "GPU-0", node, 0, constant(0.95))
    yield from own_gpu(where, "GPU-1", node, 1, constant(0.0), memory=0.01)


def _up_while_present(where: Target) -> Iterator[Sample]:
    """`up` of a target that is not scraped at other times."""
    for at in where.times():
        yield "up", where.labels, 1.0, at


def _changed(before: dict[str, str], after: dict[str, str]) -> Iterator[Sample]:
    """One exporter whose target labels change in the middle of the idle window."""
    for labels, present in ((before, lambda at: at < HALF_WINDOW), (after, lambda at: at >= HALF_WINDOW)):
        where = Target(labels, present=present)
        yield from chain(_up_while_present(where), _two_gpus(where))


def _label_added() -> Iterator[Sample]:
    own = {"job": "gpu", "instance": "n1:9816"}
    return _changed(own, {**own, "zone": "eu-1a"})


def _job_renamed() -> Iterator[Sample]:
    return _changed({"job": "gpu", "instance": "n1:9816"}, {"job": "gpu-exporter", "instance": "n1:9816"})


def _outage_that_ended() -> Iterator[Sample]:
    where = target("gpu", "n1:9816", present=lambda at: not AT - 2100 < at < AT - 300)
    return chain(where.up(), _two_gpus(where))


def _store_behind() -> Iterator[Sample]:
    where = target("gpu", "n1:9816", present=lambda at: at < AT - 240)
    return chain(_up_while_present(where), _two_gpus(where))


def _pushed_every_minute() -> Iterator[Sample]:
    return _two_gpus(target("gpu", "n1:9816", interval=60.0, has_up=False))


def _interval_shortened() -> Iterator[Sample]:
    slow = target("gpu", "n1:9816", interval=60.0, present=lambda at: at < HALF_WINDOW)
    quick = target("gpu", "n1:9816", present=lambda at: at >= HALF_WINDOW)
    for where in (slow, quick):
        yield from chain(_up_while_present(where), _two_gpus(where))


def _gpu_moved() -> Iterator[Sample]:
    """GPU-1 is put into another node in the middle of the window; both exporters stay up."""
    first, second = target("gpu", "n1:9816"), target("gpu", "n2:9816")
    yield from chain(first.up(), second.up())
    yield from own_gpu(first, "GPU-0", "n1", 0, constant(0.95))
    yield from own_gpu(second, "GPU-2", "n2", 0, constant(0.95))
    for host, node, present in (
        ("n1:9816", "n1", lambda at: at < HALF_WINDOW),
        ("n2:9816", "n2", lambda at: at >= HALF_WINDOW),
    ):
        yield from own_gpu(target("gpu", host, present=present), "GPU-1", node, 1, constant(0.0), memory=0.01)


def _names_of_another_team() -> Iterator[Sample]:
    """Another team's rules record sums over clusters under the exporter's own metric names."""
    where = target("gpu", "n1:9816")
    yield from chain(where.up(), _two_gpus(where))
    for at in where.times():
        for uuid in ("GPU-0", "GPU-1"):
            recorded = {"uuid": uuid, "team": "ml"}
            yield "gpu_busy_seconds_total", recorded, 0.5 * (at - where.begin), at
            yield "gpu_observed_seconds_total", recorded, at - where.begin, at


def _rules_that_keep_the_job() -> Iterator[Sample]:
    """The same, by job: only the instance is missing."""
    where = target("gpu", "n1:9816")
    yield from chain(where.up(), _two_gpus(where))
    for at in where.times():
        for uuid in ("GPU-0", "GPU-1"):
            recorded = {"uuid": uuid, "job": "gpu"}
            yield "gpu_busy_seconds_total", recorded, 0.5 * (at - where.begin), at
            yield "gpu_observed_seconds_total", recorded, at - where.begin, at


def _owners_that_alternate() -> Iterator[Sample]:
    """Two pods take turns, four minutes each: every series comes back."""
    where = target("dcgm", "n1:9400")

    def owners(at: float) -> list[dict[str, str]]:
        return [{"exported_pod": f"turn-{int(at // 240) % 2}", "exported_namespace": "ml"}]

    yield from where.up()
    yield from dcgm_gpu(where, "GPU-0", "n1", 0, constant(0.95), owners=owners)
    yield from dcgm_gpu(where, "GPU-1", "n1", 1, constant(0.0), memory=0.01)


def _target_that_answers_nothing() -> Iterator[Sample]:
    """`up` is 0 for the whole window: another job scrapes a wrong port of the same nodes."""
    where = target("gpu", "n1:9816")
    yield from chain(where.up(), _two_gpus(where))
    for at in where.times():
        yield "up", {"job": "gpu", "instance": "n1:9999"}, 0.0, at


def _exporters_own_pod() -> Iterator[Sample]:
    """Without honor_labels, `pod` is the exporter's, and the workload's is `exported_pod`."""
    where = target("dcgm", "10.0.0.7:9400", pod="dcgm-exporter-x7k", namespace="gpu-operator")
    owner = {"exported_pod": "train-0", "exported_namespace": "ml", "exported_container": "main"}
    yield from where.up()
    yield from dcgm_gpu(where, "GPU-0", "n1", 0, constant(0.95), owners=lambda _: (owner,))
    yield from dcgm_gpu(where, "GPU-1", "n1", 1, constant(0.0), memory=0.01)


def _replicas_with_skewed_clocks() -> Iterator[Sample]:
    for replica, phase in (("a", 0.0), ("b", 6.5)):
        where = target("gpu", "n1:9816", replica=replica, phase=phase)
        yield from chain(where.up(), _two_gpus(where))


UNTOUCHED = {
    "gpus": 2, "released": ["GPU-1"], "fleet gpu_utilization": 0.475, "gpu_idle_utilization GPU-0": 0.95,
    "gpu_idle_utilization GPU-1": 0.0, "gpu_idle_coverage GPU-0": 1.0, "gpu_idle_coverage GPU-1": 1.0,
}  # fmt: skip

CHANGES: tuple[Situation, ...] = (
    Situation("a target label added in the middle of the window", _label_added, summarize, UNTOUCHED),
    Situation("a job renamed in the middle of the window", _job_renamed, summarize, UNTOUCHED),
    # 20 of 120 samples are there, and those of the short window.
    Situation("an outage of half an hour that ended 5 minutes ago", _outage_that_ended, summarize, {
        "gpus": 2, "released": [], "abstained": ["insufficient_history"], "fleet gpu_utilization": 0.475,
    }),
    Situation("the store is four minutes behind", _store_behind, summarize, {
        "released": [], "fleet gpu_utilization status": "unknown",
    }),
    Situation("pushed every minute, without up", _pushed_every_minute, summarize, UNTOUCHED),
    # 15 samples of the slow half and 60 of the quick one, of 120.
    Situation("the scrape interval shortened in the middle of the window", _interval_shortened, summarize, {
        "gpus": 2, "released": [], "abstained": ["insufficient_history"], "gpu_idle_utilization GPU-0": 0.95,
    }),
    Situation("a GPU moved to another node", _gpu_moved, summarize, {
        "gpus": 3, "released": ["GPU-1"], "gpu_idle_utilization GPU-1": 0.0, "gpu_idle_coverage GPU-1": 1.0,
        "n1 gpu_utilization": 0.95, "n2 gpu_utilization": 0.475,
    }),
    Situation("rules of another team under the same names", _names_of_another_team, summarize, UNTOUCHED),
    Situation("rules of another team that keep the job", _rules_that_keep_the_job, summarize, UNTOUCHED),
    Situation("owners that alternate", _owners_that_alternate, summarize, UNTOUCHED),
    Situation("a target of the job that never answers", _target_that_answers_nothing, summarize, UNTOUCHED),
    Situation("honor_labels off: the exporter's own pod", _exporters_own_pod, summarize, UNTOUCHED),
    Situation("two replicas with skewed clocks", _replicas_with_skewed_clocks, summarize, UNTOUCHED),
)  # fmt: skip
