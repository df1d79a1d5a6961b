"""The simulated fleet: a pure function of time, the same for history and live values."""

from __future__ import annotations

import pytest
from gpu_exporter import metrics
from gpu_exporter.devices.gpu_types import GPU_TYPES
from gpu_exporter.devices.simulated import (
    COUNTER_START_SECONDS,
    MODELS,
    SCENARIOS,
    FleetError,
    SimulatedDriver,
    SimulatedGpu,
    generate_history,
    parse_fleet,
)
from gpu_exporter.snapshot import DownReason
from hypothesis import given
from hypothesis import strategies as st

gpus = st.builds(
    SimulatedGpu,
    st.integers(0, 63),
    st.sampled_from(list(MODELS.values())),
    st.sampled_from([each for each in SCENARIOS.values() if each.down is None]),
    st.integers(0, 99),
)
times = st.floats(COUNTER_START_SECONDS + 120, COUNTER_START_SECONDS + 40e6)


@given(gpus, times, st.floats(0.01, 7200))
def test_busy_time_never_grows_faster_than_time(gpu: SimulatedGpu, at: float, later: float) -> None:
    busy = gpu.busy_seconds(at + later) - gpu.busy_seconds(at)
    assert -1e-6 <= busy <= later + 1e-6
    energy = gpu.energy_joules(at + later) - gpu.energy_joules(at)
    assert gpu.model.idle_power * later * 0.99 - 1 <= energy <= gpu.model.power_limit * later * 1.01 + 1


@given(gpus, times)
def test_hourly_mean_is_the_scenarios_busy_ratio(gpu: SimulatedGpu, at: float) -> None:
    assert gpu.utilization(at + 3600, 3600) == pytest.approx(gpu.scenario.busy_ratio, abs=0.01)


@given(gpus, times)
def test_readings_are_plausible(gpu: SimulatedGpu, at: float) -> None:
    reading = gpu.read(at)
    values = {(each.family, each.labels): each.value for each in reading.readings}
    assert len(values) == len(reading.readings)
    assert 0 <= values[metrics.UTILIZATION, ()] <= 1
    assert 0 <= values[metrics.MEMORY_USED, ()] <= values[metrics.MEMORY_TOTAL, ()]
    assert 20 <= values[metrics.TEMPERATURE, ()] <= 100
    assert gpu.model.idle_power * 0.99 <= values[metrics.POWER, ()] <= gpu.model.power_limit * 1.01
    published, absent = {each.family for each in reading.readings}, {each.family for each in reading.absences}
    assert not published & absent


def test_live_driver_continues_the_history() -> None:
    at = 1_777_777_770.0  # a multiple of the step
    fleet = "2xH100-80GB:training,1xT4-16GB:lost"
    [(when, samples)] = [point for point in generate_history(fleet, 7, "n", at - 15, at, 15) if point[0] == at]
    live = SimulatedDriver(parse_fleet(fleet, 7), clock=lambda: at).read()
    history = {family.family: dict(family.rows) for family in samples}
    assert when == at
    for device in live:
        for each in device.readings:
            row = (device.identity.uuid, *each.labels)
            assert history[each.family][row] == each.value
    assert [device.down for device in live] == [None, None, DownReason.LOST]
    assert history[metrics.UP] == {(d.identity.uuid,): 0 if d.down else 1 for d in live}


def test_gpus_differ_by_seed_and_index_and_are_reproducible() -> None:
    fleet = "3xA100-80GB:training"
    uuids = [gpu.identity.uuid for seed in (1, 2) for gpu in parse_fleet(fleet, seed)]
    assert len(set(uuids)) == 6
    assert uuids == [gpu.identity.uuid for seed in (1, 2) for gpu in parse_fleet(fleet, seed)]


@pytest.mark.parametrize(
    ("text", "name", "gib"),
    [
        ("4xV100", "Tesla V100-SXM2-32GB", 32),
        ("1xV100-16GB", "Tesla V100-SXM2-16GB", 16),
        ("1xa100", "NVIDIA A100-SXM4-80GB", 80),
        ("8xH100", "NVIDIA H100 80GB HBM3", 79.6),
        ("1xA10G", "NVIDIA A10G", 24),
        ("1xMI300X", "AMD Instinct MI300X", 192),
        ("1xMI250X", "AMD Instinct MI250X", 64),  # a die, as the driver shows it
        ("1xRTX4090", "NVIDIA GeForce RTX 4090", 24),
        ("1xGB200", "NVIDIA GB200", 186),
    ],
)
def test_any_type_of_the_list_by_its_plain_name(text: str, name: str, gib: float) -> None:
    model = parse_fleet(text)[0].model
    assert model.name == name
    assert model.memory_mib / 1024 == pytest.approx(gib, rel=0.01)


@pytest.mark.parametrize("name", sorted(GPU_TYPES))
def test_every_type_of_the_list_can_be_simulated(name: str) -> None:
    for size in ("", *(f"-{size}GB" for size in GPU_TYPES[name].sizes_gib)):
        (gpu,) = parse_fleet(f"1x{name}{size}:training")
        reading = gpu.read(COUNTER_START_SECONDS + 3600)
        assert gpu.model.vendor == GPU_TYPES[name].vendor
        assert any(each.family == metrics.MEMORY_TOTAL for each in reading.readings)


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("1xV100-17GB", "unknown simulated model"),
        ("", "use COUNTxMODEL"),
        ("H100", "use COUNTxMODEL"),
        ("2xH100-80GB:training,", "use COUNTxMODEL"),
        ("0xH100-80GB", "1 to 1024"),
        ("1024xH100-80GB,1xT4-16GB", "1 to 1024"),
        ("1xB7", "use one of H200-141GB"),
        ("1xT4-16GB:dancing", "use one of training"),
    ],
)
def test_invalid_fleet(text: str, fix: str) -> None:
    with pytest.raises(FleetError, match=fix):
        parse_fleet(text)
