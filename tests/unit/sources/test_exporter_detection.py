"""Who is here, and what queries are held to."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from gpu_advisor.promql.compiler import to_promql
from gpu_advisor.promql.expressions import Labels, Matcher, Vector
from gpu_advisor.sources.exporters.detection import (
    GpuInventory,
    JobKey,
    PresentExporter,
    TargetKey,
    detect_dialects,
    merge_identities,
    present_exporters,
    scrape_interval,
)
from gpu_advisor.sources.exporters.mapping import RECORDED_SERIES
from gpu_advisor.sources.exporters.mapping_files import mappings
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.advisor.builders import identity_row

Row = tuple[str, str, str]  # exporter, job, instance


def labels(**pairs: str) -> Labels:
    return tuple(sorted(pairs.items()))


def up(*targets: tuple[str, str]) -> set[TargetKey]:
    return {TargetKey(job, instance) for job, instance in targets}


def jobs(**intervals: float) -> dict[JobKey, float]:
    return {JobKey(name): interval for name, interval in intervals.items()}


def inventory(*rows: Row) -> tuple[PresentExporter, ...]:
    found = GpuInventory(tuple(identity_row(exporter=e, job=j, instance=i, uuid=f"GPU-{i}") for e, j, i in rows))
    return present_exporters(mappings(), found)


#: Recording rules leave series without an instance.
NAMED = Matcher("instance", "!=", "")


def test_a_job_is_enough_where_all_its_targets_speak_the_same() -> None:
    nodes = [f"10.0.{n // 250}.{n % 250}:9400" for n in range(1250)]
    here = inventory(*(("dcgm-exporter", "dcgm", node) for node in nodes))
    [dialect] = detect_dialects(here, up(*(("dcgm", node) for node in nodes), ("other", "x:1")), jobs(dcgm=15.0))
    assert dialect.target_matchers == (Matcher("job", "=", "dcgm"), NAMED)
    expression = dialect.expression("gpu_utilization", "coverage", 300)
    assert expression is not None
    assert len(to_promql(expression)) < 1000  # whatever the size of the fleet
    assert "0.05 * " in to_promql(expression)  # 15 s of 300


def test_a_job_of_many_kinds_is_held_by_instance_while_that_is_short() -> None:
    here = inventory(("nvitop-exporter", "pods", "a:1"), ("nvitop-exporter", "pods", "b:1"))
    [dialect] = detect_dialects(here, up(("pods", "a:1"), ("pods", "b:1"), ("pods", "web:80")), {})
    assert dialect.target_matchers == (Matcher("job", "=", "pods"), Matcher("instance", "=~", "a:1|b:1"))
    many = [f"n{n}:1" for n in range(100)]
    here = inventory(*(("nvitop-exporter", "pods", node) for node in many))
    [dialect] = detect_dialects(here, up(*(("pods", node) for node in many), ("pods", "web:80")), {})
    assert dialect.target_matchers == (Matcher("job", "=", "pods"), NAMED)


def test_jobs_of_other_intervals_are_other_speakers_in_the_order_of_rank() -> None:
    here = inventory(
        ("dcgm-exporter", "slow", "a:1"), ("dcgm-exporter", "fast", "b:1"), ("gpu-exporter", "ours", "c:1")
    )  # fmt: skip
    found = detect_dialects(here, (), jobs(slow=60.0, fast=15.0))
    assert [(each.name, each.interval_seconds) for each in found] == [
        ("gpu-exporter", None), ("dcgm-exporter", 15.0), ("dcgm-exporter", 60.0),
    ]  # fmt: skip


def test_rows_of_other_programs_and_of_a_second_dialect_do_not_count() -> None:
    ours, dcgm = labels(uuid="GPU-1", job="j", instance="a"), labels(UUID="GPU-1", job="j", instance="a")
    answers: dict[str, Vector] = {
        "gpu-exporter": {ours: 1.0, labels(card="0", job="k", instance="b"): 1.0},
        "dcgm-exporter": {dcgm: 1.0, labels(UUID="GPU-2", job="k", instance="b"): 1.0},
        RECORDED_SERIES: {(): 7.0},
    }
    rows = merge_identities(mappings(), answers)
    assert [(row["exporter"], row.get("uuid")) for row in rows] == [
        (RECORDED_SERIES, None), ("gpu-exporter", "GPU-1"), ("dcgm-exporter", "GPU-2"),
    ]  # fmt: skip


def test_recorded_series_have_no_job() -> None:
    [dialect] = detect_dialects(
        present_exporters(mappings(), GpuInventory(merge_identities(mappings(), {RECORDED_SERIES: {(): 7.0}}))), (), {}
    )
    expression = dialect.expression("gpu_utilization", "mean", 86400)
    assert expression is not None
    assert to_promql(expression) == 'max by (uuid) (avg_over_time(gpu:utilization_ratio:mean1h{job=""}[1d]))'
    assert dialect.expression("gpu_utilization", "mean", 3600) is None  # too short for hours


@given(
    st.sampled_from([0.5, 1, 5, 15, 30, 60, 120, 300]), st.integers(6, 200), st.floats(0, 0.01), st.randoms(),
    st.floats(0, 0.4),
)  # fmt: skip
def test_the_scrape_interval_is_the_median_gap(
    interval: float, count: int, jitter: float, random: Random, lost: float
) -> None:
    times = [1_795_000_000 + interval * (n + random.uniform(-jitter, jitter) / 2) for n in range(count)]
    kept = [at for n, at in enumerate(times) if n < 2 or random.random() >= lost]
    found = scrape_interval(np.array([round(1000 * at) for at in kept], np.int64))
    if len(kept) < 6:
        assert found is None
    elif len(kept) == count:
        assert found == pytest.approx(interval, rel=0.011)
        assert found == interval or interval < 1 or jitter > 0.005
    else:
        gaps = np.diff(kept)
        assert found == pytest.approx(float(np.median(gaps)), rel=0.03)


@pytest.mark.parametrize("count", range(6))
def test_without_five_gaps_the_interval_is_unknown(count: int) -> None:
    assert scrape_interval(np.arange(count, dtype=np.int64) * 15_000) is None


@pytest.mark.parametrize(("count", "named"), [(1, True), (50, True), (51, False)])
def test_up_to_fifty_instances_are_named_one_by_one(count: int, named: bool) -> None:
    nodes = [f"n{n:02}:1" for n in range(count)]
    here = inventory(*(("nvitop-exporter", "pods", node) for node in nodes))
    [dialect] = detect_dialects(here, up(*(("pods", node) for node in nodes), ("pods", "web:80")), {})
    assert (dialect.target_matchers[1] != NAMED) is named
    [alone] = detect_dialects(here, up(*(("pods", node) for node in nodes), ("web", "web:80")), {})
    assert alone.target_matchers == (Matcher("job", "=", "pods"), NAMED)


def test_series_without_an_instance_are_left_out_only_where_the_exporters_have_one() -> None:
    """Sums that recording rules write under an exporter's names are no GPU's; pushed series may have no instance."""
    for instance, matchers in (("a:1", (NAMED,)), ("", ())):
        row = identity_row(
            exporter="gpu-exporter", job="push", uuid="GPU-1", **({"instance": instance} if instance else {})
        )
        [dialect] = detect_dialects(present_exporters(mappings(), GpuInventory((row,))), (), {})
        assert dialect.target_matchers == (Matcher("job", "=", "push"), *matchers)


def test_clusters_that_scrape_one_job_at_other_intervals_are_told_apart() -> None:
    """Two clusters in one store: job `gpu` every 15 s and every 60 s; job `same` at 15 s in both."""
    both = ("east", "west")
    rows = [
        identity_row(
            exporter="gpu-exporter", job=job, instance=f"{cluster}:1", uuid=f"{job}-{cluster}", cluster=cluster
        )
        for job in ("gpu", "same")
        for cluster in both
    ]
    intervals = {JobKey("gpu", "east"): 15.0, JobKey("gpu", "west"): 60.0}
    intervals |= {JobKey("same", cluster): 15.0 for cluster in both}
    here = present_exporters(mappings(), GpuInventory(tuple(rows)))
    found = detect_dialects(here, (), intervals, cluster_label="cluster")
    assert [(each.interval_seconds, [m.value for m in each.target_matchers if m.value]) for each in found] == [
        (15.0, ["gpu", "east"]), (15.0, ["same"]), (60.0, ["gpu", "west"]),
    ]  # fmt: skip


def test_jobs_of_one_interval_are_one_dialect_and_those_of_no_known_interval_come_first() -> None:
    rows = [("dcgm-exporter", job, f"{job}:1") for job in ("quick", "b", "a", "none")]
    found = detect_dialects(inventory(*rows), (), jobs(b=15.0, a=15.0, quick=0.5))
    assert [(each.interval_seconds, [m.value for m in each.target_matchers if m.value]) for each in found] == [
        (None, ["none"]), (0.5, ["quick"]), (15.0, ["a|b"]),
    ]  # fmt: skip


def test_series_without_job_and_instance_are_of_one_target() -> None:
    """As recorded or imported ones are: our exporter's and DCGM's names for one target are not listed twice."""
    answers: dict[str, Vector] = {
        "gpu-exporter": {labels(uuid="GPU-1"): 1.0},
        "dcgm-exporter": {labels(UUID="GPU-1"): 1.0, labels(UUID="GPU-2", instance="b"): 1.0},
    }
    rows = [(row["exporter"], row["uuid"]) for row in merge_identities(mappings(), answers)]
    assert rows == [("gpu-exporter", "GPU-1"), ("dcgm-exporter", "GPU-2")]
