"""A fake node on disk: the files that host collectors read, and helpers to run them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gpu_exporter.host import COLLECTORS
from gpu_exporter.host.base import HostCollector, HostSettings

PROC = {
    "stat": (
        "cpu  300 30 60 5000 40 10 10 10 7 3\n"
        "cpu0 100 10 20 2000 20 5 6 7 4 1\n"
        "cpu1 200 20 40 3000 20 5 4 3 3 2\n"
        "intr 12345 9 0 0 1\nctxt 67890\nbtime 1700000000\nprocesses 4321\nprocs_running 3\nprocs_blocked 1\n"
        "softirq 99 1 2 3\n"
    ),
    "loadavg": "0.42 1.50 2.00 3/456 7890\n",
    "meminfo": (
        "MemTotal:       1024 kB\nActive(anon):      8 kB\nActive_x:          0 kB\nHugePages_Total:       5\n"
        "Hugepagesize:    2048 kB\n"
    ),
    "diskstats": (
        " 259 0 nvme0n1 10 11 12 13 20 21 22 23 1 31 32 41 42 43 44 51 52\n"
        " 259 1 nvme0n1p1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n"
        "   8 0 sda 10 11 12 13 20 21 22 23 0 31 32\n"
    ),
    "net/dev": (
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast"
        "|bytes    packets errs drop fifo colls carrier compressed\n"
        "    lo:       1       2    3    4    5     6          7         8"
        "        9      10   11   12   13    14      15         16\n"
        "  eth0:     101     102  103  104  105   106        107       108"
        "      109     110  111  112  113   114     115        116\n"
    ),
    "pressure/cpu": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 total=0\n",
    "pressure/io": "some avg10=0.00 total=2500000\nfull avg10=0.00 total=500000\n",
    "pressure/memory": "some avg10=0.00 total=3500000\nfull avg10=0.00 total=250000\n",
    "1/mounts": (
        "/dev/sda1 / ext4 rw,relatime 0 0\nproc /proc proc rw 0 0\n/dev/sdb1 /data\\040one xfs ro,relatime 0 0\n"
        "filer:/home /home nfs4 rw,hard 0 0\n"
    ),
    "sys/kernel/domainname": "(none)\n",
}
SYS = {
    "class/net/eth0/operstate": "up\n",
    "class/net/eth0/carrier": "1\n",
    "class/net/eth0/mtu": "9000\n",
    "class/net/eth0/speed": "100000\n",
    "class/net/lo/operstate": "unknown\n",
    "class/net/lo/mtu": "65536\n",
    "class/net/lo/speed": "-1\n",
    "class/net/bonding_masters": "\n",
    "class/infiniband/mlx5_0/board_id": "MT_0000000838\n",
    "class/infiniband/mlx5_0/fw_ver": "28.39.1002\n",
    "class/infiniband/mlx5_0/hca_type": "MT4129\n",
    "class/infiniband/mlx5_0/ports/1/state": "4: ACTIVE\n",
    "class/infiniband/mlx5_0/ports/1/phys_state": "5: LinkUp\n",
    "class/infiniband/mlx5_0/ports/1/rate": "400 Gb/sec (4X NDR)\n",
    "class/infiniband/mlx5_0/ports/1/counters/port_rcv_data": "1000\n",
    "class/infiniband/mlx5_0/ports/1/counters/port_xmit_data": "2000\n",
    "class/infiniband/mlx5_0/ports/1/counters/port_rcv_packets": "30\n",
    "class/infiniband/mlx5_0/ports/1/counters/port_xmit_packets": "40\n",
    "class/infiniband/mlx5_0/ports/1/counters/link_downed": "1\n",
    "class/infiniband/mlx5_0/ports/1/counters/port_xmit_wait": "77\n",
    "class/infiniband/mlx5_0/ports/1/counters/symbol_error": "3\n",
    "class/infiniband/mlx5_0/ports/1/counters/VL15_dropped": "N/A (no PMA)\n",
    "class/infiniband/mlx5_0/ports/2/state": "1: DOWN\n",
    "class/infiniband/mlx5_0/ports/2/phys_state": "3: Disabled\n",
    "class/infiniband/mlx5_0/ports/2/rate": "2.5 Gb/sec (1X SDR)\n",
}

#: The main file of each collector.
MAIN_FILE = {
    "cpu": "stat",
    "diskstats": "diskstats",
    "filesystem": "1/mounts",
    "loadavg": "loadavg",
    "meminfo": "meminfo",
    "netdev": "net/dev",
    "stat": "stat",
}

Values = dict[tuple[str, tuple[str, ...]], float]


def write(root: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def make_node(root: Path) -> HostSettings:
    write(root / "proc", PROC)
    write(root / "sys", SYS)
    return HostSettings(procfs=root / "proc", sysfs=root / "sys")


def collector(name: str, settings: HostSettings) -> HostCollector:
    return COLLECTORS[name](settings)


def values(source: HostCollector) -> Values:
    """By family and label values. Fails on duplicate series, and on labels that do not match the family."""
    found: Values = {}
    for samples in source.collect():
        assert samples.rows, f"{samples.family.name} has no sample and should be left out"
        for labels, value in samples.rows:
            assert len(labels) == len(samples.family.labels)
            for text in labels:
                text.encode("utf-8")
            key = (samples.family.name, labels)
            assert key not in found, f"{key} comes twice"
            found[key] = value
    return found
