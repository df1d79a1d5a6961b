"""AmdDriver on fake sysfs trees: card generations, missing files, suspended, failing, lost and recovered cards."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest
from gpu_exporter.devices import amd, sysfs
from gpu_exporter.devices.amd import AmdDriver, parse_gpu_metrics, parse_max_clock
from gpu_exporter.devices.amd_partitions import PARTITION_LAYOUTS, parse_partitions
from gpu_exporter.devices.base import DriverUnavailable
from gpu_exporter.devices.card_readings import CARD_FAMILIES
from gpu_exporter.devices.drm import RESCAN_SECONDS
from gpu_exporter.devices.sysfs import SysfsValueError, _reason, parse_int
from gpu_exporter.snapshot import AbsenceReason, DownReason, DriverState

from tests.unit.devices.fake_sysfs import FakeSysfs, Files, absent, values

GIB = 1024**3
ALL_ONES_64 = 2**64 - 1


@pytest.fixture
def tree(tmp_path: Path) -> FakeSysfs:
    return FakeSysfs(tmp_path)


def driver(tree: FakeSysfs) -> AmdDriver:
    return AmdDriver(tree.sysfs, tree.procfs, tree.clock)


def table(revision: tuple[int, int], fields: dict[int, bytes], size: int | None = None) -> bytes:
    """A gpu_metrics table: all ones but for the header and the fields that are filled in."""
    size = amd.GPU_METRICS_LAYOUTS[revision].size if size is None else size
    raw = bytearray(b"\xff" * size)
    struct.pack_into("=HBB", raw, 0, size, *revision)
    for offset, field in fields.items():
        raw[offset : offset + len(field)] = field
    return bytes(raw)


def u64(value: int) -> bytes:
    return struct.pack("=Q", value)


RX7900: Files = {
    "unique_id": "a1b2c3d4e5f60718\n",
    "gpu_busy_percent": "73\n",
    "mem_busy_percent": "21\n",
    "mem_info_vram_total": f"{24 * GIB}\n",
    "mem_info_vram_used": f"{6 * GIB}\n",
    "pcie_replay_count": "3\n",
    "pp_dpm_sclk": "0: 500Mhz\n1: 1935Mhz *\n2: 2526Mhz\n",
    "current_link_speed": "2.5 GT/s PCIe\n",
    "current_link_width": "1\n",
    "gpu_metrics": table((1, 3), {16: b"\x49\x00", 24: u64(99), 112: u64(1 << 0 | 1 << 36)}),
    "hwmon/hwmon4/name": "amdgpu\n",
    "hwmon/hwmon4/temp1_label": "edge\n",
    "hwmon/hwmon4/temp1_input": "51000\n",
    "hwmon/hwmon4/temp2_label": "junction\n",
    "hwmon/hwmon4/temp2_input": "68000\n",
    "hwmon/hwmon4/temp3_label": "mem\n",
    "hwmon/hwmon4/temp3_input": "72000\n",
    "hwmon/hwmon4/power1_average": "287000000\n",
    "hwmon/hwmon4/power1_cap": "315000000\n",
    "hwmon/hwmon4/freq1_label": "sclk\n",
    "hwmon/hwmon4/freq1_input": "2434000000\n",
    "hwmon/hwmon4/freq2_label": "mclk\n",
    "hwmon/hwmon4/freq2_input": "1249000000\n",
    "hwmon/hwmon4/pwm1": "102\n",
    "hwmon/hwmon4/fan1_input": "1500\n",
    "hwmon/hwmon4/fan1_max": "3300\n",
}
BELOW_SWITCH = "pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0/0000:03:00.0"


def rx7900(tree: FakeSysfs, number: int = 0, changed: Files | None = None) -> Path:
    return tree.card(number, "amdgpu", "1002:744C", BELOW_SWITCH, {**RX7900, **(changed or {})})


def mi250x_die(tree: FakeSysfs, number: int, primary: bool) -> Path:
    fields = {16: b"\x61\x00", 80: struct.pack("=I", 7_000_000)}
    fields |= {24: u64(1_000_000 * 2**16 if primary else 0), 112: u64(0)}
    path = f"pci0000:c0/0000:c0:01.1/0000:c{number + 1}:00.0"
    files: Files = {
        "unique_id": f"f00d{number:012x}\n",
        "serial_number": "PCB012345-0001\n",
        "product_name": "AMD INSTINCT MI250X (MCM) OAM AC MBA\n",
        "gpu_busy_percent": "97\n",
        "mem_busy_percent": "40\n",
        "mem_info_vram_total": f"{64 * GIB}\n",
        "mem_info_vram_used": f"{60 * GIB}\n",
        "pp_dpm_sclk": "0: 500Mhz\n1: 1700Mhz *\n",
        "current_link_speed": "16.0 GT/s PCIe\n",
        "current_link_width": "16\n",
        "ras/umc_err_count": "ue: 1\nce: 12\n",
        "gpu_metrics": table((1, 3), fields),
        "hwmon/hwmon2/temp1_label": "edge\n",
        "hwmon/hwmon2/temp1_input": "44000\n",
        "hwmon/hwmon2/power1_average": "490000000\n" if primary else "0\n",
        "hwmon/hwmon2/power1_cap": "560000000\n" if primary else "0\n",
    }
    return tree.card(number, "amdgpu", "1002:7408", path, files)


def mi300x(tree: FakeSysfs, number: int) -> Path:
    path = f"pci0000:{number + 16:02x}/0000:{number + 16:02x}:01.1/0000:{number + 17:02x}:00.0"
    files: Files = {
        "unique_id": f"beef{number:012x}\n",
        "gpu_busy_percent": "88\n",
        "mem_busy_percent": "33\n",
        "mem_info_vram_total": f"{192 * GIB}\n",
        "mem_info_vram_used": f"{150 * GIB}\n",
        "pp_dpm_sclk": "S: 132Mhz *\n0: 500Mhz\n1: 2100Mhz\n",
        "current_link_speed": "32.0 GT/s PCIe\n",
        "current_link_width": "16\n",
        "pcie_replay_count": "0\n",
        "ras/umc_err_count": "ue: 0\nce: 0\nde: 4\n",
        "gpu_metrics": table((1, 6), {12: b"\x58\x00", 16: u64(123 * 2**16)}),
        "hwmon/hwmon7/temp1_label": "junction\n",
        "hwmon/hwmon7/temp1_input": "61000\n",
        "hwmon/hwmon7/temp2_label": "mem\n",
        "hwmon/hwmon7/temp2_input": "55000\n",
        "hwmon/hwmon7/power1_input": "611000000\n",
        "hwmon/hwmon7/power1_cap": "750000000\n",
        "hwmon/hwmon7/freq1_label": "sclk\n",
        "hwmon/hwmon7/freq1_input": "2100000000\n",
    }
    return tree.card(number, "amdgpu", "1002:74A1", path, files)


def test_rx_7900_in_base_units(tree: FakeSysfs) -> None:
    tree.bridge("pci0000:00/0000:00:01.1", "0x1022", "16.0", 8)
    tree.bridge("pci0000:00/0000:00:01.1/0000:01:00.0", "0x1002", "16.0", 8)
    tree.bridge("pci0000:00/0000:00:01.1/0000:01:00.0/0000:02:00.0", "0x1002", "2.5", 1)
    rx7900(tree)
    (device,) = driver(tree).read()
    who = device.identity
    assert (who.uuid, who.name, who.vendor) == ("AMD-a1b2c3d4e5f60718", "AMD Radeon RX 7900", "amd")
    assert (who.index, who.pci_bus_id, who.driver_version) == ("0", "00000000:03:00.0", "6.12.0")
    assert values(device) == {
        "gpu_utilization_ratio": 0.73,
        "gpu_busy_seconds_total": 0,
        "gpu_observed_seconds_total": 0,
        "gpu_busy_source_info gauge": 1,
        "gpu_memory_total_bytes": 24 * GIB,
        "gpu_memory_used_bytes": 6 * GIB,
        "gpu_memory_activity_ratio": 0.21,
        "gpu_temperature_celsius": 51,
        "gpu_power_watts": 287,
        "gpu_power_limit_watts": 315,
        "gpu_sm_clock_hertz": 2_434_000_000,
        "gpu_sm_clock_max_hertz": 2_526_000_000,
        "gpu_memory_clock_hertz": 1_249_000_000,
        "gpu_fan_speed_ratio": 0.4,
        "gpu_pcie_link_generation": 4,  # of the card's switch, not of the link behind it
        "gpu_pcie_link_width": 8,
        "gpu_pcie_replays_total": 3,
        "gpu_throttle_active sw_power_cap": 1,
        "gpu_throttle_active current_limit": 0,
        "gpu_throttle_active hw_thermal": 1,
        "gpu_throttle_active prochot": 0,
        "gpu_throttle_active other": 0,
    }
    # On this card the unit of energy in the table is undocumented.
    assert absent(device)["gpu_energy_joules_total"] == "unsupported"
    assert absent(device)["gpu_ecc_errors_total"] == "unsupported"


def test_power_of_an_mi250x_second_die_is_absent_not_zero(tree: FakeSysfs) -> None:
    mi250x_die(tree, 0, primary=True)
    mi250x_die(tree, 1, primary=False)
    first, second = driver(tree).read()
    assert values(first)["gpu_power_watts"] == 490
    assert values(first)["gpu_energy_joules_total"] == 1_000_000
    assert values(first)["gpu_ecc_errors_total corrected"] == 12
    assert values(first)["gpu_ecc_errors_total uncorrected"] == 1
    assert first.identity.name == "AMD INSTINCT MI250X (MCM) OAM AC MBA"
    for family in ("gpu_power_watts", "gpu_power_limit_watts", "gpu_energy_joules_total"):
        assert absent(second)[family] == "unsupported"
    assert values(second)["gpu_utilization_ratio"] == 0.97
    assert first.identity.uuid != second.identity.uuid


def test_mi300x_without_an_edge_sensor_and_with_a_deep_sleep_clock_level(tree: FakeSysfs) -> None:
    mi300x(tree, 0)
    mi300x(tree, 1)
    devices = driver(tree).read()
    assert [device.identity.index for device in devices] == ["0", "1"]
    observed = values(devices[1])
    assert observed["gpu_temperature_celsius"] == 61
    assert observed["gpu_power_watts"] == 611
    assert observed["gpu_energy_joules_total"] == 123
    assert observed["gpu_sm_clock_max_hertz"] == 2_100_000_000
    assert observed["gpu_pcie_link_generation"] == 5
    assert absent(devices[1])["gpu_fan_speed_ratio"] == "unsupported"
    assert absent(devices[1])["gpu_throttle_active"] == "unsupported"


def apu(tree: FakeSysfs, vram: int, gtt: int, pci_id: str = "1002:1586", table_format: int = 3) -> Path:
    header = struct.pack("=HBB", 264, table_format, 0)
    files: Files = {
        "gpu_busy_percent": "11\n",
        "mem_info_vram_total": f"{vram}\n",
        "mem_info_vram_used": f"{vram // 2}\n",
        "mem_info_gtt_total": f"{gtt}\n",
        "mem_info_gtt_used": f"{gtt // 4}\n",
        "gpu_metrics": header + bytes(260),
    }
    return tree.card(0, "amdgpu", pci_id, "pci0000:00/0000:00:08.1/0000:c5:00.0", files)


@pytest.mark.parametrize(
    ("vram", "gtt", "pci_id", "table_format", "expected"),
    [
        (GIB // 2, 110 * GIB, "1002:1586", 3, (110 * GIB, 110 * GIB // 4)),  # Strix Halo as it comes
        (96 * GIB, 16 * GIB, "1002:1586", 3, (96 * GIB, 48 * GIB)),  # with most of the memory set aside
        (GIB // 2, 30 * GIB, "1002:ffff", 2, (30 * GIB, 30 * GIB // 4)),  # an APU that is in no list
        (128 * GIB, 64 * GIB, "1002:74a0", 1, (128 * GIB, 64 * GIB)),  # MI300A
    ],
)
def test_memory_of_an_apu_is_its_larger_pool(
    tree: FakeSysfs, vram: int, gtt: int, pci_id: str, table_format: int, expected: tuple[int, int]
) -> None:
    apu(tree, vram, gtt, pci_id, table_format)
    (device,) = driver(tree).read()
    assert device.identity.unified == "true"
    observed = values(device)
    assert (observed["gpu_memory_total_bytes"], observed["gpu_memory_used_bytes"]) == expected
    assert observed["gpu_memory_pool_total_bytes vram"] == vram
    assert observed["gpu_memory_pool_total_bytes gtt"] == gtt
    assert observed["gpu_memory_pool_used_bytes gtt"] == gtt // 4


def test_a_card_has_memory_of_its_own_whatever_it_can_map(tree: FakeSysfs) -> None:
    rx7900(tree, changed={"mem_info_gtt_total": f"{64 * GIB}\n", "mem_info_gtt_used": "4096\n"})
    (device,) = driver(tree).read()
    assert device.identity.unified == ""
    assert values(device)["gpu_memory_total_bytes"] == 24 * GIB
    assert not any("pool" in name for name in values(device))


def test_an_apu_without_a_readable_pool_has_the_other(tree: FakeSysfs) -> None:
    device_folder = apu(tree, 4 * GIB, 60 * GIB)
    (device_folder / "mem_info_gtt_total").write_text("-\n")
    (device,) = driver(tree).read()
    assert values(device)["gpu_memory_total_bytes"] == 4 * GIB
    assert absent(device)["gpu_memory_reserved_bytes"] == "unsupported"


def test_every_family_has_a_value_or_an_absence(tree: FakeSysfs) -> None:
    rx7900(tree)
    (device,) = driver(tree).read()
    there = {reading.family for reading in device.readings}
    reasons = {absence.family for absence in device.absences}
    assert there | reasons == set(CARD_FAMILIES)
    assert not there & reasons


def test_busy_time_integrates_the_gauge(tree: FakeSysfs) -> None:
    device = rx7900(tree, changed={"gpu_busy_percent": "50\n"})
    amdgpu = driver(tree)
    amdgpu.read()
    tree.time += 2
    (reading,) = amdgpu.read()
    assert (values(reading)["gpu_busy_seconds_total"], values(reading)["gpu_observed_seconds_total"]) == (1, 2)
    assert values(amdgpu.read()[0])["gpu_busy_source_info gauge"] == 1
    tree.write(device, {"gpu_busy_percent": "lots\n"})
    tree.time += 1
    (reading,) = amdgpu.read()
    assert absent(reading)["gpu_utilization_ratio"] == "error"
    assert absent(reading)["gpu_busy_seconds_total"] == absent(reading)["gpu_observed_seconds_total"] == "error"


def test_utilization_from_gpu_metrics_without_the_file(tree: FakeSysfs) -> None:
    device = rx7900(tree)
    (device / "gpu_busy_percent").unlink()
    (reading,) = driver(tree).read()
    assert values(reading)["gpu_utilization_ratio"] == 0.73


@pytest.mark.parametrize(
    ("name", "content", "family"),
    [
        ("gpu_busy_percent", "101\n", "gpu_utilization_ratio"),
        ("gpu_busy_percent", "-1\n", "gpu_utilization_ratio"),
        ("mem_info_vram_used", "", "gpu_memory_used_bytes"),
        ("mem_info_vram_used", "9" * 40, "gpu_memory_used_bytes"),
        ("mem_info_vram_total", "0\n", "gpu_memory_total_bytes"),
        ("hwmon/hwmon4/temp1_input", "nan\n", "gpu_temperature_celsius"),
        ("hwmon/hwmon4/temp1_input", "--5\n", "gpu_temperature_celsius"),
        ("hwmon/hwmon4/temp1_input", "900000\n", "gpu_temperature_celsius"),
        ("hwmon/hwmon4/power1_average", "\xff\xfe", "gpu_power_watts"),
        ("pp_dpm_sclk", "OD_SCLK:\n", "gpu_sm_clock_max_hertz"),
        ("current_link_speed", "fast\n", "gpu_pcie_link_generation"),
        ("current_link_width", "255\n", "gpu_pcie_link_width"),
        ("ras/umc_err_count", "ue: 0\n", "gpu_ecc_errors_total"),
        ("gpu_metrics", b"\x00", "gpu_energy_joules_total"),
    ],
)
def test_invalid_value_is_an_error_of_its_family_only(
    tree: FakeSysfs, name: str, content: str | bytes, family: str
) -> None:
    rx7900(tree, changed={"ras/umc_err_count": "ue: 0\nce: 0\n", name: content})
    (device,) = driver(tree).read()
    assert device.down is None
    assert absent(device)[family] == "error"
    assert not [observed for observed in values(device) if observed.startswith(family)]
    assert len(device.readings) > 10


def test_unreadable_files_are_absent_for_lack_of_permission(tree: FakeSysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    rx7900(tree)
    open_file = os.open

    def refuse(path: str, flags: int) -> int:
        if path.endswith("power1_average"):
            raise PermissionError(13, "Permission denied")
        return open_file(path, flags)

    monkeypatch.setattr("os.open", refuse)
    (device,) = driver(tree).read()
    assert absent(device)["gpu_power_watts"] == "no_permission"


def test_reset_is_an_error_not_a_lack_of_permission(tree: FakeSysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    """amdgpu answers EPERM to reads while the card resets."""
    rx7900(tree)
    amdgpu = driver(tree)
    amdgpu.read()
    read_file, refused = os.read, PermissionError(1, "Operation not permitted")

    def refuse(handle: int, size: int) -> bytes:
        content = bytes(read_file(handle, size))
        if content != b"active\n":
            raise refused
        return content

    monkeypatch.setattr("os.read", refuse)
    (device,) = amdgpu.read()
    assert (device.down, device.readings) == (DownReason.ERROR, ())


def test_suspended_card_is_never_read(tree: FakeSysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    device = rx7900(tree)
    amdgpu = driver(tree)
    amdgpu.read()
    tree.write(device, {"power/runtime_status": "suspended\n"})
    tree.time += 2
    opened: list[str] = []
    open_file = os.open

    def note(path: str, flags: int) -> int:
        opened.append(path)
        return open_file(path, flags)

    monkeypatch.setattr("os.open", note)
    (asleep,) = amdgpu.read()
    assert opened == [f"{device}/power/runtime_status"]
    assert asleep.down is None
    observed = values(asleep)
    assert observed["gpu_utilization_ratio"] == 0
    assert (observed["gpu_busy_seconds_total"], observed["gpu_observed_seconds_total"]) == (0, 2)
    assert observed["gpu_memory_total_bytes"] == 24 * GIB
    for family in ("gpu_power_watts", "gpu_temperature_celsius", "gpu_memory_used_bytes"):
        assert absent(asleep)[family] == "unsupported"
    tree.write(device, {"power/runtime_status": "active\n"})
    (awake,) = amdgpu.read()
    assert values(awake)["gpu_power_watts"] == 287


def test_card_suspended_from_the_start_has_its_identity(tree: FakeSysfs) -> None:
    rx7900(tree, changed={"power/runtime_status": "suspended\n"})
    (device,) = driver(tree).read()
    assert device.identity.uuid == "AMD-a1b2c3d4e5f60718"
    assert absent(device)["gpu_memory_total_bytes"] == "unsupported"


def test_lost_card_keeps_its_identity_and_recovers(tree: FakeSysfs) -> None:
    mi300x(tree, 0)
    mi300x(tree, 1)
    amdgpu = driver(tree)
    before = amdgpu.read()
    tree.remove(1)
    first, lost = amdgpu.read()
    assert first.down is None
    assert (lost.down, lost.identity, lost.readings) == (DownReason.LOST, before[1].identity, ())
    mi300x(tree, 1)
    assert [device.down for device in amdgpu.read()] == [None, None]


def test_card_removed_during_a_reading_is_lost(tree: FakeSysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    rx7900(tree)
    amdgpu = driver(tree)
    amdgpu.read()
    open_file = os.open

    def vanish(path: str, flags: int) -> int:
        if path.endswith("mem_info_vram_used"):
            monkeypatch.undo()
            tree.remove(0)
        return open_file(path, flags)

    monkeypatch.setattr("os.open", vanish)
    (device,) = amdgpu.read()
    assert (device.down, device.readings) == (DownReason.LOST, ())


def test_unloaded_driver_is_the_down_reason(tree: FakeSysfs) -> None:
    rx7900(tree)
    amdgpu = driver(tree)
    amdgpu.read()
    tree.remove(0)
    (tree.sysfs / "bus/pci/drivers/amdgpu").rmdir()
    assert [device.down for device in amdgpu.read()] == [DownReason.DRIVER_GONE]


def test_replaced_card_is_forgotten(tree: FakeSysfs) -> None:
    rx7900(tree)
    amdgpu = driver(tree)
    amdgpu.read()
    tree.remove(0)
    amdgpu.read()
    rx7900(tree, changed={"unique_id": "0123456789abcdef\n"})
    mi300x(tree, 1)
    assert [(device.identity.uuid, device.down) for device in amdgpu.read()] == [
        ("AMD-0123456789abcdef", None),
        ("AMD-beef000000000001", None),
    ]


def test_moved_sensors_are_found_at_the_next_reading(tree: FakeSysfs) -> None:
    device = rx7900(tree)
    amdgpu = driver(tree)
    amdgpu.read()
    (device / "hwmon/hwmon4").rename(device / "hwmon/hwmon9")
    (moved,) = amdgpu.read()
    assert moved.down is None
    assert "gpu_power_watts" not in values(moved)
    (found,) = amdgpu.read()
    assert values(found)["gpu_power_watts"] == 287


def test_slow_values_are_read_once_a_minute(tree: FakeSysfs) -> None:
    device = rx7900(tree)
    amdgpu = driver(tree)
    amdgpu.read()
    tree.write(device, {"pcie_replay_count": "9\n"})
    assert values(amdgpu.read()[0])["gpu_pcie_replays_total"] == 3
    tree.time += RESCAN_SECONDS + 1
    assert values(amdgpu.read()[0])["gpu_pcie_replays_total"] == 9


def test_uuid_without_a_serial_number_differs_by_machine(tree: FakeSysfs, tmp_path: Path) -> None:
    rx7900(tree, changed={"unique_id": "0000000000000000\n"})
    here = driver(tree).read()[0].identity.uuid
    tree.write(tree.procfs, {"sys/kernel/hostname": "node-2\n"})
    there = driver(tree).read()[0].identity.uuid
    assert here.endswith("-0000:03:00.0")
    assert here != there


def test_cards_with_the_same_serial_number_are_distinct(tree: FakeSysfs) -> None:
    rx7900(tree)
    tree.write(mi300x(tree, 1), {"unique_id": "a1b2c3d4e5f60718\n"})
    assert len({device.identity.uuid for device in driver(tree).read()}) == 2


@pytest.mark.parametrize("other", [None, "nvidia", "radeon"])
def test_without_a_card_of_this_driver_it_is_absent(tree: FakeSysfs, other: str | None) -> None:
    if other:
        tree.card(0, other, "10DE:2330", "pci0000:00/0000:03:00.0", {})
    with pytest.raises(DriverUnavailable, match="amdgpu") as caught:
        driver(tree).read()
    assert caught.value.state is DriverState.ABSENT


def test_machine_without_drm_is_absent(tmp_path: Path) -> None:
    with pytest.raises(DriverUnavailable):
        AmdDriver(tmp_path, tmp_path).read()


@pytest.mark.parametrize("revision", list(amd.GPU_METRICS_LAYOUTS))
def test_all_known_revisions_of_gpu_metrics(revision: tuple[int, int]) -> None:
    layout = amd.GPU_METRICS_LAYOUTS[revision]
    assert layout.energy is not None
    fields = {layout.activity: b"\x2a\x00", layout.energy: u64(5 * 2**16)}
    if layout.energy_marker is not None:
        fields[layout.energy_marker] = b"\x01\x00\x00\x00"
    got = parse_gpu_metrics(table(revision, fields))
    assert (got.activity, got.joules, got.throttle) == (0.42, 5, None)


def test_fields_that_are_not_filled_in_are_none() -> None:
    assert parse_gpu_metrics(table((1, 3), {})) == (None, None, None, ())
    assert parse_gpu_metrics(table((1, 3), {16: b"\x65\x00"})).activity is None  # 101 %


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", AbsenceReason.ERROR),
        (table((1, 3), {})[:50], AbsenceReason.ERROR),
        (table((1, 6), {}, size=352), AbsenceReason.ERROR),  # a withdrawn layout with the same revision
        (table((1, 9), {}, size=200), AbsenceReason.UNSUPPORTED),
        (table((2, 1), {}, size=120), AbsenceReason.UNSUPPORTED),
        (bytes(120), AbsenceReason.UNSUPPORTED),
    ],
)
def test_unknown_or_truncated_gpu_metrics(raw: bytes, reason: AbsenceReason) -> None:
    with pytest.raises(SysfsValueError) as caught:
        parse_gpu_metrics(raw)
    assert caught.value.reason is reason


def test_integers_and_clocks() -> None:
    assert parse_int(b" -5\n") == -5
    with pytest.raises(SysfsValueError):
        parse_int(b"9" * 21)
    assert parse_max_clock(b"0: 300Mhz *\n1: 2100Mhz\n") == 2_100_000_000
    with pytest.raises(SysfsValueError):
        parse_max_clock(b"0: 0Mhz\n")


# Compute partitions


def partitioned(revision: tuple[int, int], dies: list[list[int]], activity: int = 40) -> bytes:
    """A gpu_metrics table of a GPU with these partitions, each with the percent of its dies."""
    layout = PARTITION_LAYOUTS[revision]
    fields = {12: struct.pack("=H", activity), layout.number: struct.pack("=H", len(dies))}
    for number, percent in enumerate(dies):
        fields[layout.first + number * layout.size] = struct.pack(f"={len(percent)}I", *percent)
    return table(revision, fields)


def kfd_node(number: int, location: int, gib: int) -> Files:
    node = f"class/kfd/kfd/topology/nodes/{number}"
    return {
        f"{node}/properties": f"cpu_cores_count 0\nlocation_id {location}\ndomain 0\n",
        f"{node}/mem_banks/0/properties": f"heap_type 1\nsize_in_bytes {gib * GIB}\nflags 0\n",
        f"{node}/mem_banks/1/properties": "heap_type 0\nsize_in_bytes 999\n",
    }


MI300X: Files = {
    "unique_id": "5555\n",
    "product_name": "AMD Instinct MI300X\n",
    "mem_info_vram_total": f"{192 * GIB}\n",
    "mem_info_vram_used": f"{3 * GIB}\n",
    "current_compute_partition": "CPX\n",
}


@pytest.mark.parametrize("revision", PARTITION_LAYOUTS)
def test_partitions_are_gpus_of_their_own(tree: FakeSysfs, revision: tuple[int, int]) -> None:
    metrics_table = partitioned(revision, [[90], [10, 30], [ALL_ONES_64 & 0xFFFFFFFF]])
    tree.card(1, "amdgpu", "1002:74A1", "pci0000:00/0000:c1:00.0", {**MI300X, "gpu_metrics": metrics_table})
    location = 0xC1 << 8
    for number, partition in enumerate((0, 1, 2)):
        tree.write(tree.sysfs, kfd_node(number + 1, location | partition << 28, 64))
    source = driver(tree)
    source.read()
    tree.time += 1
    whole, first, second, third = source.read()
    assert whole.identity.uuid == "AMD-5555"
    assert (first.identity.uuid, first.identity.parent_uuid) == ("AMD-5555-cpx0", "AMD-5555")
    assert (first.identity.index, first.identity.mig_profile) == ("1:0", "cpx")
    assert [values(each).get("gpu_utilization_ratio") for each in (first, second, third)] == [0.9, 0.2, None]
    assert values(first)["gpu_busy_seconds_total"] == pytest.approx(0.9)
    assert values(first)["gpu_memory_total_bytes"] == 64 * GIB
    assert absent(third)["gpu_utilization_ratio"] == "unsupported"
    # The partitions report it: a sum over all GPUs counts nothing twice.
    assert absent(whole)["gpu_utilization_ratio"] == absent(whole)["gpu_busy_seconds_total"] == "unsupported"
    assert values(whole)["gpu_memory_total_bytes"] == 192 * GIB
    there = {reading.family for reading in first.readings} | {absence.family for absence in first.absences}
    assert there >= set(CARD_FAMILIES)


def test_a_gpu_with_one_partition_is_whole(tree: FakeSysfs) -> None:
    files: Files = {**MI300X, "current_compute_partition": "SPX\n", "gpu_metrics": partitioned((1, 7), [[50]])}
    tree.card(1, "amdgpu", "1002:74A1", "pci0000:00/0000:c1:00.0", files)
    (whole,) = driver(tree).read()
    assert values(whole)["gpu_utilization_ratio"] == 0.4


def test_partitions_end_with_the_mode_and_with_the_card(tree: FakeSysfs) -> None:
    files: Files = {**MI300X, "gpu_metrics": partitioned((1, 8), [[1], [2]])}
    device = tree.card(1, "amdgpu", "1002:74A1", "pci0000:00/0000:c1:00.0", files)
    source = driver(tree)
    assert len(source.read()) == 3
    tree.write(device, {"gpu_metrics": partitioned((1, 8), [[1]]), "current_compute_partition": "SPX\n"})
    assert len(source.read()) == 1
    tree.write(device, {"gpu_metrics": partitioned((1, 8), [[1], [2]]), "current_compute_partition": "DPX\n"})
    assert [each.identity.mig_profile for each in source.read()] == ["", "dpx", "dpx"]
    tree.remove(1)
    (lost,) = source.read()
    assert lost.down is DownReason.LOST


@pytest.mark.parametrize("count", [0, 1, 9, 0xFFFF])
def test_an_implausible_number_of_partitions_is_none(count: int) -> None:
    raw = bytearray(partitioned((1, 7), [[1], [2]]))
    struct.pack_into("=H", raw, PARTITION_LAYOUTS[1, 7].number, count)
    assert parse_partitions(bytes(raw)) == ()
    assert parse_partitions(bytes(raw)[:500]) == ()
    assert parse_partitions(b"") == ()


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, 524, errno.EINVAL])
def test_a_chip_that_refuses_its_load_has_that_of_gpu_metrics(
    tree: FakeSysfs, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Raven and Cyan Skillfish have the file, and reading it fails (MangoHud#464, btop#1794): never 0 %."""
    rx7900(tree)
    amdgpu = driver(tree)
    fail_reads(monkeypatch, ("gpu_busy_percent",), code)
    assert values(amdgpu.read()[0])["gpu_utilization_ratio"] == 0.73
    fail_reads(monkeypatch, ("gpu_busy_percent", "gpu_metrics"), code)
    (reading,) = amdgpu.read()
    assert "gpu_utilization_ratio" not in values(reading)
    assert absent(reading)["gpu_utilization_ratio"] == "unsupported"


def test_a_load_that_fails_is_not_replaced(tree: FakeSysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    rx7900(tree)
    fail_reads(monkeypatch, ("gpu_busy_percent",), errno.EIO)
    assert absent(driver(tree).read()[0])["gpu_utilization_ratio"] == "error"


def fail_reads(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], code: int) -> None:
    """Let reading these files fail with this error number."""
    read_file = sysfs.read_file

    def read(path: str) -> bytes:
        if os.path.basename(path) in names:
            raise SysfsValueError(_reason(OSError(code, "")))
        return read_file(path)

    for module in ("amd", "card_readings", "sysfs"):
        monkeypatch.setattr(f"gpu_exporter.devices.{module}.read_file", read)
