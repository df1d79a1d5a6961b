"""psutil's host families: beside the /proc readers on Linux, and with the fields of other systems."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gpu_exporter import host
from gpu_exporter.exposition import render
from gpu_exporter.host import COLLECTORS, portable
from gpu_exporter.host.base import HostSettings
from gpu_exporter.process import PortableProcessCollector, ProcessCollector

from tests.unit.host.fake_node import Values, values

psutil = pytest.importorskip("psutil")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="compares with the /proc readers")

#: Allowed difference between two readings on a busy machine, by the start of the name, in its unit.
MOVES = {
    "node_cpu_": 60, "node_memory_": 2**30, "node_disk_": 2**30, "node_filesystem_": 2**30, "node_network_": 2**28,
    "node_load": 5, "node_context_switches": 1e7, "node_intr": 1e7, "node_boot": 2, "node_time": 60,
}  # fmt: skip

CACHED = ("node_memory_Cached_bytes", ())


def of(collectors: Any, name: str) -> Values:
    found: Values = values(collectors[name](HostSettings()))
    return found


@linux_only
@pytest.mark.parametrize("name", portable.COLLECTORS)
def test_same_families_labels_and_values_as_the_proc_readers(name: str) -> None:
    ours, expected = of(portable.COLLECTORS, name), of(COLLECTORS, name)
    if name == "uname":  # the NIS domain, which only Linux has
        ours, expected = ({(family, labels[:-1]): 1.0 for family, labels in each} for each in (ours, expected))
    if name == "meminfo":  # as in `free`, psutil counts what the kernel can reclaim of its slabs as cached
        reclaimable = expected["node_memory_SReclaimable_bytes", ()]
        expected = {**expected, CACHED: expected[CACHED] + reclaimable}
    if not expected:
        return  # psutil takes frequencies from /proc/cpuinfo where there are no others
    checked = 0
    for (family, labels), value in ours.items():
        if family == "node_network_up":
            continue  # psutil asks whether the interface was brought up, Linux whether it works
        assert (family, labels) in expected, (family, labels)
        move = next((move for start, move in MOVES.items() if family.startswith(start)), 0)
        assert value == pytest.approx(expected[family, labels], rel=1e-6, abs=move), (family, labels)
        checked += 1
    assert checked


@linux_only
def test_types_are_those_of_the_proc_readers() -> None:
    types = {
        samples.family.name: (samples.family.type, samples.family.labels)
        for name in portable.COLLECTORS
        for samples in COLLECTORS[name](HostSettings()).collect()
    }
    for make in portable.COLLECTORS.values():
        for samples in make(HostSettings()).collect():
            if samples.family.name.startswith("node_cpu_scaling_"):
                continue  # this machine may have none
            assert types[samples.family.name] == (samples.family.type, samples.family.labels)


@linux_only
def test_own_process() -> None:
    expected = {samples.family.name: samples.rows[0][1] for samples in ProcessCollector().collect()}
    found = {samples.family.name: samples.rows[0][1] for samples in PortableProcessCollector().collect()}
    assert found.keys() <= expected.keys()
    assert found["process_resident_memory_bytes"] == pytest.approx(expected["process_resident_memory_bytes"], rel=0.2)
    assert found["process_cpu_seconds_total"] == pytest.approx(expected["process_cpu_seconds_total"], abs=2)
    assert found["process_open_fds"] == pytest.approx(expected["process_open_fds"], abs=3)


# With the fields that psutil documents for other systems

WindowsCpu = namedtuple("WindowsCpu", "user system idle interrupt dpc")
MacCpu = namedtuple("MacCpu", "user nice system idle")
WindowsMemory = namedtuple("WindowsMemory", "total available percent used free")
MacMemory = namedtuple("MacMemory", "total available percent used free active inactive wired")
Swap = namedtuple("Swap", "total used free percent sin sout")
WindowsDisk = namedtuple("WindowsDisk", "read_count write_count read_bytes write_bytes read_time write_time")
Network = namedtuple("Network", "bytes_sent bytes_recv packets_sent packets_recv errin errout dropin dropout")
Interface = namedtuple("Interface", "isup duplex speed mtu flags")


def test_cpu_of_windows_and_macos() -> None:
    windows = SimpleNamespace(cpu_times=lambda percpu: [WindowsCpu(1, 2, 3, 4, 5)])
    [samples] = portable._cpu(windows)
    assert dict(samples.rows) == {
        ("0", "user"): 1, ("0", "system"): 2, ("0", "idle"): 3, ("0", "irq"): 4, ("0", "softirq"): 5,
    }  # fmt: skip
    mac = SimpleNamespace(cpu_times=lambda percpu: [MacCpu(1, 2, 3, 4)] * 2)
    [samples] = portable._cpu(mac)
    assert ("1", "nice") in dict(samples.rows)
    assert len(samples.rows) == 8


@pytest.mark.parametrize(
    ("memory", "fields"),
    [
        (WindowsMemory(8, 5, 0, 3, 4), {"MemTotal", "MemAvailable", "MemFree", "SwapTotal", "SwapFree"}),
        (
            MacMemory(8, 5, 0, 3, 4, 1, 2, 3),
            {"MemTotal", "MemAvailable", "MemFree", "Active", "Inactive", "SwapTotal", "SwapFree"},
        ),
    ],
)
def test_memory_fields_that_a_system_lacks_are_absent(memory: Any, fields: set[str]) -> None:
    fake = SimpleNamespace(virtual_memory=lambda: memory, swap_memory=lambda: Swap(7, 0, 6, 0, 0, 0))
    found = {samples.family.name: samples.rows[0][1] for samples in portable._meminfo(fake)}
    assert found.keys() == {f"node_memory_{field}_bytes" for field in fields}
    assert found["node_memory_SwapFree_bytes"] == 6


def test_disks_and_network_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(
        disk_io_counters=lambda perdisk: {"PhysicalDrive0": WindowsDisk(1, 2, 3, 4, 5000, 6000)},
        net_io_counters=lambda pernic: {"Ethernet": Network(1, 2, 3, 4, 5, 6, 7, 8)},
        net_if_stats=lambda: {"Ethernet": Interface(True, 2, 1000, 1500, ""), "Loopback": Interface(True, 0, 0, 0, "")},
    )
    monkeypatch.setitem(sys.modules, "psutil", fake)
    disk = of(portable.COLLECTORS, "diskstats")
    assert disk["node_disk_read_time_seconds_total", ("PhysicalDrive0",)] == 5
    assert ("node_disk_io_time_seconds_total", ("PhysicalDrive0",)) not in disk
    network = of(portable.COLLECTORS, "netdev")
    assert network["node_network_receive_bytes_total", ("Ethernet",)] == 2
    interface = of(portable.COLLECTORS, "netclass")
    assert interface["node_network_speed_bytes", ("Ethernet",)] == 125e6
    assert ("node_network_speed_bytes", ("Loopback",)) not in interface


def test_a_drive_without_a_disk_is_a_device_error(monkeypatch: pytest.MonkeyPatch) -> None:
    Part = namedtuple("Part", "device mountpoint fstype opts")

    def usage(path: str) -> Any:
        if path == "D:\\":
            raise PermissionError("the device is not ready")
        return SimpleNamespace(total=100, used=30, free=60)

    parts = [Part("C:\\", "C:\\", "NTFS", "rw,fixed"), Part("D:\\", "D:\\", "CDFS", "ro,cdrom")]
    fake = SimpleNamespace(disk_partitions=lambda all: parts, disk_usage=usage)
    monkeypatch.setitem(sys.modules, "psutil", fake)
    found = of(portable.COLLECTORS, "filesystem")
    c, d = ("C:\\", "C:\\", "NTFS"), ("D:\\", "D:\\", "CDFS")
    assert found["node_filesystem_size_bytes", c] == 100
    assert found["node_filesystem_free_bytes", c] == 70
    assert found["node_filesystem_avail_bytes", c] == 60
    assert found["node_filesystem_device_error", d] == 1
    assert found["node_filesystem_readonly", d] == 1
    assert ("node_filesystem_size_bytes", d) not in found


def test_without_psutil_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(OSError, match="pip install psutil"):
        portable.COLLECTORS["cpu"](HostSettings())


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "sysctlbyname('hw.cpufrequency')"), RuntimeError("invalid"), SystemError("set")]
)
def test_frequency_that_cannot_be_read_is_absent(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """As on Apple's chips (giampaolo/psutil#1892, #2841)."""
    monkeypatch.setattr(psutil, "cpu_freq", raises(error))
    assert of(portable.COLLECTORS, "cpufreq") == {}


def test_memory_without_the_counters_of_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows with performance counters disabled (giampaolo/psutil#2458)."""
    monkeypatch.setattr(psutil, "swap_memory", raises(RuntimeError("PdhAddEnglishCounterW failed")))
    found = of(portable.COLLECTORS, "meminfo")
    assert found["node_memory_MemTotal_bytes", ()] == psutil.virtual_memory().total
    assert ("node_memory_SwapTotal_bytes", ()) not in found


def test_names_that_are_not_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    """psutil has such bytes as surrogates, which no page may contain."""
    name = os.fsdecode(b"/mnt/caf\xe9")
    part = SimpleNamespace(device="/dev/sdz", mountpoint=name, fstype="ext4", opts="rw")
    counters = SimpleNamespace(**dict.fromkeys(portable.NETWORK_FIELDS, 1))
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: [part])
    monkeypatch.setattr(psutil, "net_io_counters", lambda pernic: {name: counters})
    for collector in ("filesystem", "netdev"):
        page = render(portable.COLLECTORS[collector](HostSettings()).collect()).decode()
        assert "caf\N{REPLACEMENT CHARACTER}" in page


def raises(error: Exception) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> None:
        raise error

    return call


def test_linux_does_not_import_psutil() -> None:
    assert host.collectors_of("linux") is COLLECTORS
    assert host.collectors_of("darwin") is host.collectors_of("win32") is portable.COLLECTORS
    assert portable.COLLECTORS.keys() <= COLLECTORS.keys(), "the same switches"
    code = "import sys, gpu_exporter.cli; sys.exit('psutil' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_it_starts_without_proc_and_what_only_posix_has(tmp_path: Path) -> None:
    """On Linux, with what Windows lacks taken away: this is as far as it was tested there."""
    code = """
        import os, signal, sys, socket, threading, ctypes, subprocess, psutil, platform, socketserver, logging
        for name in ("uname", "sysconf", "getuid", "geteuid", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"):
            if hasattr(os, name): delattr(os, name)
        for name in ("SIGHUP", "SIGUSR1", "SIGUSR2"): delattr(signal, name)
        for name in ("resource", "pwd", "grp", "fcntl", "termios"): sys.modules[name] = None
        sys.platform = "win32"
        from gpu_exporter.config import ExporterSettings
        import gpu_exporter.cli
        from gpu_exporter.wiring import build_drivers, build_sampler
        open("a.prom", "wb").write(b"job_steps 7\\r\\n")
        settings = ExporterSettings(path_procfs="/none", path_sysfs="/none", textfile_directory=os.getcwd())
        sampler = build_sampler(settings, build_drivers(settings, ()))
        sampler.start(10)
        print(sampler.page().decode())
    """
    script = tmp_path / "start.py"
    script.write_text(textwrap.dedent(code))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    failed = [
        line
        for line in done.stdout.splitlines()
        if line.startswith("gpu_exporter_collector_success") and line.endswith(" 0")
    ]
    assert failed == []
    for family in ("node_cpu_seconds_total{", "node_memory_MemTotal_bytes ", "node_filesystem_size_bytes{",
                   "node_uname_info{", "process_resident_memory_bytes ",
                   "job_steps 7"):  # fmt: skip
        assert family in done.stdout
