"""DCGM's metric names: units, labels, MIG instances, absent values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gpu_exporter import metrics
from gpu_exporter.compat.dcgm import DCGM_FAMILIES, RATES, DcgmFamilies
from gpu_exporter.compat.source import CounterRates
from gpu_exporter.config import ExporterSettings
from gpu_exporter.devices.simulated import parse_fleet
from gpu_exporter.exposition import render
from gpu_exporter.metrics import FamilySamples, MetricFamily
from gpu_exporter.snapshot import DeviceIdentity, DeviceReading, DownReason, MetricReading, device_samples
from gpu_exporter.wiring import build_sampler
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tests.polling import wait_until
from tests.unit.owners.fake_kubelet import answer, kubelet, listing

MIB = 1024.0**2
GPU = DeviceIdentity("GPU-1", "3", "NVIDIA H100", "nvidia", "00000000:1B:00.0", "580.82.07")
LABELS = {
    "gpu": "3",
    "UUID": "GPU-1",
    "pci_bus_id": "00000000:1B:00.0",
    "device": "nvidia3",
    "modelName": "NVIDIA H100",
    "Hostname": "node-1",
    "DCGM_FI_DRIVER_VERSION": "580.82.07",
}

#: Our family, labels after uuid and value -> DCGM's name, type and value, in dcgm-exporter's unit.
KNOWN: list[tuple[MetricFamily, tuple[str, ...], float, str, str, float]] = [
    (metrics.UTILIZATION, (), 0.29, "DEV_GPU_UTIL", "gauge", 29),
    (metrics.MEMORY_ACTIVITY, (), 0.07, "DEV_MEM_COPY_UTIL", "gauge", 7),
    (metrics.ENCODER_UTILIZATION, (), 0.57, "DEV_ENC_UTIL", "gauge", 57),
    (metrics.DECODER_UTILIZATION, (), 1, "DEV_DEC_UTIL", "gauge", 100),
    (metrics.FAN_SPEED, (), 0.33, "DEV_FAN_SPEED", "gauge", 33),
    (metrics.MEMORY_TOTAL, (), 81559 * MIB, "DEV_FB_TOTAL", "gauge", 81559),
    (metrics.MEMORY_USED, (), 70000 * MIB, "DEV_FB_USED", "gauge", 70000),
    (metrics.MEMORY_RESERVED, (), 551 * MIB, "DEV_FB_RESERVED", "gauge", 551),
    (metrics.TEMPERATURE, (), 61, "DEV_GPU_TEMP", "gauge", 61),
    (metrics.MEMORY_TEMPERATURE, (), 72, "DEV_MEMORY_TEMP", "gauge", 72),
    (metrics.POWER, (), 641.321, "DEV_POWER_USAGE", "gauge", 641.321),
    (metrics.POWER_LIMIT, (), 700, "DEV_POWER_MGMT_LIMIT", "gauge", 700),
    (metrics.POWER_LIMIT_MAX, (), 700, "DEV_POWER_MGMT_LIMIT_MAX", "gauge", 700),
    (metrics.VIDEO_CLOCK, (), 1545e6, "DEV_VIDEO_CLOCK", "gauge", 1545),
    (metrics.ENERGY, (), 12.5, "DEV_TOTAL_ENERGY_CONSUMPTION", "counter", 12500),
    (metrics.SM_CLOCK, (), 1980e6, "DEV_SM_CLOCK", "gauge", 1980),
    (metrics.SM_CLOCK_MAX, (), 1981e6, "DEV_MAX_SM_CLOCK", "gauge", 1981),
    (metrics.MEMORY_CLOCK, (), 2619e6, "DEV_MEM_CLOCK", "gauge", 2619),
    (metrics.MEMORY_CLOCK_MAX, (), 2620e6, "DEV_MAX_MEM_CLOCK", "gauge", 2620),
    (metrics.PERFORMANCE_STATE, (), 2, "DEV_PSTATE", "gauge", 2),
    (metrics.PCIE_REPLAYS, (), 5, "DEV_PCIE_REPLAY_COUNTER", "counter", 5),
    (metrics.REMAPPED_ROWS, ("correctable",), 1, "DEV_CORRECTABLE_REMAPPED_ROWS", "counter", 1),
    (metrics.REMAPPED_ROWS, ("uncorrectable",), 2, "DEV_UNCORRECTABLE_REMAPPED_ROWS", "counter", 2),
    (metrics.ROW_REMAP_FAILED, (), 1, "DEV_ROW_REMAP_FAILURE", "gauge", 1),
    (metrics.RETIRED_PAGES, ("single_bit",), 6, "DEV_RETIRED_SBE", "counter", 6),
    (metrics.RETIRED_PAGES, ("double_bit",), 7, "DEV_RETIRED_DBE", "counter", 7),
    (metrics.ECC_ERRORS, ("corrected",), 3, "DEV_ECC_SBE_AGG_TOTAL", "counter", 3),
    (metrics.ECC_ERRORS, ("uncorrected",), 4, "DEV_ECC_DBE_AGG_TOTAL", "counter", 4),
    (metrics.ENGINE_ACTIVITY, (), 0.91, "PROF_GR_ENGINE_ACTIVE", "gauge", 0.91),
    (metrics.SM_ACTIVITY, (), 0.81, "PROF_SM_ACTIVE", "gauge", 0.81),
    (metrics.SM_OCCUPANCY, (), 0.31, "PROF_SM_OCCUPANCY", "gauge", 0.31),
    (metrics.TENSOR_ACTIVITY, (), 0.41, "PROF_PIPE_TENSOR_ACTIVE", "gauge", 0.41),
    (metrics.FP64_ACTIVITY, (), 0.02, "PROF_PIPE_FP64_ACTIVE", "gauge", 0.02),
    (metrics.FP32_ACTIVITY, (), 0.03, "PROF_PIPE_FP32_ACTIVE", "gauge", 0.03),
    (metrics.FP16_ACTIVITY, (), 0.04, "PROF_PIPE_FP16_ACTIVE", "gauge", 0.04),
    (metrics.DRAM_BANDWIDTH, (), 0.51, "PROF_DRAM_ACTIVE", "gauge", 0.51),
]


def dcgm_samples(samples: Sequence[FamilySamples], owners: Sequence[FamilySamples] = ()) -> list[FamilySamples]:
    return DcgmFamilies().samples(samples, owners)


def dcgm(*devices: DeviceReading) -> dict[str, Any]:
    """Families by name, as a client parses them from the page."""
    page = render(dcgm_samples(device_samples(devices, "node-1"))).decode()
    families = list(text_string_to_metric_families(page))
    assert len({family.name for family in families}) == len(families)
    return {family.name: family for family in families}


def test_counters_are_exposed_without_total_suffix() -> None:
    """The parser above appends _total to a counter's samples."""
    page = render(
        dcgm_samples(device_samples([DeviceReading(GPU, (MetricReading(metrics.PCIE_REPLAYS, 5),))], "node-1"))
    )
    labels = ",".join(f'{name}="{value}"' for name, value in LABELS.items())
    assert page.decode().splitlines()[-1] == f"DCGM_FI_DEV_PCIE_REPLAY_COUNTER{{{labels}}} 5"


def one(family: Any) -> float:
    [sample] = family.samples
    return float(sample.value)


@pytest.mark.parametrize(("source", "row", "value", "name", "type_", "expected"), KNOWN, ids=[k[3] for k in KNOWN])
def test_name_type_and_unit_of_each_field(
    source: MetricFamily, row: tuple[str, ...], value: float, name: str, type_: str, expected: float
) -> None:
    found = dcgm(DeviceReading(GPU, (MetricReading(source, value, row),)))
    [family] = found.values()
    [sample] = family.samples
    assert family.name == f"DCGM_FI_{name}"
    assert family.type == type_
    assert sample.value == expected
    assert sample.labels == LABELS


def test_every_mapped_family_is_tested() -> None:
    names = {f"DCGM_FI_{known[3]}" for known in KNOWN} | {"DCGM_FI_DEV_FB_FREE", "DCGM_FI_DEV_XID_ERRORS"}
    names |= {line.family.name for line in RATES}
    assert {family.name for family in DCGM_FAMILIES} == names
    assert len(DCGM_FAMILIES) == len(names)


def test_free_memory_is_total_minus_used_and_reserved_or_absent() -> None:
    parts = [
        MetricReading(metrics.MEMORY_TOTAL, 1000 * MIB),
        MetricReading(metrics.MEMORY_USED, 300 * MIB),
        MetricReading(metrics.MEMORY_RESERVED, 50 * MIB),
    ]
    assert one(dcgm(DeviceReading(GPU, tuple(parts)))["DCGM_FI_DEV_FB_FREE"]) == 650
    for missing in range(3):
        rest = tuple(part for i, part in enumerate(parts) if i != missing)
        assert "DCGM_FI_DEV_FB_FREE" not in dcgm(DeviceReading(GPU, rest))


@pytest.mark.parametrize(
    ("xids", "expected"),
    [
        ({"48": (0, None), "79": (0, None)}, 0),
        ({"48": (1, 1000.0), "79": (0, None)}, 48),
        ({"48": (1, 1000.0), "79": (3, 900.0)}, 48),
        ({"48": (1, 1000.0), "79": (3, 1001.0), "94": (1, 990.0)}, 79),
    ],
)
def test_xid_is_the_last_one(xids: dict[str, tuple[float, float | None]], expected: float) -> None:
    readings = [MetricReading(metrics.XID_ERRORS, count, (xid,)) for xid, (count, _) in xids.items()]
    readings += [
        MetricReading(metrics.XID_LAST_TIMESTAMP, at, (xid,)) for xid, (_, at) in xids.items() if at is not None
    ]
    assert one(dcgm(DeviceReading(GPU, tuple(readings)))["DCGM_FI_DEV_XID_ERRORS"]) == expected


def test_no_xid_without_xid_counts() -> None:
    assert "DCGM_FI_DEV_XID_ERRORS" not in dcgm(DeviceReading(GPU, (MetricReading(metrics.POWER, 1),)))


def test_absent_values_stay_absent() -> None:
    lost = DeviceIdentity("GPU-2", "4", "NVIDIA H100", "nvidia")
    amd = DeviceIdentity("GPU-3", "5", "MI300X", "amd")
    found = dcgm(
        DeviceReading(GPU, (MetricReading(metrics.POWER, 1),)),
        DeviceReading(lost, down=DownReason.LOST),
        DeviceReading(amd, (MetricReading(metrics.POWER, 2), MetricReading(metrics.TEMPERATURE, 3))),
    )
    assert set(found) == {"DCGM_FI_DEV_POWER_USAGE"}
    assert one(found["DCGM_FI_DEV_POWER_USAGE"]) == 1
    assert dcgm(DeviceReading(lost, down=DownReason.LOST)) == {}
    assert dcgm_samples([]) == []


def test_mig_instances_have_their_gpus_uuid_and_own_labels_and_no_value_twice() -> None:
    def part(place: int, used: float | None, instance: int | None, profile: str = "1g.10gb") -> DeviceReading:
        who = replace(
            GPU, uuid=f"MIG-{place}", index=f"3:{place}", parent_uuid=GPU.uuid, mig_profile=profile,
            gpu_instance_id="" if instance is None else str(instance),
        )  # fmt: skip
        readings = () if used is None else (MetricReading(metrics.MEMORY_USED, used * MIB),)
        return DeviceReading(who, readings)

    other = DeviceIdentity("GPU-9", "4", "NVIDIA H100", "nvidia")
    silent = DeviceIdentity("MIG-9", "4:0", "NVIDIA H100", "nvidia", parent_uuid="GPU-9", mig_profile="7g.80gb")
    found = dcgm(
        DeviceReading(GPU, (MetricReading(metrics.MEMORY_USED, 300 * MIB), MetricReading(metrics.POWER, 400))),
        part(0, 100, 7),
        part(2, 150, 2, "1c.3g.40gb"),
        part(3, None, 2, "1c.3g.40gb"),  # the other compute instance of the same GPU instance
        part(4, 20, None),
        part(5, 30, None),
        DeviceReading(other, (MetricReading(metrics.MEMORY_USED, 7 * MIB),)),
        DeviceReading(silent),
    )
    used = {
        (s.labels["UUID"], s.labels["GPU_I_PROFILE"], s.labels["GPU_I_ID"]): s.value
        for s in found["DCGM_FI_DEV_FB_USED"].samples
    }
    assert used == {
        ("GPU-1", "1g.10gb", "7"): 100,
        ("GPU-1", "3g.40gb", "2"): 150,
        ("GPU-1", "1g.10gb", "unknown-4"): 20,
        ("GPU-1", "1g.10gb", "unknown-5"): 30,
        ("GPU-9", "", ""): 7,
    }
    [power] = found["DCGM_FI_DEV_POWER_USAGE"].samples
    assert power.labels == {**LABELS, "GPU_I_PROFILE": "", "GPU_I_ID": ""}
    assert {(s.labels["gpu"], s.labels["device"]) for s in found["DCGM_FI_DEV_FB_USED"].samples} == {
        ("3", "nvidia3"),
        ("4", "nvidia4"),
    }


@given(st.floats(1.7e9, 1.8e9))
def test_values_of_a_simulated_machine_are_ours_in_dcgms_unit(at: float) -> None:
    devices = [gpu.read(at) for gpu in parse_fleet("2xH100-80GB:training,1xRTX4090-24GB:idle,1xT4-16GB:lost", 1)]
    found = dcgm(*devices)
    ours = {(d.identity.uuid, r.family.name): r.value for d in devices for r in d.readings}
    for name, source, scale in (
        ("DCGM_FI_DEV_GPU_UTIL", "gpu_utilization_ratio", 100),
        ("DCGM_FI_DEV_FB_USED", "gpu_memory_used_bytes", 1 / MIB),
        ("DCGM_FI_DEV_SM_CLOCK", "gpu_sm_clock_hertz", 1e-6),
    ):
        samples = found[name].samples
        assert len(samples) == 3
        for sample in samples:
            assert sample.value == pytest.approx(ours[sample.labels["UUID"], source] * scale)


def test_traffic_is_the_rate_since_the_last_scrape() -> None:
    now = 100.0
    families = DcgmFamilies(CounterRates(clock=lambda: now))

    def rate(count: float) -> float | None:
        device = DeviceReading(GPU, (MetricReading(metrics.PCIE_RECEIVE, count),))
        found = families.samples(device_samples([device], "node-1"))
        rows = [each.rows for each in found if each.family.name == "DCGM_FI_PROF_PCIE_RX_BYTES"]
        return rows[0][0][1] if rows else None

    assert rate(1000) is None, "a rate needs two readings"
    now += 10
    assert rate(6000) == 500
    now += 0.1
    assert rate(6000) == 500, "a second scraper gets the same"
    now += 10
    assert rate(50) is None, "the counter was reset"
    now += 10
    assert rate(1050) == 100


def owner(uuid: str, namespace: str, pod: str, container: str, kind: str = "kubernetes") -> tuple[str, ...]:
    of = {
        "uuid": uuid, "owner_kind": kind, "owner_namespace": namespace, "owner_pod": pod, "owner_container": container,
    }  # fmt: skip
    return tuple(of.get(label, "") for label in metrics.OWNER_INFO.labels)


def test_pods_own_the_series_of_their_gpus() -> None:
    free = DeviceIdentity("GPU-2", "4", GPU.name, "nvidia")
    devices = [DeviceReading(gpu, (MetricReading(metrics.UTILIZATION, 0.5),)) for gpu in (GPU, free)]
    rows = [
        (owner("GPU-1", "prod", "b", "main"), 1.0),
        (owner("GPU-1", "prod", "a", "side"), 1.0),
        (owner("GPU-2", "", "", "", kind="systemd"), 1.0),
    ]
    found = dcgm_samples(device_samples(devices, "node-1"), [FamilySamples(metrics.OWNER_INFO, tuple(rows))])
    [family] = text_string_to_metric_families(render(found).decode())
    labels = [
        {name: sample.labels[name] for name in ("gpu", "namespace", "pod", "container")} for sample in family.samples
    ]
    # A shared GPU appears once, so that sums are right.
    assert labels == [
        {"gpu": "3", "namespace": "prod", "pod": "a", "container": "side"},
        {"gpu": "4", "namespace": "", "pod": "", "container": ""},
    ]


def test_without_pods_there_are_no_pod_labels() -> None:
    found = dcgm(DeviceReading(GPU, (MetricReading(metrics.UTILIZATION, 0.5),)))
    assert not {"pod", "namespace", "container"} & found["DCGM_FI_DEV_GPU_UTIL"].samples[0].labels.keys()


class OneGpu:
    """A driver with one NVIDIA GPU."""

    vendor = "nvidia"

    def read(self) -> tuple[DeviceReading, ...]:
        return (DeviceReading(GPU, (MetricReading(metrics.UTILIZATION, 0.5),)),)

    def close(self) -> None: ...


def test_the_exporters_page_has_the_pod_that_the_kubelet_gave_the_gpu_to(tmp_path: Path) -> None:
    """As a board of a GPU cluster asks for it."""
    socket_path = tmp_path / "kubelet.sock"
    settings = ExporterSettings(
        compat_dcgm=True,
        pod_resources_socket=str(socket_path),
        sampling_interval="50ms",
        scontrol="",
        disabled=frozenset({"host", "textfile"}),
    )
    with kubelet(socket_path, answer(listing({"prod/trainer-0": {"main": ("GPU-1",)}}))):
        sampler = build_sampler(settings, {"nvidia": OneGpu()})
        sampler.start(10)
        try:
            page = wait_until(
                lambda: next((line for line in sampler.page().decode().splitlines() if "trainer-0" in line
                              and line.startswith("DCGM_FI_DEV_GPU_UTIL{")), ""),
                "the pod owns the series",
            )  # fmt: skip
        finally:
            sampler.stop()
    assert 'pod="trainer-0"' in page
    assert 'container="main",namespace="prod"' in page
    assert page.endswith("} 50")
