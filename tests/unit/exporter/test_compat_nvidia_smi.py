"""The names of nvidia_gpu_exporter: units, identities, processes, MIG instances, absent values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gpu_exporter import metrics
from gpu_exporter.compat.nvidia_smi import (
    COLUMNS,
    LABELLED,
    NVIDIA_SMI_FAMILIES,
    RATES,
    NvidiaSmiFamilies,
    ProcessNames,
)
from gpu_exporter.compat.source import CounterRates
from gpu_exporter.devices.simulated import parse_fleet
from gpu_exporter.exposition import render
from gpu_exporter.snapshot import DeviceIdentity, DeviceReading, DownReason, GpuProcess, MetricReading, device_samples
from prometheus_client.parser import text_string_to_metric_families

GPU = DeviceIdentity("GPU-1", "3", "NVIDIA H100", "nvidia", "00000000:1B:00.0", "580.82.07")
SLICE = DeviceIdentity(
    "MIG-1", "3:0", "NVIDIA H100", "nvidia", GPU.pci_bus_id, "580.82.07", "GPU-1", "1g.10gb", gpu_instance_id="7"
)

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def smi(*devices: DeviceReading, families: NvidiaSmiFamilies | None = None, procfs: Path = Path("/nowhere")) -> Series:
    families = families or NvidiaSmiFamilies(procfs)
    page = render(families.samples(device_samples(devices, "n"), devices)).decode()
    return {
        (sample.name.removeprefix("nvidia_smi_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def labels(**of: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(of.items()))


ONLY_UUID = labels(uuid="1")


@pytest.mark.parametrize("line", COLUMNS, ids=[line.family.name for line in COLUMNS])
def test_each_column_is_the_value_of_our_family(line: Any) -> None:
    found = smi(DeviceReading(GPU, (MetricReading(line.source, 0.25, line.row),)))
    assert found[line.family.name.removeprefix("nvidia_smi_"), ONLY_UUID] == 0.25
    assert line.family.labels == ("uuid",)


def test_identity() -> None:
    found = smi(DeviceReading(GPU))
    info = labels(
        uuid="1", index="3", name="NVIDIA H100", driver_version="580.82.07", pci_bus_id="00000000:1B:00.0"
    )  # fmt: skip
    assert found == {
        ("gpu_info", info): 1,
        ("index", ONLY_UUID): 3,
        ("count", ()): 1,
        ("last_collect_success", ()): 1,
        ("compute_apps_last_collect_success", ()): 0,
    }


def test_a_lost_gpu_and_other_vendors_are_absent() -> None:
    lost = DeviceReading(GPU, down=DownReason.LOST)
    amd = DeviceReading(DeviceIdentity("AMD-1", "0", "MI300X", "amd"), (MetricReading(metrics.POWER, 1),))
    assert smi(lost, amd) == {}


def test_free_memory_is_total_minus_used_and_reserved_or_absent() -> None:
    parts = [MetricReading(metrics.MEMORY_TOTAL, 100), MetricReading(metrics.MEMORY_USED, 30)]
    assert ("memory_free_bytes", ONLY_UUID) not in smi(DeviceReading(GPU, tuple(parts)))
    parts.append(MetricReading(metrics.MEMORY_RESERVED, 5))
    assert smi(DeviceReading(GPU, tuple(parts)))["memory_free_bytes", ONLY_UUID] == 65


def test_xids_keep_their_code() -> None:
    readings = (MetricReading(metrics.XID_ERRORS, 2, ("79",)), MetricReading(metrics.XID_LAST_TIMESTAMP, 9, ("79",)))
    found = smi(DeviceReading(GPU, readings))
    assert found["xid_errors_total", labels(uuid="1", xid="79")] == 2
    assert found["xid_last_timestamp_seconds", labels(uuid="1", xid="79")] == 9


def test_throughput_is_the_rate_between_two_scrapes() -> None:
    now = 0.0
    families = NvidiaSmiFamilies(Path("/nowhere"), CounterRates(clock=lambda: now))
    name = ("pcie_throughput_tx_bytes_per_second", ONLY_UUID)
    assert name not in smi(DeviceReading(GPU, (MetricReading(metrics.PCIE_TRANSMIT, 100),)), families=families)
    now = 15.0
    assert smi(DeviceReading(GPU, (MetricReading(metrics.PCIE_TRANSMIT, 1600),)), families=families)[name] == 100


def test_processes_have_their_name_and_no_command_line(tmp_path: Path) -> None:
    (tmp_path / "77").mkdir()
    (tmp_path / "77/comm").write_text("python3\n")
    (tmp_path / "77/cmdline").write_text("python3\0--token=secret\0")
    processes = (GpuProcess(77, 1024), GpuProcess(78, None))
    found = smi(DeviceReading(GPU, (MetricReading(metrics.PROCESSES, 2),), processes=processes), procfs=tmp_path)
    named = labels(uuid="1", pid="77", process_name="python3")
    assert found["compute_app_info", named] == 1
    assert found["compute_app_used_memory_bytes", named] == 1024
    gone = labels(uuid="1", pid="78", process_name="")
    assert found["compute_app_info", gone] == 1
    assert ("compute_app_used_memory_bytes", gone) not in found
    assert found["compute_apps_last_collect_success", ()] == 1


def test_the_name_of_a_process_is_forgotten_with_it(tmp_path: Path) -> None:
    names = ProcessNames(tmp_path)
    (tmp_path / "5").mkdir()
    (tmp_path / "5/comm").write_text("first\n")
    assert names.name(5) == "first"
    (tmp_path / "5/comm").write_text("second\n")
    assert names.name(5) == "first"
    names.keep_only(())
    assert names.name(5) == "second"


def test_mig_instances_have_families_of_their_own() -> None:
    used = (MetricReading(metrics.MEMORY_USED, 10), MetricReading(metrics.SM_ACTIVITY, 0.5))
    whole = DeviceReading(GPU, (MetricReading(metrics.MEMORY_USED, 99),))
    found = smi(whole, DeviceReading(SLICE, used, processes=(GpuProcess(1, 2),)))
    place = labels(uuid="1", gpu_instance_id="7")
    assert found["mig_memory_used_bytes", place] == 10
    assert found["mig_sm_activity_ratio", place] == 0.5
    assert found["memory_used_bytes", ONLY_UUID] == 99
    info = labels(uuid="1", mig_uuid="MIG-1", gpu_instance_id="7", compute_instance_id="", profile="1g.10gb")
    assert found["mig_info", info] == 1
    assert ("compute_app_info", labels(uuid="1", pid="1", process_name="")) in found
    assert found["count", ()] == 1


def test_families_are_listed_once() -> None:
    names = [family.name for family in NVIDIA_SMI_FAMILIES]
    assert len(set(names)) == len(names)
    devices = [gpu.read(1.8e9) for gpu in parse_fleet("2xH100-80GB:training,1xT4-16GB:lost", 1)]
    samples = NvidiaSmiFamilies().samples(device_samples(devices, "n"), devices)
    assert {each.family.name for each in samples} <= set(names)
    assert {line.family for line in (*COLUMNS, *RATES, *LABELLED)} <= set(NVIDIA_SMI_FAMILIES)
