"""Each host collector on a fake node, and on corrupted variants of it."""

from __future__ import annotations

import math
import os
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from gpu_exporter.host import COLLECTORS, filesystem, statvfs
from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import MAX_CACHED_DEVICES, DeviceFilter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.host.fake_node import (
    MAIN_FILE,
    OPTIONAL,
    PROC,
    WITHOUT_FILES,
    Values,
    collector,
    make_node,
    values,
    write,
)

ROOT_ONLY = ("/dev/sda1", "/", "ext4")
REAL_STATVFS = os.statvfs


@pytest.fixture
def node(tmp_path: Path) -> HostSettings:
    return make_node(tmp_path)


def statvfs_result(
    blocks: int = 100, free: int = 50, available: int = 40, files: int = 10, files_free: int = 5
) -> os.statvfs_result:
    """With blocks of 4096 bytes, and counts in fragments of 1024."""
    return os.statvfs_result((4096, 1024, blocks, free, available, files, files_free, files_free, 0, 255))


@pytest.fixture
def statvfs_responds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: statvfs_result())


def devices(found: Values) -> set[str]:
    return {labels[0] for _, labels in found}


# Values of a healthy node


def test_cpu(node: HostSettings) -> None:
    found = values(collector("cpu", node))
    tick = 1 / os.sysconf("SC_CLK_TCK")
    assert len(found) == 2 * (8 + 2)
    assert found["node_cpu_seconds_total", ("0", "user")] == pytest.approx(100 * tick)
    assert found["node_cpu_seconds_total", ("1", "idle")] == pytest.approx(3000 * tick)
    assert found["node_cpu_seconds_total", ("1", "steal")] == pytest.approx(3 * tick)
    assert found["node_cpu_guest_seconds_total", ("0", "user")] == pytest.approx(4 * tick)
    assert found["node_cpu_guest_seconds_total", ("1", "nice")] == pytest.approx(2 * tick)


def test_stat(node: HostSettings) -> None:
    assert values(collector("stat", node)) == {
        ("node_intr_total", ()): 12345,
        ("node_context_switches_total", ()): 67890,
        ("node_boot_time_seconds", ()): 1_700_000_000,
        ("node_forks_total", ()): 4321,
        ("node_procs_running", ()): 3,
        ("node_procs_blocked", ()): 1,
    }


def test_loadavg(node: HostSettings) -> None:
    found = values(collector("loadavg", node))
    assert found == {("node_load1", ()): 0.42, ("node_load5", ()): 1.5, ("node_load15", ()): 2.0}


def test_meminfo(node: HostSettings) -> None:
    assert values(collector("meminfo", node)) == {
        ("node_memory_MemTotal_bytes", ()): 1024 * 1024,
        ("node_memory_Active_anon_bytes", ()): 8192,
        ("node_memory_Active_x_bytes", ()): 0,
        ("node_memory_HugePages_Total", ()): 5,
        ("node_memory_Hugepagesize_bytes", ()): 2048 * 1024,
    }


def test_diskstats(node: HostSettings) -> None:
    found = values(collector("diskstats", node))
    assert devices(found) == {"nvme0n1", "sda"}
    assert found["node_disk_read_bytes_total", ("sda",)] == 12 * 512
    assert found["node_disk_write_time_seconds_total", ("sda",)] == pytest.approx(0.023)
    assert found["node_disk_io_now", ("nvme0n1",)] == 1
    assert found["node_disk_discarded_sectors_total", ("nvme0n1",)] == 43
    assert found["node_disk_flush_requests_time_seconds_total", ("nvme0n1",)] == pytest.approx(0.052)
    # Without discards and flushes in the kernel they are absent, not zero.
    assert len([1 for _, labels in found if labels == ("sda",)]) == 11


def test_netdev(node: HostSettings) -> None:
    found = values(collector("netdev", node))
    assert len(found) == 32
    assert found["node_network_receive_bytes_total", ("eth0",)] == 101
    assert found["node_network_receive_multicast_total", ("lo",)] == 8
    assert found["node_network_transmit_bytes_total", ("eth0",)] == 109
    assert found["node_network_transmit_compressed_total", ("eth0",)] == 116


def test_netclass(node: HostSettings) -> None:
    assert values(collector("netclass", node)) == {
        ("node_network_up", ("eth0",)): 1,
        ("node_network_up", ("lo",)): 0,
        ("node_network_carrier", ("eth0",)): 1,
        ("node_network_mtu_bytes", ("eth0",)): 9000,
        ("node_network_mtu_bytes", ("lo",)): 65536,
        ("node_network_speed_bytes", ("eth0",)): 12.5e9,
        ("node_network_info", ("eth0", "", "", "", "up", "unknown", "")): 1,
        ("node_network_info", ("lo", "", "", "", "unknown", "unknown", "")): 1,
    }


def test_pressure(node: HostSettings) -> None:
    assert values(collector("pressure", node)) == {
        ("node_pressure_cpu_waiting_seconds_total", ()): 1.5,
        ("node_pressure_io_waiting_seconds_total", ()): 2.5,
        ("node_pressure_io_stalled_seconds_total", ()): 0.5,
        ("node_pressure_memory_waiting_seconds_total", ()): 3.5,
        ("node_pressure_memory_stalled_seconds_total", ()): 0.25,
    }


def test_uname(node: HostSettings) -> None:
    name = os.uname()
    labels = (name.sysname, name.release, name.version, name.machine, name.nodename, "(none)")
    assert values(collector("uname", node)) == {("node_uname_info", labels): 1}


def test_configured_node_name(node: HostSettings) -> None:
    [(_, labels)] = values(collector("uname", replace(node, nodename="node-7")))
    assert labels[4] == "node-7"


def test_uname_without_a_domain(node: HostSettings) -> None:
    (node.procfs / "sys/kernel/domainname").unlink()
    [(_, labels)] = values(collector("uname", node))
    assert labels[-1] == ""


@pytest.mark.usefixtures("statvfs_responds")
def test_filesystem(node: HostSettings) -> None:
    found = values(collector("filesystem", node))
    data = ("/dev/sdb1", "/data one", "xfs")
    assert {labels for _, labels in found} == {ROOT_ONLY, data, ("filer:/home", "/home", "nfs4")}
    assert found["node_filesystem_size_bytes", data] == 100 * 1024
    assert found["node_filesystem_free_bytes", data] == 50 * 1024
    assert found["node_filesystem_avail_bytes", data] == 40 * 1024
    assert found["node_filesystem_files", data] == 10
    assert found["node_filesystem_files_free", data] == 5
    assert found["node_filesystem_readonly", data] == 1
    assert found["node_filesystem_readonly", ROOT_ONLY] == 0
    assert found["node_filesystem_device_error", data] == 0


# Corrupted files


def test_infiniband(node: HostSettings) -> None:
    first, second = ("mlx5_0", "1"), ("mlx5_0", "2")
    assert values(collector("infiniband", node)) == {
        ("node_infiniband_state_id", first): 4,
        ("node_infiniband_state_id", second): 1,
        ("node_infiniband_physical_state_id", first): 5,
        ("node_infiniband_physical_state_id", second): 3,
        ("node_infiniband_rate_bytes_per_second", first): 50e9,
        ("node_infiniband_rate_bytes_per_second", second): 312.5e6,
        ("node_infiniband_port_data_received_bytes_total", first): 4000,
        ("node_infiniband_port_data_transmitted_bytes_total", first): 8000,
        ("node_infiniband_port_packets_received_total", first): 30,
        ("node_infiniband_port_packets_transmitted_total", first): 40,
        ("node_infiniband_link_downed_total", first): 1,
        ("node_infiniband_port_transmit_wait_total", first): 77,
        ("node_infiniband_symbol_error_total", first): 3,
        ("node_infiniband_info", ("mlx5_0", "MT_0000000838", "28.39.1002", "MT4129")): 1,
    }


def test_a_node_without_infiniband(tmp_path: Path) -> None:
    assert values(collector("infiniband", HostSettings(sysfs=tmp_path))) == {}


def test_unreadable_infiniband_ports(tmp_path: Path) -> None:
    (tmp_path / "class/infiniband/mlx5_0/ports/1").mkdir(parents=True)
    with pytest.raises(OSError, match="cannot read any port"):
        values(collector("infiniband", HostSettings(sysfs=tmp_path)))


@pytest.mark.parametrize("name", [name for name in COLLECTORS if name not in (*OPTIONAL, *WITHOUT_FILES)])
def test_missing_files_are_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        values(collector(name, HostSettings(procfs=tmp_path, sysfs=tmp_path)))


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe garbage \x00\n", b"cpu\nintr\n:\n", b"-1 -1 -1 -1\n"])
@pytest.mark.parametrize("name", MAIN_FILE)
def test_unparsable_files_are_an_error(node: HostSettings, name: str, content: bytes) -> None:
    write(node.procfs, {MAIN_FILE[name]: content})
    if name == "diskstats" and not content.strip():
        assert values(collector(name, node)) == {}  # a node without disks
        return
    with pytest.raises(ValueError, match=MAIN_FILE[name]):
        values(collector(name, node))


def test_an_unreadable_file_is_an_error(node: HostSettings) -> None:
    (node.procfs / "stat").unlink()
    (node.procfs / "stat").mkdir()
    with pytest.raises(IsADirectoryError):
        values(collector("stat", node))


GARBAGE_LINES = [
    b"",
    b"garbage",
    b"\xff\xfe\x00: \xff",
    b"cpu7 1 2",
    b"cpu7 1 2 -3 4 5 6 7 8",
    b"cpux 1 2 3 4 5 6 7 8",
    b"cpu7 1 2 3 999999999999999999999999 5 6 7 8",
    b"ctxt -5",
    b"ctxt 0x10",
    b"MemFree: -1 kB",
    b"MemFree: 12 furlongs",
    b"MemFree:",
    b"Mem Free: 12 kB",
    b"M\xc3\xa9m: 12 kB",
    b"MemFree: " + b"9" * 5000 + b" kB",
    b"8 16 sdb 1 2 3",
    b"8 16 sdb 1 2 3 4 5 6 7 8 9 10 x",
    b"8 16 sdb 1 2 3 4 5 6 7 8 9 10 -11",
    b"eth1: 1 2 3",
    b"eth1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 -16",
    b"eth1 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
    b": 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
    b"/dev/sdz",
    b"/dev/sdz relative ext4 rw 0 0",
    b"some avg10=0 total=-5",
    b"total=5",
]


@pytest.mark.usefixtures("statvfs_responds")
@pytest.mark.parametrize("line", GARBAGE_LINES)
def test_a_malformed_line_is_skipped(node: HostSettings, line: bytes) -> None:
    for name, file in {**MAIN_FILE, "pressure": "pressure/io"}.items():
        if name == "loadavg":
            continue  # has one line only
        healthy = values(collector(name, node))
        content = (node.procfs / file).read_bytes()
        write(node.procfs, {file: content + line + b"\n"})
        assert values(collector(name, node)) == healthy, name
        write(node.procfs, {file: content})


@pytest.mark.parametrize("text", ["nan 1 1", "inf 1 1", "1 -1 1", "1 1", "a b c"])
def test_invalid_load(node: HostSettings, text: str) -> None:
    write(node.procfs, {"loadavg": text})
    with pytest.raises(ValueError, match="load averages"):
        values(collector("loadavg", node))


def test_huge_numbers(node: HostSettings) -> None:
    write(node.procfs, {"stat": f"ctxt {2**64 - 1}\n", "diskstats": "8 0 sda" + f" {2**64 - 1}" * 11})
    assert values(collector("stat", node)) == {("node_context_switches_total", ()): float(2**64 - 1)}
    assert values(collector("diskstats", node))["node_disk_read_bytes_total", ("sda",)] == (2**64 - 1) * 512.0


def test_repeated_lines_are_one_series(node: HostSettings) -> None:
    for name in ("cpu", "diskstats", "meminfo", "netdev", "stat"):
        healthy = values(collector(name, node))
        lines = PROC[MAIN_FILE[name]].splitlines(keepends=True)
        write(node.procfs, {MAIN_FILE[name]: "".join([*lines, lines[-1]])})
        assert values(collector(name, node)) == healthy


# CPU counters


def cpu_line(user: int, idle: int, iowait: int) -> dict[str, str]:
    return {"stat": f"cpu0 {user} 0 0 {idle} {iowait} 0 0 0 0 0\n"}


def test_cpu_counters_do_not_decrease_on_jitter(node: HostSettings) -> None:
    cpu = collector("cpu", node)
    tick = 1 / os.sysconf("SC_CLK_TCK")
    write(node.procfs, cpu_line(100, 10_000, 500))
    values(cpu)
    write(node.procfs, cpu_line(101, 9_990, 490))
    found = values(cpu)
    assert found["node_cpu_seconds_total", ("0", "user")] == pytest.approx(101 * tick)
    assert found["node_cpu_seconds_total", ("0", "idle")] == pytest.approx(10_000 * tick)
    assert found["node_cpu_seconds_total", ("0", "iowait")] == pytest.approx(500 * tick)


def test_cpu_counters_restart_after_hotplug(node: HostSettings) -> None:
    cpu = collector("cpu", node)
    write(node.procfs, cpu_line(100, 10_000, 500))
    values(cpu)
    write(node.procfs, cpu_line(5, 6, 7))
    assert values(cpu)["node_cpu_seconds_total", ("0", "user")] == pytest.approx(5 / os.sysconf("SC_CLK_TCK"))


def test_removed_cpu_has_no_series(node: HostSettings) -> None:
    cpu = collector("cpu", node)
    assert {labels[0] for _, labels in values(cpu)} == {"0", "1"}
    write(node.procfs, cpu_line(1, 2, 3))
    assert {labels[0] for _, labels in values(cpu)} == {"0"}


def test_short_cpu_line_of_an_old_kernel(node: HostSettings) -> None:
    write(node.procfs, {"stat": "cpu0 1 2 3 4\n"})
    assert {name_labels[1][1] for name_labels in values(collector("cpu", node))} == {"user", "nice", "system", "idle"}


# Devices


def test_excluded_devices(node: HostSettings) -> None:
    chosen = replace(node, net_exclude="^lo$", disk_exclude="^nvme")
    assert devices(values(collector("netdev", chosen))) == {"eth0"}
    assert devices(values(collector("netclass", chosen))) == {"eth0"}
    assert devices(values(collector("diskstats", chosen))) == {"sda"}
    assert values(collector("netdev", replace(node, net_exclude="."))) == {}


@pytest.mark.parametrize("name", ["diskstats", "filesystem", "netclass", "netdev"])
def test_invalid_pattern_is_named(node: HostSettings, name: str) -> None:
    with pytest.raises(ValueError, match=r"_exclude: .* is not a regular expression"):
        collector(name, replace(node, net_exclude="(", disk_exclude="(", mount_points_exclude="("))


def test_removed_device_has_no_series(node: HostSettings) -> None:
    netdev, netclass = collector("netdev", node), collector("netclass", node)
    values(netdev)
    values(netclass)
    lines = PROC["net/dev"].splitlines(keepends=True)
    write(node.procfs, {"net/dev": "".join(lines[:-1])})
    for file in (node.sysfs / "class/net/eth0").iterdir():
        file.unlink()
    assert devices(values(netdev)) == {"lo"}
    assert devices(values(netclass)) == {"lo"}


@pytest.mark.parametrize("speed", [b"-1", b"0", b"", b"fast", b"\xff"])
def test_an_unknown_speed_is_absent(node: HostSettings, speed: bytes) -> None:
    write(node.sysfs, {"class/net/eth0/speed": speed})
    assert ("node_network_speed_bytes", ("eth0",)) not in values(collector("netclass", node))


def test_unreadable_attribute_is_absent(node: HostSettings) -> None:
    (node.sysfs / "class/net/eth0/carrier").unlink()
    (node.sysfs / "class/net/eth0/carrier").mkdir()
    found = values(collector("netclass", node))
    assert ("node_network_carrier", ("eth0",)) not in found
    assert found["node_network_mtu_bytes", ("eth0",)] == 9000


def test_unreadable_interfaces(node: HostSettings) -> None:
    for device in ("eth0", "lo"):
        for file in (node.sysfs / "class/net" / device).iterdir():
            file.unlink()
    with pytest.raises(OSError, match="cannot read any interface"):
        values(collector("netclass", node))


def test_device_cache_is_bounded() -> None:
    devices = DeviceFilter("^lo$", "net_exclude")
    for i in range(MAX_CACHED_DEVICES + 10):
        assert devices.labels(f"veth{i}".encode()) == (f"veth{i}",)
    assert len(devices._labels_by_name) <= MAX_CACHED_DEVICES


def test_names_that_are_not_utf8(node: HostSettings) -> None:
    write(node.procfs, {"net/dev": PROC["net/dev"].replace("eth0", "e?0").encode().replace(b"e?0", b"e\xff0")})
    assert ("node_network_receive_bytes_total", ("e\ufffd0",)) in values(collector("netdev", node))


def test_unknown_column_is_ignored(node: HostSettings) -> None:
    table = PROC["net/dev"].replace("|bytes    packets errs", "|bytes    novelty packets errs", 1)
    table = re.sub(r"(lo|eth0): +(\d+)", r"\1: \2 777", table)
    healthy = values(collector("netdev", node))
    write(node.procfs, {"net/dev": table})
    assert values(collector("netdev", node)) == healthy


# Pressure


def test_pressure_without_one_resource(node: HostSettings) -> None:
    (node.procfs / "pressure/io").unlink()
    assert {name for name, _ in values(collector("pressure", node))} == {
        "node_pressure_cpu_waiting_seconds_total",
        "node_pressure_memory_waiting_seconds_total",
        "node_pressure_memory_stalled_seconds_total",
    }


def test_interrupt_pressure(node: HostSettings) -> None:
    write(node.procfs, {"pressure/irq": "full avg10=0.00 total=1000000\n"})
    assert values(collector("pressure", node))["node_pressure_irq_stalled_seconds_total", ()] == 1


def test_invalid_pressure_is_an_error(node: HostSettings) -> None:
    write(node.procfs, dict.fromkeys(("pressure/cpu", "pressure/io", "pressure/memory"), "garbage\n"))
    with pytest.raises(ValueError, match="pressure"):
        values(collector("pressure", node))


# Filesystems


def write_mounts(node: HostSettings, *lines: str) -> None:
    write(node.procfs, {"1/mounts": "".join(line + " rw 0 0\n" for line in lines)})


def errors(found: dict[tuple[str, tuple[str, ...]], float]) -> dict[str, float]:
    return {labels[1]: value for (name, labels), value in found.items() if name == "node_filesystem_device_error"}


def with_time_limit(time_limit: float = 0.3) -> statvfs.StatvfsPool:
    return statvfs.StatvfsPool(time_limit)


class HangingStatvfs:
    """Replaces os.statvfs: calls for some paths block until released."""

    def __init__(self, hangs: Callable[[str], bool]) -> None:
        self.hangs = hangs
        self.go = threading.Event()
        self.calls: list[str] = []

    def __call__(self, path: str) -> os.statvfs_result:
        self.calls.append(path)
        if self.hangs(path):
            self.go.wait()
        return statvfs_result()


@pytest.mark.usefixtures("statvfs_responds")
def test_own_mounts_if_process_1_is_hidden(node: HostSettings) -> None:
    (node.procfs / "1/mounts").unlink()
    write(node.procfs, {"self/mounts": "/dev/sda1 / ext4 rw 0 0\n"})
    assert errors(values(collector("filesystem", node))) == {"/": 0}


@pytest.mark.usefixtures("statvfs_responds")
def test_last_mount_on_a_point_wins(node: HostSettings) -> None:
    write_mounts(node, "rootfs / rootfs", "/dev/sda1 / ext4", "/dev/sda1 / ext4", "/dev/sdb1 /x ext4", "proc /x proc")
    assert {labels for _, labels in values(collector("filesystem", node))} == {ROOT_ONLY}


@pytest.mark.usefixtures("statvfs_responds")
def test_escapes_in_the_table(node: HostSettings) -> None:
    write_mounts(node, r"//nas/a\040b /a\040\011\012\134\043b cifs")
    [(device, point)] = {(labels[0], labels[1]) for _, labels in values(collector("filesystem", node))}
    assert (device, point) == ("//nas/a b", "/a \t\n\\#b")


@pytest.mark.parametrize(
    ("mounted", "asked", "shown"),
    [
        ("/host", "/host", "/"),
        ("/host/data", "/host/data", "/data"),
        ("/data", "/host/data", "/data"),
        ("/hostile", "/host/hostile", "/hostile"),
        ("/", "/host", "/"),
    ],
)
def test_rootfs(node: HostSettings, monkeypatch: pytest.MonkeyPatch, mounted: str, asked: str, shown: str) -> None:
    fake = HangingStatvfs(lambda path: False)
    monkeypatch.setattr(os, "statvfs", fake)
    write_mounts(node, f"/dev/sda1 {mounted} ext4")
    assert errors(values(collector("filesystem", replace(node, rootfs=Path("/host"))))) == {shown: 0}
    assert fake.calls == [asked]


def test_a_mount_that_fails_has_an_error_and_no_values(node: HostSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> os.statvfs_result:
        if path == "/home":
            raise PermissionError(path)
        return statvfs_result()

    monkeypatch.setattr(os, "statvfs", fail)
    found = values(collector("filesystem", node))
    assert errors(found) == {"/": 0, "/data one": 0, "/home": 1}
    names = {name for name, labels in found if labels[1] == "/home"}
    assert names == {"node_filesystem_device_error", "node_filesystem_readonly"}


def test_values_that_a_file_system_does_not_count_are_absent(
    node: HostSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: statvfs_result(files=0, files_free=0))
    write_mounts(node, "/dev/sda1 / btrfs")
    names = {name for name, _ in values(collector("filesystem", node))}
    assert "node_filesystem_size_bytes" in names
    assert "node_filesystem_files" not in names


def test_hung_mount_does_not_delay_the_others(node: HostSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = HangingStatvfs(lambda path: path == "/home")
    monkeypatch.setattr(os, "statvfs", fake)
    source = filesystem.FilesystemCollector(node)
    source._pool = with_time_limit()
    try:
        assert errors(values(source)) == {"/": 0, "/data one": 0, "/home": 1}
        # It is not called again.
        assert errors(values(source)) == {"/": 0, "/data one": 0, "/home": 1}
        assert fake.calls.count("/home") == 1
    finally:
        fake.go.set()
    fake.hangs = lambda path: False
    for thread in source._pool._hung_threads.values():
        thread.join(60)
    assert errors(values(source)) == {"/": 0, "/data one": 0, "/home": 0}


def test_mounts_of_one_server_block_one_thread(node: HostSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = HangingStatvfs(lambda path: path.startswith("/nfs"))
    monkeypatch.setattr(os, "statvfs", fake)
    write_mounts(node, *(f"filer:/export/{i} /nfs/{i} nfs4" for i in range(100)), "/dev/sda1 / ext4")
    source = filesystem.FilesystemCollector(node)
    source._pool = with_time_limit()
    try:
        found = errors(values(source))
        assert sum(found.values()) == 100
        assert found["/"] == 0
        assert len(source._pool._hung_threads) == 1
    finally:
        fake.go.set()


def test_many_hung_mounts_do_not_delay_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = {f"/fuse/{i}" for i in range(20)}
    fake = HangingStatvfs(lambda path: False)
    monkeypatch.setattr(os, "statvfs", fake)
    monkeypatch.setattr(statvfs, "MAX_THREADS", 4)
    monkeypatch.setattr(statvfs, "STALL_SECONDS", 0.005)
    groups = {path: [path] for path in [*sorted(dead), "/good"]}
    pool = with_time_limit()
    assert len(pool.query(groups)) == 21
    fake.hangs = dead.__contains__
    try:
        pool._time_limit = 0.02
        for _ in range(25):
            pool.query(groups)
        pool._time_limit = 5
        assert set(pool.query(groups)) == {"/good"}
        # Mounts that were responsive may block one more thread each, once; no path is called twice.
        assert len(pool._hung_threads) <= len(dead)
    finally:
        fake.go.set()


@pytest.mark.usefixtures("statvfs_responds")
def test_ten_thousand_mounts(node: HostSettings) -> None:
    write_mounts(node, *(f"/dev/dm-{i} /mnt/{i} ext4" for i in range(10_000)))
    source = filesystem.FilesystemCollector(node)
    source._pool = with_time_limit(30)
    assert sum(errors(values(source)).values()) == 0
    assert len(list(source.collect())) == 7


def test_slow_mounts_share_one_time_limit(node: HostSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(path: str) -> os.statvfs_result:
        time.sleep(0.01)
        return statvfs_result()

    monkeypatch.setattr(os, "statvfs", slow)
    write_mounts(node, *(f"/dev/dm-{i} /mnt/{i} ext4" for i in range(1000)))
    source = filesystem.FilesystemCollector(node)
    source._pool = with_time_limit()
    found = errors(values(source))
    assert len(found) == 1000
    assert 0 < sum(found.values()) < 1000


def test_no_thread_can_be_started(node: HostSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(OSError, match="raise the thread limit"):
        values(collector("filesystem", node))


@pytest.mark.parametrize(
    ("device", "server"),
    [
        ("filer:/export", "filer:"),
        ("[fe80::1]:/a:/b", "[fe80::1]:"),
        ("//nas/share", "//nas"),
        ("/dev/disk/by-path/pci-0:/x", ""),
        ("tmpfs", ""),
        ("", ""),
    ],
)
def test_groups_of_mounts(device: str, server: str) -> None:
    assert filesystem._network_server(device) == server


# Fuzzing: a valid file with a few bytes changed only raises OSError or ValueError


@st.composite
def corrupted_copies(draw: st.DrawFn, text: str) -> bytes:
    data = bytearray(text.encode())
    chance = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.integers(1, 6))):
        i = chance.randrange(len(data) + 1)
        change = chance.randrange(4)
        if change == 0:
            data[i:i] = chance.choice([b"-", b" ", b"\n", b"\x00", b"\xff", b":", b"9" * 30, b"e9", b"\\777", b"|"])
        elif change == 1:
            del data[i : i + chance.randrange(20)]
        elif change == 2 and i < len(data):
            data[i] = chance.randrange(256)
        elif change == 3:
            data[i:i] = data[: chance.randrange(len(data) + 1)]
    return bytes(data)


@pytest.mark.usefixtures("statvfs_responds")
@pytest.mark.parametrize(("name", "file"), [*MAIN_FILE.items(), ("pressure", "pressure/io")])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_corrupted_copies(node: HostSettings, name: str, file: str, data: st.DataObject) -> None:
    write(node.procfs, {file: data.draw(corrupted_copies(PROC[file]))})
    try:
        found = values(collector(name, node))
    except (OSError, ValueError):
        return
    assert all(0 <= value < math.inf for value in found.values())


@pytest.mark.usefixtures("statvfs_responds")
def test_every_family_has_the_node_prefix(node: HostSettings) -> None:
    for name in COLLECTORS:
        for samples in collector(name, node).collect():
            family = samples.family
            assert family.name.startswith("node_")
            assert (family.type == "counter") == family.name.endswith("_total")
            assert family.help.endswith(".")
