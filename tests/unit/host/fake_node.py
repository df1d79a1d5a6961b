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
    "sys/fs/file-nr": "2048\t0\t9223372036854775807\n",
    "sys/kernel/random/entropy_avail": "256\n",
    "sys/kernel/random/poolsize": "256\n",
    "sys/kernel/hung_task_detect_count": "2\n",
    "sys/net/netfilter/nf_conntrack_count": "77\n",
    "sys/net/netfilter/nf_conntrack_max": "262144\n",
    "net/stat/nf_conntrack": (
        "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop "
        "icmp_error  expect_new expect_create expect_delete search_restart\n"
        "0000004d  00000000 00000001 00000000 0000000a 00000010 0 0 00000002 00000003 00000004 00000005 "
        "00000000  00000000 00000000 00000000 00000006\n"
        "0000004d  00000000 00000001 00000000 0000000a 00000010 0 0 00000002 00000003 00000004 00000005 "
        "00000000  00000000 00000000 00000000 00000006\n"
    ),
    "net/netstat": (
        "TcpExt: SyncookiesSent ListenOverflows ListenDrops DelayedACKs TCPTimeouts\n"
        "TcpExt: 1 2 3 4 5\n"
        "IpExt: InNoRoutes InOctets OutOctets\nIpExt: 6 70000000000 80000000000\n"
    ),
    "net/snmp": (
        "Ip: Forwarding DefaultTTL\nIp: 1 64\n"
        "Tcp: RtoAlgorithm MaxConn ActiveOpens CurrEstab InSegs RetransSegs\nTcp: 1 -1 10 11 12 13\n"
        "Udp: InDatagrams NoPorts InErrors\nUdp: 21 22 23\n"
    ),
    "net/snmp6": "Ip6InReceives                   \t9\nIp6InOctets                     \t31\nUdp6NoPorts\t32\n",
    "net/sockstat": (
        "sockets: used 99\nTCP: inuse 4 orphan 1 tw 5 alloc 7 mem 3\nUDP: inuse 2 mem 6\nFRAG: inuse 0 memory 0\n"
    ),
    "net/sockstat6": "TCP6: inuse 8\nFRAG6: inuse 0 memory 0\n",
    "net/softnet_stat": (
        "00000010 00000001 00000002 00000000 00000000 00000000 00000000 00000000 00000000 00000003 00000004 "
        "00000005 00000000\n"
        "00000020 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 "
        "00000000 00000002\n"
    ),
    "net/arp": (
        "IP address       HW type     Flags       HW address            Mask     Device\n"
        "10.0.0.1         0x1         0x2         02:00:00:00:00:01     *        eth0\n"
        "10.0.0.2         0x1         0x2         02:00:00:00:00:02     *        eth0\n"
        "10.1.0.1         0x1         0x2         02:00:00:00:00:03     *        lo\n"
    ),
    "net/udp": (
        "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "  100: 00000000:0035 00000000:0000 07 00000001:00000100 00:00000000 00000000     0        0 1 2 0 0\n"
        "  101: 00000000:0045 00000000:0000 07 00000002:00000200 00:00000000 00000000     0        0 1 2 0 0\n"
    ),
    "vmstat": "nr_free_pages 5\npgpgin 1\npgpgout 2\npswpin 3\npswpout 4\npgfault 5\npgmajfault 6\noom_kill 7\n",
    "schedstat": (
        "version 15\ntimestamp 4\ncpu0 1 0 3 4 5 6 7000000000 8000000000 9\ndomain0 3 1 2 3\n"
        "cpu1 1 0 3 4 5 6 1500000000 2500000000 3\n"
    ),
    "mdstat": (
        "Personalities : [raid1] [raid6]\n"
        "md0 : active raid1 sdb1[1] sda1[0]\n      1000 blocks super 1.2 [2/2] [UU]\n\n"
        "md1 : active raid1 sdc1[2](F) sdd1[1](S) sdb2[0]\n      2000 blocks [2/1] [U_]\n"
        "      [=>...................]  recovery = 25.0% (500/2000) finish=1.0min speed=1K/sec\n\n"
        "md2 : active raid0 sde[0] sdf[1]\n      3000 blocks super 1.2 512k chunks\n\n"
        "unused devices: <none>\n"
    ),
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
#: Further files of a server.
HARDWARE = {
    "class/net/bonding_masters": "bond0\n",
    "class/infiniband/mlx5_0/ports/1/hw_counters/lifespan": "10\n",
    "class/infiniband/mlx5_0/ports/1/hw_counters/out_of_sequence": "21\n",
    "class/infiniband/mlx5_0/ports/1/hw_counters/np_cnp_sent": "22\n",
    "class/infiniband/rdmap0s6/board_id": "\n",
    "class/infiniband/rdmap0s6/ports/1/state": "4: ACTIVE\n",
    "class/infiniband/rdmap0s6/ports/1/rate": "100 Gb/sec (4X EDR)\n",
    "class/infiniband/rdmap0s6/ports/1/hw_counters/lifespan": "12\n",
    "class/infiniband/rdmap0s6/ports/1/hw_counters/rdma_read_bytes": "123456\n",
    "class/infiniband/rdmap0s6/ports/1/hw_counters/retrans_timeout_events": "3\n",
    "class/net/eth0/address": "02:00:00:00:00:0a\n",
    "class/net/eth0/flags": "0x1003\n",
    "class/net/eth0/duplex": "full\n",
    "class/net/eth0/carrier_changes": "6\n",
    "class/net/eth0/statistics/rx_nohandler": "4\n",
    "block/nvme0n1/device/model": "FAST 1TB                \n",
    "block/nvme0n1/device/serial": "S1\n",
    "block/nvme0n1/device/firmware_rev": "F2\n",
    "block/nvme0n1/wwid": "eui.01\n",
    "block/nvme0n1/queue/rotational": "0\n",
    "block/sda/device/model": "SLOW 8TB\n",
    "block/sda/queue/rotational": "1\n",
    "block/md1/md/degraded": "1\n",
    "block/md1/md/raid_disks": "2\n",
    "block/md2/md/raid_disks": "2\n",
    "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2400000\n",
    "devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "3800000\n",
    "devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
    "devices/system/cpu/cpu0/cpufreq/scaling_available_governors": "performance powersave\n",
    "devices/system/cpu/cpu0/topology/physical_package_id": "0\n",
    "devices/system/cpu/cpu0/topology/core_id": "3\n",
    "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "5\n",
    "devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "6\n",
    "devices/system/clocksource/clocksource0/available_clocksource": "tsc hpet\n",
    "devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
    "devices/system/edac/mc/mc0/ce_count": "10\n",
    "devices/system/edac/mc/mc0/ue_count": "1\n",
    "devices/system/edac/mc/mc0/ce_noinfo_count": "2\n",
    "devices/system/edac/mc/mc0/ue_noinfo_count": "0\n",
    "devices/system/edac/mc/mc0/csrow4/ce_count": "8\n",
    "devices/system/edac/mc/mc0/csrow4/ue_count": "1\n",
    "devices/system/edac/mc/mc0/csrow4/ch1_ce_count": "8\n",
    "devices/system/edac/mc/mc0/csrow4/ch1_dimm_label": "CPU#0channel#1\n",
    "devices/system/node/node0/meminfo": (
        "Node 0 MemTotal:       2048 kB\nNode 0 Active(anon):     16 kB\nNode 0 HugePages_Total:     3\n"
    ),
    "devices/system/node/node0/numastat": "numa_hit 100\nnuma_miss 7\n",
    "class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
    "class/thermal/thermal_zone0/temp": "-5500\n",
    "class/thermal/cooling_device0/type": "Processor\n",
    "class/thermal/cooling_device0/cur_state": "1\n",
    "class/thermal/cooling_device0/max_state": "10\n",
    "class/power_supply/AC/online": "1\n",
    "class/power_supply/BAT0/current_now": "-1500000\n",
    "class/power_supply/BAT0/temp": "315\n",
    "class/nvme/nvme0/model": "FAST 1TB\n",
    "class/nvme/nvme0/serial": "S1\n",
    "class/nvme/nvme0/firmware_rev": "F2\n",
    "class/nvme/nvme0/state": "live\n",
    "class/nvme/nvme0/cntlid": "7\n",
    "class/nvme/nvme0/nvme0n1/size": "1000\n",
    "class/nvme/nvme0/nvme0n1/nuse": "400\n",
    "class/nvme/nvme0/nvme0n1/queue/logical_block_size": "512\n",
    "class/hwmon/hwmon0/name": "nvme\n",
    "class/hwmon/hwmon0/temp1_input": "41850\n",
    "class/hwmon/hwmon0/temp1_label": "Composite\n",
    "class/hwmon/hwmon0/temp1_crit_alarm": "0\n",
    "class/hwmon/hwmon1/name": "nct6799\n",
    "class/hwmon/hwmon1/fan2_input": "1200\n",
    "class/hwmon/hwmon1/in0_input": "1024\n",
    "class/hwmon/hwmon1/power1_average": "65500000\n",
    "class/hwmon/hwmon1/pwm1": "128\n",
    "class/hwmon/hwmon1/energy1_input": "2500000\n",
    "class/net/bond0/bonding/slaves": "eth0 eth1\n",
    "class/net/bond0/lower_eth0/bonding_slave/mii_status": "up\n",
    "class/net/bond0/slave_eth1/bonding_slave/mii_status": "down\n",
}

#: Collectors of hardware and kernel features that a node may lack.
OPTIONAL = (
    "bonding", "conntrack", "cpufreq", "edac", "hwmon", "infiniband", "kernel_hung", "mdadm", "meminfo_numa", "nvme",
    "powersupplyclass", "pressure", "schedstat", "thermal_zone", "udp_queues",
)  # fmt: skip
#: Collectors that read no file, or do without.
WITHOUT_FILES = ("time", "timex", "uname")

#: The main file of each collector.
MAIN_FILE = {
    "cpu": "stat",
    "diskstats": "diskstats",
    "filesystem": "1/mounts",
    "loadavg": "loadavg",
    "meminfo": "meminfo",
    "netdev": "net/dev",
    "netstat": "net/netstat",
    "sockstat": "net/sockstat",
    "softnet": "net/softnet_stat",
    "stat": "stat",
    "vmstat": "vmstat",
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


def make_server(root: Path) -> HostSettings:
    """A node with sensors, ECC memory, a bond and other hardware."""
    settings = make_node(root)
    write(root / "sys", HARDWARE)
    return settings


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
