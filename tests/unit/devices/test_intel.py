"""IntelDriver on fake sysfs trees and counters: i915, xe, integrated GPUs, denied and failing counters."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from gpu_exporter.devices.base import DriverUnavailable
from gpu_exporter.devices.card_readings import CARD_FAMILIES
from gpu_exporter.devices.drm import RESCAN_SECONDS
from gpu_exporter.devices.intel import IntelDriver
from gpu_exporter.devices.perf import PerfCounters
from gpu_exporter.snapshot import DownReason, DriverState

from tests.unit.devices.fake_sysfs import FakeSysfs, Files, absent, values

GIB = 1024**3
SECOND = 10**9  # nanoseconds
BUSY = "gpu_busy_seconds_total"
OBSERVED = "gpu_observed_seconds_total"
UTILIZATION = "gpu_utilization_ratio"

A770_HWMON: Files = {
    "hwmon/hwmon3/name": "i915\n",
    "hwmon/hwmon3/energy1_input": "500000000\n",
    "hwmon/hwmon3/power1_max": "190000000\n",
    "hwmon/hwmon3/temp1_input": "47000\n",
    "hwmon/hwmon3/fan1_input": "1100\n",
    "hwmon/hwmon2/name": "i915_gt0\n",
    "hwmon/hwmon2/energy1_input": "1\n",
}
A770_DRM: Files = {
    "gt/gt0/rps_act_freq_mhz": "2100\n",
    "gt/gt0/rps_RP0_freq_mhz": "2400\n",
    "gt/gt0/throttle_reason_status": "1\n",
    "gt/gt0/throttle_reason_pl1": "1\n",
    "gt/gt0/throttle_reason_pl2": "0\n",
    "gt/gt0/throttle_reason_pl4": "0\n",
    "gt/gt0/throttle_reason_thermal": "0\n",
    "gt/gt0/throttle_reason_prochot": "0\n",
    "gt_act_freq_mhz": "9\n",
}
B580: Files = {
    "tile0/gt0/freq0/act_freq": "2850\n",
    "tile0/gt0/freq0/rp0_freq": "2900\n",
    "tile0/gt0/freq0/throttle/status": "0\n",
    "tile0/gt0/freq0/throttle/reason_pl1": "0\n",
    "tile0/gt0/freq0/throttle/reason_thermal": "0\n",
    "tile0/gt1/freq0/act_freq": "1500\n",
    "tile0/gt1/freq0/throttle/reason_thermal": "1\n",
    "current_link_speed": "16.0 GT/s PCIe\n",
    "current_link_width": "8\n",
    "hwmon/hwmon5/name": "xe\n",
    "hwmon/hwmon5/energy2_input": "7000000\n",
    "hwmon/hwmon5/energy2_label": "pkg\n",
    "hwmon/hwmon5/power2_max": "0\n",
    "hwmon/hwmon5/temp2_label": "pkg\n",
    "hwmon/hwmon5/temp2_input": "52000\n",
    "hwmon/hwmon5/temp3_label": "vram\n",
    "hwmon/hwmon5/temp3_input": "60000\n",
}


class FakePerfCounters:
    """Counts by config, set by the test; the time enabled follows the tree's clock."""

    def __init__(self, tree: FakeSysfs, engines: dict[int, int]) -> None:
        self.tree = tree
        self.counts = engines
        self.refuse = 0
        self.break_down = 0
        self.opened: dict[int, tuple[int, int, int, float]] = {}
        self.last = 100

    def open(self, pmu: int, config: int, cpu: int) -> int:
        if self.refuse:
            raise OSError(self.refuse, "refused")
        if config not in self.counts:
            raise OSError(errno.ENOENT, "no such engine")
        self.last += 1
        self.opened[self.last] = (pmu, config, cpu, self.tree.time)
        return self.last

    def read(self, handle: int) -> tuple[int, int]:
        if self.break_down:
            raise OSError(self.break_down, "broken")
        _, config, _, since = self.opened[handle]
        return self.counts[config], round((self.tree.time - since) * SECOND)

    def close(self, handle: int) -> None:
        del self.opened[handle]


@pytest.fixture
def tree(tmp_path: Path) -> FakeSysfs:
    return FakeSysfs(tmp_path)


def driver(tree: FakeSysfs, counters: FakePerfCounters) -> IntelDriver:
    return IntelDriver(tree.sysfs, tree.procfs, tree.clock, counters)


def pmu(tree: FakeSysfs, name: str, files: Files) -> None:
    tree.write(tree.sysfs / "bus/event_source/devices" / name, {"type": "27\n", "cpumask": "3\n", **files})


def a770(tree: FakeSysfs, number: int = 1) -> tuple[Path, FakePerfCounters]:
    device = tree.card(number, "i915", "8086:56A0", "pci0000:00/0000:00:01.0/0000:03:00.0", A770_HWMON)
    tree.write(device / f"drm/card{number}", A770_DRM)
    events: Files = {"events/rcs0-busy": "config=0x0\n", "events/ccs0-busy": "config=0x4000\n"}
    events |= {"events/vcs0-busy": "config=0x2000\n", "events/rcs0-busy.unit": "ns\n"}
    pmu(tree, "i915_0000_03_00.0", events)
    return device, FakePerfCounters(tree, {0x0: 5, 0x4000: 7, 0x2000: 0})


def b580(tree: FakeSysfs, number: int = 0) -> tuple[Path, FakePerfCounters]:
    device = tree.card(number, "xe", "8086:E20B", f"pci0000:00/0000:{number + 3:02x}:00.0", B580)
    manager = "  use_type: 1\n  use_tt: 0\n  size: 12884901888\n  usage: 3221225472\ndefault_page_size: 4KiB\n"
    tree.write(tree.sysfs / f"kernel/debug/dri/{number}", {"vram0_mm": manager})
    events: Files = {"events/engine-active-ticks": "event=0x02\n", "events/engine-total-ticks": "event=0x03\n"}
    pmu(tree, f"xe_0000_{number + 3:02x}_00.0", {**events, "events/gt-c6-residency": "event=0x01\n"})
    counts = {0x2: 0, 0x3: 0, 0x40_0002: 100, 0x40_0003: 1000}
    return device, FakePerfCounters(tree, counts)


def test_arc_a770_on_i915_in_base_units(tree: FakeSysfs) -> None:
    device, counters = a770(tree)
    intel = driver(tree, counters)
    (first,) = intel.read()
    assert absent(first)[UTILIZATION] == absent(first)["gpu_power_watts"] == "error"  # a mean needs two readings
    tree.time += 2
    counters.counts |= {0x0: 5 + SECOND // 2, 0x4000: 7 + SECOND}
    tree.write(device, {"hwmon/hwmon3/energy1_input": "800000000\n"})
    (reading,) = intel.read()
    who = reading.identity
    assert (who.name, who.vendor, who.index) == ("Intel Arc A770", "intel", "1")
    assert (who.pci_bus_id, who.driver_version) == ("00000000:03:00.0", "6.12.0")
    assert values(reading) == {
        UTILIZATION: 0.5,  # the busier of two engines, without the video engine
        BUSY: 1,
        OBSERVED: 2,
        "gpu_busy_source_info driver": 1,
        "gpu_energy_joules_total": 800,
        "gpu_power_watts": 150,
        "gpu_power_limit_watts": 190,
        "gpu_temperature_celsius": 47,
        "gpu_sm_clock_hertz": 2_100_000_000,
        "gpu_sm_clock_max_hertz": 2_400_000_000,
        "gpu_throttle_active sw_power_cap": 1,
        "gpu_throttle_active current_limit": 0,
        "gpu_throttle_active hw_thermal": 0,
        "gpu_throttle_active prochot": 0,
    }
    for family in ("gpu_memory_total_bytes", "gpu_memory_used_bytes", "gpu_fan_speed_ratio"):
        assert absent(reading)[family] == "unsupported"
    assert {(number, cpu) for number, _, cpu, _ in counters.opened.values()} == {(27, 3)}
    assert {config for _, config, _, _ in counters.opened.values()} == {0x0, 0x4000}


def test_arc_b580_on_xe_counts_ticks_and_reads_memory(tree: FakeSysfs) -> None:
    device, counters = b580(tree)
    intel = driver(tree, counters)
    intel.read()
    tree.time += 4
    counters.counts |= {0x40_0002: 100 + 300, 0x40_0003: 1000 + 400, 0x2: 50, 0x3: 400}
    tree.write(device, {"hwmon/hwmon5/energy2_input": "407000000\n"})
    (reading,) = intel.read()
    assert reading.identity.name == "Intel Arc B580"
    observed = values(reading)
    assert (observed[UTILIZATION], observed[BUSY], observed[OBSERVED]) == (0.75, 3, 4)
    assert (observed["gpu_memory_total_bytes"], observed["gpu_memory_used_bytes"]) == (12 * GIB, 3 * GIB)
    assert (observed["gpu_power_watts"], observed["gpu_temperature_celsius"]) == (100, 52)
    assert (observed["gpu_sm_clock_hertz"], observed["gpu_sm_clock_max_hertz"]) == (2_850_000_000, 2_900_000_000)
    assert (observed["gpu_pcie_link_generation"], observed["gpu_pcie_link_width"]) == (4, 8)
    assert observed["gpu_throttle_active sw_power_cap"] == 0
    assert observed["gpu_throttle_active hw_thermal"] == 1  # of the media GT
    assert absent(reading)["gpu_power_limit_watts"] == "unsupported"  # 0 means "no limit"


def test_integrated_graphics_have_no_memory_of_their_own(tree: FakeSysfs) -> None:
    device = tree.card(0, "i915", "8086:46A6", "pci0000:00/0000:00:02.0", {"current_link_speed": "16.0 GT/s PCIe\n"})
    tree.write(device / "drm/card0", {"gt_act_freq_mhz": "0\n", "gt_max_freq_mhz": "1300\n"})
    pmu(tree, "i915", {"events/rcs0-busy": "config=0x0\n"})
    counters = FakePerfCounters(tree, {0x0: 0})
    intel = driver(tree, counters)
    intel.read()
    tree.time += 1
    (reading,) = intel.read()
    assert reading.identity.name == "Intel integrated graphics 8086:46a6"
    assert values(reading) == {
        UTILIZATION: 0, BUSY: 0, OBSERVED: 1, "gpu_busy_source_info driver": 1, "gpu_sm_clock_hertz": 0,
        "gpu_sm_clock_max_hertz": 1_300_000_000,
    }  # fmt: skip
    assert absent(reading)["gpu_memory_total_bytes"] == absent(reading)["gpu_pcie_link_width"] == "unsupported"
    there = {reading.family for reading in reading.readings}
    assert there | {absence.family for absence in reading.absences} == set(CARD_FAMILIES)


def test_long_interval_is_fully_observed(tree: FakeSysfs) -> None:
    _, counters = a770(tree)
    intel = driver(tree, counters)
    intel.read()
    tree.time += 30
    counters.counts[0x4000] += 15 * SECOND
    (reading,) = intel.read()
    assert (values(reading)[BUSY], values(reading)[OBSERVED]) == (15, 30)


@pytest.mark.parametrize(
    ("code", "reason"),
    [(errno.EACCES, "no_permission"), (errno.EPERM, "no_permission"), (errno.ENOSYS, "error"), (errno.EMFILE, "error")],
)
def test_denied_counters_are_an_absence_and_retried(tree: FakeSysfs, code: int, reason: str) -> None:
    _, counters = a770(tree)
    counters.refuse = code
    intel = driver(tree, counters)
    (reading,) = intel.read()
    assert absent(reading)[UTILIZATION] == absent(reading)[BUSY] == absent(reading)[OBSERVED] == reason
    assert "gpu_temperature_celsius" in values(reading)
    counters.refuse = 0
    tree.time += RESCAN_SECONDS + 1
    intel.read()
    tree.time += 1
    assert values(intel.read()[0])[UTILIZATION] == 0


def test_kernel_without_counters_has_no_utilization(tree: FakeSysfs) -> None:
    tree.card(0, "xe", "8086:0BD5", "pci0000:00/0000:29:00.0", {"tile0/gt0/freq0/act_freq": "1600\n"})
    (reading,) = driver(tree, FakePerfCounters(tree, {})).read()
    assert reading.identity.name == "Intel Data Center GPU Max 1550"
    assert absent(reading)[UTILIZATION] == absent(reading)[BUSY] == "unsupported"


def test_failing_counters_are_reopened(tree: FakeSysfs) -> None:
    _, counters = b580(tree)
    intel = driver(tree, counters)
    intel.read()
    tree.time += 1
    counters.break_down = errno.EIO
    (reading,) = intel.read()
    assert absent(reading)[UTILIZATION] == "error"
    assert not counters.opened
    counters.break_down = 0
    intel.read()
    tree.time += 1
    counters.counts |= {0x40_0002: 150, 0x40_0003: 1100}
    assert values(intel.read()[0])[UTILIZATION] == 0.5


def test_failed_open_leaves_no_counter_open(tree: FakeSysfs) -> None:
    _, counters = b580(tree)
    del counters.counts[0x3]
    intel = driver(tree, counters)
    intel.read()
    assert {config for _, config, _, _ in counters.opened.values()} == {0x40_0002, 0x40_0003}
    intel.close()
    assert not counters.opened


def test_counters_are_closed_while_suspended(tree: FakeSysfs) -> None:
    device, counters = b580(tree)
    intel = driver(tree, counters)
    intel.read()
    tree.write(device, {"power/runtime_status": "suspended\n"})
    tree.time += 3
    (asleep,) = intel.read()
    assert not counters.opened  # an open counter would keep it awake
    assert (values(asleep)[BUSY], values(asleep)[OBSERVED]) == (0, 3)
    tree.write(device, {"power/runtime_status": "active\n"})
    tree.time += 1
    (awake,) = intel.read()
    assert absent(awake)[UTILIZATION] == "error"
    assert absent(awake)["gpu_power_watts"] == "error"


def test_energy_counter_reset_gives_no_power(tree: FakeSysfs) -> None:
    device, counters = a770(tree)
    intel = driver(tree, counters)
    intel.read()
    tree.write(device, {"hwmon/hwmon3/energy1_input": "10\n"})
    tree.time += 1
    (reading,) = intel.read()
    assert absent(reading)["gpu_power_watts"] == "error"
    assert values(reading)["gpu_energy_joules_total"] == 10 / 1e6


@pytest.mark.parametrize(("microjoules", "watts"), [(300_000_000, 300), (2_000_000_000, None), (2**40, None)])
def test_energy_counter_that_jumps_gives_no_power(tree: FakeSysfs, microjoules: int, watts: int | None) -> None:
    device, counters = a770(tree)
    intel = driver(tree, counters)
    intel.read()
    tree.write(device, {"hwmon/hwmon3/energy1_input": f"{500_000_000 + microjoules}\n"})
    tree.time += 1
    (reading,) = intel.read()
    assert values(reading).get("gpu_power_watts") == watts
    tree.write(device, {"hwmon/hwmon3/energy1_input": f"{600_000_000 + microjoules}\n"})
    tree.time += 1
    assert values(intel.read()[0])["gpu_power_watts"] == 100


@pytest.mark.parametrize(
    ("name", "content", "family"),
    [
        ("hwmon/hwmon3/temp1_input", "hot\n", "gpu_temperature_celsius"),
        ("hwmon/hwmon3/energy1_input", "-1\n", "gpu_energy_joules_total"),
        ("drm/card1/gt/gt0/rps_act_freq_mhz", "1e3\n", "gpu_sm_clock_hertz"),
        ("drm/card1/gt/gt0/throttle_reason_pl1", "2\n", "gpu_throttle_active"),
    ],
)
def test_invalid_value_is_an_error_of_its_family_only(tree: FakeSysfs, name: str, content: str, family: str) -> None:
    device, counters = a770(tree)
    tree.write(device, {name: content})
    (reading,) = driver(tree, counters).read()
    assert absent(reading)[family] == "error"
    assert not [observed for observed in values(reading) if observed.startswith(family)]
    assert len(reading.readings) > 2


def test_invalid_vram_and_pmu_files(tree: FakeSysfs) -> None:
    _, counters = b580(tree)
    tree.write(tree.sysfs / "kernel/debug/dri/0", {"vram0_mm": "?\n"})
    pmu(tree, "xe_0000_03_00.0", {"type": "none\n"})
    (reading,) = driver(tree, counters).read()
    assert absent(reading)["gpu_memory_used_bytes"] == absent(reading)["gpu_memory_total_bytes"] == "error"
    assert absent(reading)[UTILIZATION] == "unsupported"


def test_unreadable_debugfs_is_a_lack_of_permission(tree: FakeSysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    _, counters = b580(tree)
    stat = os.stat

    def refuse(path: str) -> os.stat_result:
        if "/debug/" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied")
        return stat(path)

    open_file = os.open

    def refuse_open(path: str, flags: int) -> int:
        if "/debug/" in path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_file(path, flags)

    monkeypatch.setattr("os.stat", refuse)
    monkeypatch.setattr("os.open", refuse_open)
    (reading,) = driver(tree, counters).read()
    assert absent(reading)["gpu_memory_used_bytes"] == absent(reading)["gpu_memory_total_bytes"] == "no_permission"


def test_counters_of_a_lost_card_are_closed(tree: FakeSysfs) -> None:
    _, counters = b580(tree)
    intel = driver(tree, counters)
    before = intel.read()[0].identity
    tree.remove(0)
    (lost,) = intel.read()
    assert (lost.down, lost.identity) == (DownReason.LOST, before)
    assert not counters.opened
    b580(tree)
    assert intel.read()[0].down is None


def test_cards_at_the_same_address_of_two_machines_differ(tree: FakeSysfs) -> None:
    _, counters = b580(tree)
    uuid = driver(tree, counters).read()[0].identity.uuid
    tree.write(tree.sysfs / "class/dmi/id", {"product_uuid": "4c4c4544-0042\n"})
    assert driver(tree, counters).read()[0].identity.uuid != uuid
    assert uuid.startswith("INTEL-")


def test_without_an_intel_card_it_is_absent(tree: FakeSysfs) -> None:
    with pytest.raises(DriverUnavailable, match="i915 or xe") as caught:
        driver(tree, FakePerfCounters(tree, {})).read()
    assert caught.value.state is DriverState.ABSENT


def test_constructing_needs_nothing() -> None:
    IntelDriver().close()


def test_real_counters_of_a_software_event() -> None:
    """The same calls on the cpu-clock event, which counts nanoseconds like i915's engines."""
    counters, software, cpu_clock = PerfCounters(), 1, 0
    try:
        handle = counters.open(software, cpu_clock, 0)
    except OSError as error:
        pytest.skip(f"the kernel does not let us count: {error}")
    try:
        before = counters.read(handle)
        time.sleep(0.02)
        after = counters.read(handle)
    finally:
        counters.close(handle)
    counted, enabled = after[0] - before[0], after[1] - before[1]
    assert enabled >= 0.02 * SECOND
    assert counted == pytest.approx(enabled, rel=0.2)


def test_real_counters_of_a_pmu_that_is_not_there_are_an_error() -> None:
    with pytest.raises(OSError, match=r"."):
        PerfCounters().open(0x7FFF, 0, 0)
