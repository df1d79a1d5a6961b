"""The history of a large fleet as text for promtool: an hour of gpu-exporter's series and a week of recorded ones.

The series come from the mappings, so that a new signal is included automatically.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from gpu_advisor.promql.expressions import Reduction, Selector, selectors_of
from gpu_advisor.sources.exporters.dialect import ExporterDialect
from gpu_advisor.sources.exporters.mapping_files import own_mappings
from gpu_advisor.sources.exporters.recording_rules import HOURLY_SERIES

GPUS_PER_NODE = 8
JOB = "gpu-exporter"
HOUR = 3600

#: Labels of a node's series besides its address.
NODE_ROWS: dict[str, tuple[str, ...]] = {
    "node_cpu_seconds_total": ('cpu="0",mode="idle"', 'cpu="0",mode="user"'),
    "node_disk_io_time_seconds_total": ('device="nvme0n1"', 'device="nvme1n1"'),
    "node_network_receive_bytes_total": ('device="eth0"', 'device="ib0"'),
    "node_network_transmit_bytes_total": ('device="eth0"', 'device="ib0"'),
    "node_network_speed_bytes": ('device="eth0"', 'device="ib0"'),
}


#: Reductions of a signal, and their windows in seconds.
REDUCTIONS: tuple[tuple[Reduction, int | None], ...] = (("last", None), ("mean", 60), ("rate", 60), ("coverage", 60))


def selectors() -> dict[str, set[Selector]]:
    """By metric, what our own mappings select of it. Companions' series are others'."""
    found: dict[str, set[Selector]] = {}
    for dialect in (ExporterDialect(mapping) for mapping in own_mappings() if not mapping.companion):
        for quantity in dialect.mapping.quantities:
            for reduction, window in REDUCTIONS:
                expression = dialect.expression(quantity, reduction, window)
                for select in selectors_of(expression) if expression else ():
                    found.setdefault(select.metric, set()).add(select)
    return found


def generate_hour(gpus: int, end: float, seconds: int = HOUR, step: int = 15) -> Iterator[str]:
    """Text in the order of time. What grows, grows at a pace of its own for each GPU; everything else stands still."""
    series = [*_gpu_prefixes(gpus), *_node_prefixes(gpus)]
    still = [f"{prefix}{value:.9g}" for prefix, value, slope in series if not slope]
    growing = [found for found in series if found[2]]
    for at in range(int(end) - seconds, int(end) + 1, step):
        elapsed = at - end + 2 * seconds
        tail = f" {at}\n"
        yield tail.join(still) + tail
        yield "".join(f"{prefix}{value + slope * elapsed:.9g}{tail}" for prefix, value, slope in growing)


#: dcgm-exporter's gauges, with a value for a busy GPU.
_DCGM_GAUGES = {
    "DCGM_FI_DEV_GPU_UTIL": 93, "DCGM_FI_DEV_FB_USED": 61_000, "DCGM_FI_DEV_FB_FREE": 20_000,
    "DCGM_FI_DEV_GPU_TEMP": 61, "DCGM_FI_DEV_POWER_USAGE": 590, "DCGM_FI_DEV_SM_CLOCK": 1900,
    "DCGM_FI_PROF_SM_ACTIVE": 0.7, "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": 0.4, "DCGM_FI_PROF_DRAM_ACTIVE": 0.5,
}  # fmt: skip

#: A GPU has 20 pods an hour.
POD_SECONDS = 180


def generate_churn(gpus: int, end: float, seconds: int = HOUR, step: int = 15) -> Iterator[str]:
    """dcgm-exporter's series with pod labels, which change every three minutes, at another time for each GPU."""
    for at in range(int(end) - seconds, int(end) + 1, step):
        lines = []
        for number, (uuid, node, index) in enumerate(_gpu_identities(gpus)):
            pod = f"job-{number}-{(at + 7 * number) // POD_SECONDS}"
            labels = (
                f'job="dcgm-exporter",instance="{node}:9400",UUID="{uuid}",gpu="{index}",modelName="NVIDIA H100",'
                f'Hostname="{node}",exported_namespace="batch",exported_pod="{pod}"'
            )
            lines += [f"{metric}{{{labels}}} {value} {at}\n" for metric, value in _DCGM_GAUGES.items()]
            if index == 0:
                lines.append(f'up{{job="dcgm-exporter",instance="{node}:9400"}} 1 {at}\n')
        yield "".join(lines)


def generate_week(gpus: int, end: float, days: int = 7) -> Iterator[str]:
    """The recorded series, hour by hour, and the daily one as it is now."""
    uuids = [uuid for uuid, _, _ in _gpu_identities(gpus)]
    for at in range(int(end) - days * 24 * HOUR, int(end) + 1, HOUR):
        for series in HOURLY_SERIES:
            for number, uuid in enumerate(uuids):
                yield f'{series.record}{{uuid="{uuid}"}} {(number % 97) / 100:.2f} {at}\n'
    for uuid in uuids:
        yield f'gpu:utilization_ratio:max1d{{uuid="{uuid}"}} 0.97 {int(end)}\n'


def import_openmetrics(lines: Iterator[str], file: Path, data: Path) -> None:
    """Into a Prometheus' data folder, by way of a file that is deleted. Raises CalledProcessError."""
    with file.open("w", buffering=1 << 20) as text:
        text.writelines(lines)
        text.write("# EOF\n")
    command = ["promtool", "tsdb", "create-blocks-from", "--max-block-duration=24h", "--quiet", "openmetrics"]
    subprocess.run([*command, str(file), str(data)], check=True, capture_output=True)
    file.unlink()


def _gpu_identities(gpus: int) -> Iterator[tuple[str, str, int]]:
    """uuid, node, index"""
    for number in range(gpus):
        yield (
            f"GPU-{number:08x}-4d2a-4c1e-9b7f-6a5e4d3c2b1a",
            f"node-{number // GPUS_PER_NODE:05d}",
            number % GPUS_PER_NODE,
        )


def _target(node: str) -> str:
    return f'job="{JOB}",instance="{node}:9816"'


def _gpu_prefixes(gpus: int) -> Iterator[tuple[str, float, float]]:
    """A series up to its value, its value at the begin, and its growth a second."""
    metrics = {name: found for name, found in selectors().items() if not name.startswith("node_")}
    for number, (uuid, node, index) in enumerate(_gpu_identities(gpus)):
        own = f'uuid="{uuid}",{_target(node)}'
        name = "NVIDIA H100 80GB HBM3" if number % 10 else "NVIDIA L4"
        identity = f'index="{index}",name="{name}",vendor="nvidia",pci_bus_id="00000000:1B:00.0",nodename="{node}"'
        yield f"gpu_info{{{own},{identity}}} ", 1, 0
        for metric, found in metrics.items():
            base, slope = _start_and_rate(metric, number)
            # Boards, no slices: of the selectors that differ in the uuid only, one.
            matches = {
                "".join(f',{m.label}="{m.value.split("|")[0]}"' for m in select.matchers if m.label != "uuid")
                for select in found
            }
            for match in sorted(matches):
                yield f"{metric}{{{own}{match}}} ", base, slope


def _start_and_rate(metric: str, number: int) -> tuple[float, float]:
    """Begin and growth of a GPU's series: one in fifty is idle, all others are well and have work."""
    busy = 0.0 if number % 50 == 0 else 0.91 + 0.09 * (number * 37 % 100) / 100
    shapes = {
        "gpu_up": (1.0, 0.0),
        "gpu_busy_seconds_total": (1e6, busy),
        "gpu_observed_seconds_total": (2e6, 1.0),
        "gpu_memory_total_bytes": (85520809984.0, 0.0),
        "gpu_memory_used_bytes": (73e9 if busy else 0.0, 0.0),
        "gpu_processes": (1.0 if busy else 0.0, 0.0),
        "gpu_temperature_celsius": (58.0 + number % 7, 0.0),
        "gpu_power_watts": (620.0 * busy + 70, 0.0),
        "gpu_power_limit_watts": (700.0, 0.0),
        "gpu_sm_clock_hertz": (1.98e9, 0.0),
        "gpu_sm_clock_max_hertz": (1.98e9, 0.0),
        "gpu_pcie_link_generation": (5.0, 0.0),
        "gpu_pcie_link_width": (16.0, 0.0),
        "gpu_pcie_receive_bytes_total": (1e12, 2e8 * busy),
        "gpu_pcie_transmit_bytes_total": (1e12, 2e8 * busy),
        "gpu_nvlink_receive_bytes_total": (1e12, 2e9 * busy),
    }
    activity = (busy * 0.8, 0.0) if metric.endswith("_ratio") else (0.0, 0.0)
    return shapes.get(metric, activity)


def _node_prefixes(gpus: int) -> Iterator[tuple[str, float, float]]:
    metrics = [name for name in selectors() if name.startswith("node_")]
    for node in dict.fromkeys(node for _, node, _ in _gpu_identities(gpus)):
        own = _target(node)
        yield f'node_uname_info{{nodename="{node}",{own}}} ', 1, 0
        yield f"up{{{own}}} ", 1, 0
        for metric in metrics:
            for row in NODE_ROWS.get(metric, ("",)):
                labels = f"{row},{own}" if row else own
                yield f"{metric}{{{labels}}} ", 1e9, 0.5 if metric.endswith("_total") else 0
