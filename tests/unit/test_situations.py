"""The generator of situations: its truths are those of its physics, and what is not exported is not seen."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.situations.classes import CLASSES, draw
from benchmarks.situations.healthy_day import days
from benchmarks.situations.observation import observe
from benchmarks.situations.physics import ACTIONABLE_RATIO, GpuStep, cap_clock, cause, power_share

CAUSES = {
    "data_bound": "data",
    "small_batch": "batch",
    "communication_bound": "communication",
}
COUNT = 40


@pytest.mark.parametrize("label", CLASSES)
def test_the_truth_is_the_physical_cause(label: str) -> None:
    for situation, _ in draw(label, 7, COUNT):
        ranks = situation.scene.ranks
        assert situation.label == label
        assert any(rank.affected for rank in ranks)
        if label in CAUSES:
            assert {cause(rank.step) for rank in ranks} == {CAUSES[label]}
        if label == "memory_bound":
            assert {cause(rank.step) for rank in ranks} <= {"bandwidth", "batch"}
            assert all(cause(rank.step) == "bandwidth" or rank.memory > 0.9 for rank in ranks)
        if label.startswith("throttled"):
            for rank in ranks:
                normal = cap_clock(rank.step)
                slower = rank.step.seconds(rank.clock) / rank.step.seconds(normal) - 1
                assert (slower >= ACTIONABLE_RATIO) == rank.affected
        if label == "healthy" and ranks[0].load is None:
            assert {cause(rank.step) for rank in ranks} == {"none"}
        if label == "idle_holding_memory":
            assert all(rank.load is not None and rank.load < 0.01 and rank.memory > 0.05 for rank in ranks)


def test_a_seed_draws_the_same_again() -> None:
    for _ in range(2):
        (one, rng), (other, _), (same, again) = (next(draw("straggler", seed, 1)) for seed in (1, 2, 1))
        assert one == same != other
        first, second = (observe(each, one.scene, one.exporters, 20) for each in (rng, again))
        for name, array in first.gpu.items():
            np.testing.assert_array_equal(array, second.gpu[name])


@pytest.mark.parametrize("label", CLASSES)
def test_what_is_seen_could_be_and_what_is_not_exported_is_not_seen(label: str) -> None:
    for situation, rng in draw(label, 3, COUNT):
        scene, exporters = situation.scene, situation.exporters
        seen = observe(rng, scene, exporters, 40)
        assert ("sm_activity" in seen.gpu) == exporters.activity
        assert ("utilization" in seen.gpu) == exporters.utilization
        assert ("job_step_seconds" in seen.gpu) == exporters.job
        assert bool(seen.node) == exporters.host
        for name, array in {**seen.gpu, **seen.node}.items():
            assert np.nanmin(array, initial=0.0) >= 0, name
            if name.endswith(("activity", "utilization", "used")) or name.startswith("throttle"):
                assert np.nanmax(array, initial=0.0) <= 1, name
        if exporters.power:
            assert np.nanmean(seen.gpu["power"]) <= scene.hardware.limit_watts * 1.05


def test_what_ranks_of_a_synchronous_job_take_is_the_same_for_all() -> None:
    uneven = (pair for pair in draw("straggler", 5, 60) if pair[0].variant == "uneven" and pair[0].exporters.job)
    situation, rng = next(uneven)
    steps = observe(rng, situation.scene, situation.exporters, 40).gpu["job_steps"]
    np.testing.assert_allclose(steps.min(axis=1), steps.max(axis=1))


def test_power_is_capped_only_where_the_work_draws_it() -> None:
    light, heavy = GpuStep(1.0, tensor=0.1, dram=0.2), GpuStep(1.0, fill=0.95, tensor=0.75, dram=0.6)
    assert power_share(light) < 1 < power_share(heavy)
    assert cap_clock(light) == 1.0
    assert 0.6 < cap_clock(heavy) < 1.0
    assert power_share(heavy, cap_clock(heavy)) <= 1.0


def test_a_day_of_healthy_fleets_has_so_many_gpus() -> None:
    made = [situation for situation, _ in days(1, 100)]
    assert 100 <= sum(len(each.scene.ranks) for each in made) < 116
    assert {each.label for each in made} == {"healthy"}
