"""The host collectors compared with a real node_exporter: the same names, types, labels and values."""

from __future__ import annotations

import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from gpu_exporter.host import COLLECTORS
from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.infiniband import InfinibandCollector
from prometheus_client.parser import text_string_to_metric_families

from tests.polling import wait_until
from tests.servers import free_port
from tests.unit.host.fake_node import make_node

BINARY = shutil.which("prometheus-node-exporter") or shutil.which("node_exporter")
pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(BINARY is None, reason="needs prometheus-node-exporter (or node_exporter) on PATH"),
]

#: Families that node_exporter 1.5 lacks, or has with fewer labels, and 1.12 has as here.
NEWER_FAMILIES = {
    "node_pressure_irq_stalled_seconds_total", "node_kernel_hung_tasks_total", "node_netstat_TcpExt_TCPRcvQDrop",
    "node_netstat_TcpExt_TCPOFOQueue", "node_softnet_cpu_collision_total", "node_softnet_flow_limit_count_total",
    "node_softnet_received_rps_total", "node_softnet_backlog_len", "node_network_receive_nohandler_total",
    "node_disk_info", "node_network_info",
}  # fmt: skip
NEWER_COLLECTORS = {"kernel_hung"}
#: Allowed change on a busy node between the two readings, in the unit of the family.
CHANGING_FAMILIES = {
    "node_memory_Committed_AS": 2**31,  # what a program that starts may ask for at once
    "node_memory_": 256 * 2**20,
    "node_filesystem_": 256 * 2**20,
    "node_disk_": 256 * 2**20,
    "node_network_": 64 * 2**20,
    "node_cpu_": 30,
    "node_pressure_": 30,
    "node_load": 5,
    "node_procs_": 100,
    "node_context_switches_total": 1e6,
    "node_intr_total": 1e6,
    "node_forks_total": 1e4,
    "node_boot_time_seconds": 1,
    "node_vmstat_": 1e7,
    "node_netstat_": 1e6,
    "node_sockstat_": 1e6,
    "node_softnet_": 1e6,
    "node_nf_conntrack_": 1e5,
    "node_filefd_allocated": 1e5,
    "node_schedstat_": 1e6,
    "node_timex_": 10,
    "node_udp_queues": 1e6,
    "node_arp_entries": 10,
    "node_time_seconds": 60,
}


class ParsedFamily(NamedTuple):
    type: str
    labels: frozenset[str]
    rows: dict[frozenset[tuple[str, str]], float]


def fetch(url: str, process: subprocess.Popen[bytes]) -> str:
    def answer() -> str:
        assert process.poll() is None, f"node_exporter exited with {process.returncode}"
        try:
            with urllib.request.urlopen(url, timeout=60) as reply:
                return str(reply.read().decode())
        except urllib.error.URLError:
            return ""

    return wait_until(answer, f"an answer from {url}")


def command(port: int) -> list[str]:
    """With our settings, as defaults differ between versions."""
    settings = HostSettings()
    assert BINARY
    return [
        BINARY,
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.disable-exporter-metrics",
        "--collector.disable-defaults",
        f"--collector.filesystem.mount-points-exclude={settings.mount_points_exclude}",
        f"--collector.filesystem.fs-types-exclude={settings.fs_types_exclude}",
        f"--collector.diskstats.device-exclude={settings.disk_exclude}",
        "--collector.netdev.device-exclude=^$",
        *(f"--collector.{name}" for name in COLLECTORS if name not in NEWER_COLLECTORS),
    ]


def parse(text: str) -> dict[str, ParsedFamily]:
    found: dict[str, ParsedFamily] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            type_ = "untyped" if family.type == "unknown" else family.type
            entry = found.setdefault(sample.name, ParsedFamily(type_, frozenset(sample.labels), {}))
            entry.rows[frozenset(sample.labels.items())] = sample.value
    return found


def collect() -> dict[str, ParsedFamily]:
    found: dict[str, ParsedFamily] = {}
    for make in COLLECTORS.values():
        for samples in make(HostSettings()).collect():
            family = samples.family
            entry = found.setdefault(family.name, ParsedFamily(family.type, frozenset(family.labels), {}))
            for labels, value in samples.rows:
                entry.rows[frozenset(zip(family.labels, labels, strict=True))] = value
    return found


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[dict[str, ParsedFamily], dict[str, ParsedFamily]]]:
    port = free_port()
    with subprocess.Popen(command(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            theirs = parse(fetch(f"http://127.0.0.1:{port}/metrics", process))
            yield theirs, collect()
        finally:
            process.terminate()
            process.wait(60)


Both = tuple[dict[str, ParsedFamily], dict[str, ParsedFamily]]


def allowed_move(name: str) -> float:
    return next((move for prefix, move in CHANGING_FAMILIES.items() if name.startswith(prefix)), 0)


def known(name: str, rows: dict[frozenset[tuple[str, str]], float]) -> dict[frozenset[tuple[str, str]], float]:
    """Without rows in which node_exporter exports a number for an unknown value, absent here."""
    if name == "node_network_speed_bytes":
        return {labels: value for labels, value in rows.items() if value > 0}
    if name.startswith(("node_filesystem_size", "node_filesystem_files")):
        return {labels: value for labels, value in rows.items() if value}
    return rows


def test_every_family_exists_in_node_exporter(both: Both) -> None:
    theirs, ours = both
    assert set(ours) - set(theirs) - NEWER_FAMILIES == set()


def test_each_collector_has_its_families(both: Both) -> None:
    theirs, ours = both
    succeeded = theirs["node_scrape_collector_success"].rows
    assert len(succeeded) == len(COLLECTORS.keys() - NEWER_COLLECTORS)
    for prefix in (
        "node_cpu_seconds",
        "node_disk_",
        "node_filesystem_",
        "node_load",
        "node_memory_",
        "node_network_up",
    ):
        assert any(name.startswith(prefix) for name in ours) == any(name.startswith(prefix) for name in theirs)
    memory = {name for name in theirs if name.startswith("node_memory_")}
    assert memory == {name for name in ours if name.startswith("node_memory_")}


def test_types_and_label_names(both: Both) -> None:
    theirs, ours = both
    for name in set(theirs) & set(ours) - NEWER_FAMILIES:
        assert (name, ours[name].type, ours[name].labels) == (name, theirs[name].type, theirs[name].labels)


def test_label_values(both: Both) -> None:
    theirs, ours = both
    for name in set(theirs) & set(ours) - NEWER_FAMILIES:
        assert set(ours[name].rows) == set(known(name, theirs[name].rows)), name


def test_values(both: Both) -> None:
    theirs, ours = both
    for name in set(theirs) & set(ours):
        for labels, value in ours[name].rows.items():
            if labels in theirs[name].rows:
                expected = theirs[name].rows[labels]
                # Exact, except for changes between the two readings.
                assert value == pytest.approx(expected, rel=1e-9, abs=allowed_move(name)), (name, labels)


def test_infiniband_on_a_fake_tree(tmp_path: Path) -> None:
    """Few machines have such ports: both read the same fake tree."""
    settings = make_node(tmp_path)
    # node_exporter omits counters that the port lacks, and the whole device if one reads "N/A".
    (settings.sysfs / "class/infiniband/mlx5_0/ports/1/counters/VL15_dropped").unlink()
    (settings.sysfs / "class/infiniband/mlx5_0/ports/2/counters").mkdir()
    port = free_port()
    only = [each for each in command(port) if not each.startswith("--collector.") or each.endswith("disable-defaults")]
    only += ["--collector.infiniband", f"--path.sysfs={settings.sysfs}"]
    with subprocess.Popen(only, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            theirs = parse(fetch(f"http://127.0.0.1:{port}/metrics", process))
        finally:
            process.terminate()
            process.wait(60)
    found = InfinibandCollector(settings).collect()
    assert found
    for samples in found:
        family = samples.family
        rows = {frozenset(zip(family.labels, labels, strict=True)): value for labels, value in samples.rows}
        assert (family.type, rows) == (theirs[family.name].type, theirs[family.name].rows), family.name
