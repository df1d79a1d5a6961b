"""Collectors of network protocols, kernel limits, sensors and other hardware, on a fake server."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest
from gpu_exporter.host import COLLECTORS, MIN_INTERVAL_SECONDS
from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.clock import TimeCollector
from gpu_exporter.host.diskstats import PROPERTIES_INTERVAL_SECONDS, DiskstatsCollector
from gpu_exporter.host.hwmon import sensor_unit
from gpu_exporter.host.mdadm import parse_mdstat
from gpu_exporter.host.timex import Timex, TimexCollector, adjtimex

from tests.unit.host.fake_node import OPTIONAL, collector, make_server, values, write


@pytest.fixture
def server(tmp_path: Path) -> HostSettings:
    return make_server(tmp_path)


PAGE = os.sysconf("SC_PAGE_SIZE")

#: Collector -> some of its families without the prefix `node_`, labels and value.
EXPECTED: dict[str, list[tuple[str, tuple[str, ...], float]]] = {
    "arp": [("arp_entries", ("eth0",), 2), ("arp_entries", ("lo",), 1)],
    "bonding": [("bonding_slaves", ("bond0",), 2), ("bonding_active", ("bond0",), 1)],
    "conntrack": [
        ("nf_conntrack_entries", (), 77),
        ("nf_conntrack_entries_limit", (), 262144),
        ("nf_conntrack_stat_ignore", (), 32),
        ("nf_conntrack_stat_search_restart", (), 12),
    ],
    "cpu": [("cpu_core_throttles_total", ("0", "3"), 5), ("cpu_package_throttles_total", ("0",), 6)],
    "cpufreq": [
        ("cpu_scaling_frequency_hertz", ("0",), 2.4e9),
        ("cpu_scaling_frequency_max_hertz", ("0",), 3.8e9),
        ("cpu_scaling_governor", ("0", "powersave"), 1),
        ("cpu_scaling_governor", ("0", "performance"), 0),
    ],
    "diskstats": [
        ("disk_info", ("nvme0n1", "259", "0", "", "eui.01", "FAST 1TB", "S1", "F2", "0"), 1),
        ("disk_info", ("sda", "8", "0", "", "", "SLOW 8TB", "", "", "1"), 1),
    ],
    "edac": [
        ("edac_correctable_errors_total", ("0",), 10),
        ("edac_uncorrectable_errors_total", ("0",), 1),
        ("edac_csrow_correctable_errors_total", ("0", "unknown"), 2),
        ("edac_csrow_correctable_errors_total", ("0", "4"), 8),
        ("edac_channel_correctable_errors_total", ("0", "4", "1", "CPU0_channel1"), 8),
    ],
    "entropy": [("entropy_available_bits", (), 256), ("entropy_pool_size_bits", (), 256)],
    "filefd": [("filefd_allocated", (), 2048), ("filefd_maximum", (), 9223372036854775807)],
    "hwmon": [
        ("hwmon_temp_celsius", ("nvme", "temp1"), 41.85),
        ("hwmon_temp_crit_alarm_celsius", ("nvme", "temp1"), 0),
        ("hwmon_sensor_label", ("nvme", "temp1", "Composite"), 1),
        ("hwmon_chip_names", ("nct6799", "nct6799"), 1),
        ("hwmon_fan_rpm", ("nct6799", "fan2"), 1200),
        ("hwmon_in_volts", ("nct6799", "in0"), 1.024),
        ("hwmon_power_average_watt", ("nct6799", "power1"), 65.5),
        ("hwmon_pwm", ("nct6799", "pwm1"), 128),
        ("hwmon_energy_joule_total", ("nct6799", "energy1"), 2.5),
    ],
    "infiniband": [
        ("infiniband_out_of_sequence_packets_received_total", ("mlx5_0", "1"), 21),
        ("infiniband_np_cnp_packets_sent_total", ("mlx5_0", "1"), 22),
        ("infiniband_lifespan_seconds", ("mlx5_0", "1"), 0.01),
        ("infiniband_info", ("rdmap0s6", "", "", ""), 1),
        ("amazonefa_rdma_read_bytes", ("rdmap0s6", "1"), 123456),
        ("amazonefa_retrans_timeout_events", ("rdmap0s6", "1"), 3),
    ],
    "kernel_hung": [("kernel_hung_tasks_total", (), 2)],
    "mdadm": [
        ("md_disks", ("md0", "active"), 2),
        ("md_state", ("md0", "active"), 1),
        ("md_disks", ("md1", "failed"), 1),
        ("md_disks", ("md1", "spare"), 1),
        ("md_disks", ("md1", "active"), 1),
        ("md_disks_required", ("md1",), 2),
        ("md_state", ("md1", "recovering"), 1),
        ("md_state", ("md1", "active"), 0),
        ("md_blocks_synced", ("md1",), 500),
        ("md_disks_required", ("md2",), 2),
        ("md_disks", ("md2", "active"), 2),
        ("md_degraded", ("md1",), 1),
        ("md_degraded", ("md2",), 0),
    ],
    "meminfo_numa": [
        ("memory_numa_MemTotal", ("0",), 2048 * 1024),
        ("memory_numa_Active_anon", ("0",), 16 * 1024),
        ("memory_numa_HugePages_Total", ("0",), 3),
        ("memory_numa_numa_hit_total", ("0",), 100),
    ],
    "netclass": [
        ("network_carrier_changes_total", ("eth0",), 6),
        ("network_flags", ("eth0",), 0x1003),
        ("network_receive_nohandler_total", ("eth0",), 4),
        ("network_info", ("eth0", "02:00:00:00:00:0a", "", "full", "up", "up", ""), 1),
    ],
    "netstat": [
        ("netstat_TcpExt_ListenDrops", (), 3),
        ("netstat_TcpExt_TCPTimeouts", (), 5),
        ("netstat_IpExt_InOctets", (), 70e9),
        ("netstat_Tcp_CurrEstab", (), 11),
        ("netstat_Udp_NoPorts", (), 22),
        ("netstat_Ip6_InOctets", (), 31),
        ("netstat_Udp6_NoPorts", (), 32),
    ],
    "nvme": [
        ("nvme_info", ("nvme0", "F2", "FAST 1TB", "S1", "live", "7"), 1),
        ("nvme_namespace_info", ("nvme0", "1", "unknown"), 1),
        ("nvme_namespace_capacity_bytes", ("nvme0", "1"), 512_000),
        ("nvme_namespace_used_bytes", ("nvme0", "1"), 204_800),
    ],
    "powersupplyclass": [
        ("power_supply_online", ("AC",), 1),
        ("power_supply_current_ampere", ("BAT0",), -1.5),
        ("power_supply_temp_celsius", ("BAT0",), 31.5),
    ],
    "schedstat": [
        ("schedstat_running_seconds_total", ("0",), 7),
        ("schedstat_waiting_seconds_total", ("1",), 2.5),
        ("schedstat_timeslices_total", ("0",), 9),
    ],
    "sockstat": [
        ("sockstat_sockets_used", (), 99),
        ("sockstat_TCP_tw", (), 5),
        ("sockstat_TCP_mem", (), 3),
        ("sockstat_TCP_mem_bytes", (), 3 * PAGE),
        ("sockstat_UDP_mem_bytes", (), 6 * PAGE),
        ("sockstat_FRAG_memory", (), 0),
        ("sockstat_TCP6_inuse", (), 8),
    ],
    "softnet": [
        ("softnet_processed_total", ("0",), 16),
        ("softnet_times_squeezed_total", ("0",), 2),
        ("softnet_flow_limit_count_total", ("0",), 4),
        ("softnet_backlog_len", ("0",), 5),
        ("softnet_processed_total", ("2",), 32),
    ],
    "thermal_zone": [
        ("thermal_zone_temp", ("0", "x86_pkg_temp"), -5.5),
        ("cooling_device_cur_state", ("0", "Processor"), 1),
        ("cooling_device_max_state", ("0", "Processor"), 10),
    ],
    "time": [
        ("time_clocksource_current_info", ("0", "tsc"), 1),
        ("time_clocksource_available_info", ("0", "hpet"), 1),
    ],
    "udp_queues": [("udp_queues", ("tx", "v4"), 3), ("udp_queues", ("rx", "v4"), 0x300)],
    "vmstat": [("vmstat_pgmajfault", (), 6), ("vmstat_oom_kill", (), 7)],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_values(server: HostSettings, name: str) -> None:
    found = values(collector(name, server))
    for family, labels, value in EXPECTED[name]:
        assert found[f"node_{family}", labels] == pytest.approx(value), (family, labels)


def test_every_optional_collector_is_tested() -> None:
    assert set(OPTIONAL) - {"pressure"} <= set(EXPECTED)


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_node_without_the_feature_has_no_families_and_no_error(tmp_path: Path, name: str) -> None:
    settings = HostSettings(procfs=tmp_path, sysfs=tmp_path)
    assert values(collector(name, settings)) == {}


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOENT])
def test_pressure_that_is_switched_off_is_no_failure(
    server: HostSettings, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(path: str) -> bytes:
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr("gpu_exporter.host.pressure.read_file", fail)
    assert values(collector("pressure", server)) == {}


def test_pressure_without_permission_is_a_failure(server: HostSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr("gpu_exporter.host.pressure.read_file", fail)
    with pytest.raises(OSError, match="Permission denied"):
        values(collector("pressure", server))


def test_disks_in_udevs_database(server: HostSettings, tmp_path: Path) -> None:
    from dataclasses import replace

    write(
        tmp_path,
        {
            "udev/b8:0": (
                "S:disk/by-id/x\nE:ID_MODEL=DISK\nE:ID_SERIAL_SHORT=S9\nE:ID_SERIAL=LONG\nE:ID_PATH=pci-1\n"
                "E:ID_FS_TYPE=mpath_member\nE:ID_FS_UUID=u-1\nE:ID_ATA=1\nE:ID_ATA_ROTATION_RATE_RPM=7200\n"
            ),
            "udev/b253:4": "E:DM_NAME=mpatha\nE:DM_UUID=mpath-3600\n",
        },
    )
    write(server.procfs, {"diskstats": "8 0 sda" + " 1" * 11 + "\n253 4 dm-4" + " 1" * 11 + "\n"})
    found = values(DiskstatsCollector(replace(server, udev_data=tmp_path / "udev")))
    # sysfs still says which disks rotate.
    assert ("node_disk_info", ("sda", "8", "0", "pci-1", "", "DISK", "S9", "", "1")) in found
    assert found["node_disk_filesystem_info", ("sda", "mpath_member", "", "u-1", "")] == 1
    assert found["node_disk_ata_rotation_rate_rpm", ("sda",)] == 7200
    assert found["node_disk_device_mapper_info", ("dm-4", "mpatha", "mpath-3600", "", "", "")] == 1


def test_multipath_names_without_udev(server: HostSettings) -> None:
    write(server.sysfs, {"block/dm-4/dm/name": "mpatha\n", "block/dm-4/dm/uuid": "mpath-3600\n"})
    write(server.procfs, {"diskstats": "253 4 dm-4" + " 1" * 11 + "\n"})
    found = values(collector("diskstats", server))
    assert found["node_disk_device_mapper_info", ("dm-4", "mpatha", "mpath-3600", "", "", "")] == 1


def test_properties_of_disks_are_read_rarely_and_when_a_disk_is_added(server: HostSettings) -> None:
    now = 0.0
    source = DiskstatsCollector(server, clock=lambda: now)
    model = ("node_disk_info", ("sda", "8", "0", "", "", "SLOW 8TB", "", "", "1"))
    assert model in values(source)
    write(server.sysfs, {"block/sda/device/model": "NEW\n"})
    now += PROPERTIES_INTERVAL_SECONDS / 2
    assert model in values(source)
    now += PROPERTIES_INTERVAL_SECONDS
    assert model not in values(source)
    write(server.sysfs, {"block/sdb/device/model": "ADDED\n"})
    diskstats = (server.procfs / "diskstats").read_text()
    write(server.procfs, {"diskstats": diskstats + "8 16 sdb" + " 1" * 11 + "\n"})
    assert any(labels[:1] == ("sdb",) and "ADDED" in labels for _, labels in values(source))


def test_ext4_after_an_error_is_readonly(server: HostSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((1, 1, 1, 1, 1, 1, 1, 1, 0, 255)))
    options = {"/": "rw,relatime,errors=remount-ro,emergency_ro", "/a": "rw,emergency_romance", "/b": "ro,noexec"}
    lines = (f"/dev/sd{i} {point} ext4 {each} 0 0\n" for i, (point, each) in enumerate(options.items()))
    write(server.procfs, {"1/mounts": "".join(lines)})
    found = values(collector("filesystem", server))
    readonly = {labels[1]: value for (name, labels), value in found.items() if name == "node_filesystem_readonly"}
    assert readonly == {"/": 1, "/a": 0, "/b": 1}


def test_two_chips_of_one_device_have_different_names(server: HostSettings) -> None:
    device = server.sysfs / "devices/platform/wmi"
    device.mkdir(parents=True)
    for number, name in ((7, "fans"), (8, "fans"), (9, "volts")):
        write(server.sysfs, {f"class/hwmon/hwmon{number}/name": name, f"class/hwmon/hwmon{number}/temp1_input": "1000"})
        (server.sysfs / f"class/hwmon/hwmon{number}/device").symlink_to(device)
    found = values(collector("hwmon", server))
    chips = {labels[0] for name, labels in found if name == "node_hwmon_temp_celsius"}
    assert chips == {"nvme", "platform_wmi_hwmon7", "platform_wmi_hwmon8", "platform_wmi_volts"}


@pytest.mark.parametrize(
    ("kind", "property_", "suffix"),
    [("temp", "crit", "_celsius"), ("temp", "type", ""), ("fan", "pulses", ""), ("power", "cap", "_watt"),
     ("in", "alarm", ""), ("fan", "beep", "_enabled"), ("curr", "input", "_amps")],
)  # fmt: skip
def test_unit_of_a_sensors_property(kind: str, property_: str, suffix: str) -> None:
    assert sensor_unit(kind, property_).suffix == suffix


def test_time_is_that_of_the_scrape(server: HostSettings) -> None:
    now = 1.8e9
    source = TimeCollector(server, clock=lambda: now)
    assert ("node_time_seconds", ()) not in values(source)
    now += 0.5
    [samples] = source.collect_at_scrape()
    assert samples.rows == (((), 1.8e9 + 0.5),)


def test_timex_units(server: HostSettings) -> None:
    def fill(timex: Timex, status: int, state: int) -> int:
        timex.status, timex.offset, timex.max_error = status, 1500, 16_000_000
        timex.frequency, timex.tai = 65536 * 100, 37
        return state

    nano = values(TimexCollector(server, lambda timex: fill(timex, 0x2001, 0)))
    assert nano["node_timex_offset_seconds", ()] == pytest.approx(1.5e-6)
    assert nano["node_timex_maxerror_seconds", ()] == 16
    assert nano["node_timex_frequency_adjustment_ratio", ()] == pytest.approx(1.0001)
    assert nano["node_timex_tai_offset_seconds", ()] == 37
    assert nano["node_timex_sync_status", ()] == 1
    micro = values(TimexCollector(server, lambda timex: fill(timex, 0x40, 5)))
    assert micro["node_timex_offset_seconds", ()] == pytest.approx(1.5e-3)
    assert micro["node_timex_sync_status", ()] == 0


def test_timex_is_absent_where_the_call_is_forbidden(server: HostSettings) -> None:
    def refuse(timex: Timex) -> int:
        raise PermissionError(errno.EPERM, "not permitted")

    assert values(TimexCollector(server, refuse)) == {}


def test_timex_of_this_machine() -> None:
    timex = Timex()
    try:
        adjtimex(timex)
    except PermissionError:
        pytest.skip("adjtimex is forbidden here")
    assert timex.tick == pytest.approx(10_000, rel=0.1)
    assert ctypes.sizeof(Timex) == 208, "struct timex on 64-bit Linux"


def test_mdstat_of_an_array_that_waits() -> None:
    text = "md9 : active (auto-read-only) raid1 sda[0] sdb[1]\n      10 blocks [2/2] [UU]\n      \tresync=PENDING\n"
    [array] = parse_mdstat(text)
    assert (array.state, array.synced, array.members) == ("resync", 0, 2)


def test_disks_of_an_array_that_is_reshaped(tmp_path: Path) -> None:
    """The file has both numbers then (prometheus/node_exporter#3528)."""
    for name, text in {"md1": "4 (3)\n", "md2": "2\n", "md3": "\n"}.items():
        folder = tmp_path / f"sys/block/{name}/md"
        folder.mkdir(parents=True)
        (folder / "raid_disks").write_text(text)
        (folder / "degraded").write_text("1\n")
    families = COLLECTORS["mdadm"](HostSettings(procfs=tmp_path, sysfs=tmp_path / "sys")).collect()
    found = {each.family.name: dict(each.rows) for each in families}
    assert found["node_md_raid_disks"] == {("md1",): 4, ("md2",): 2}
    assert found["node_md_degraded"] == {("md1",): 1, ("md2",): 1}


def test_a_numa_node_without_counters_of_allocations(tmp_path: Path) -> None:
    folder = tmp_path / "devices/system/node/node3"
    folder.mkdir(parents=True)
    (folder / "meminfo").write_text("Node 3 MemTotal: 7 kB\n")
    (only,) = COLLECTORS["meminfo_numa"](HostSettings(sysfs=tmp_path)).collect()
    assert (only.family.name, only.rows) == ("node_memory_numa_MemTotal", ((("3",), 7 * 1024),))


def test_intervals_divide_a_minute() -> None:
    assert set(MIN_INTERVAL_SECONDS) <= set(COLLECTORS)
    assert all(60 % seconds == 0 for seconds in MIN_INTERVAL_SECONDS.values())
