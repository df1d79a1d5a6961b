"""The programs under test and those around them: exporter, Prometheus, advisor, Alertmanager, and one small disk.

The exporter reads a simulated NVML. Exporter and advisor keep their state on a tmpfs of a few MiB, which a fault fills.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.allocation import SMOKE, gpus_by_uuid
from benchmarks.server_processes import free_port
from benchmarks.soak.processes import NotReadyError, Program
from tests.simulated_nvml.build import CONTROL_VARIABLE, build

DISK_MIB = 24
EVALUATION_SECONDS = 5
LEASE_LOAD = SMOKE
"""Its machines are those that the leases are given of."""


@dataclass(frozen=True)
class Stack:
    exporter: Program
    prometheus: Program
    alertmanager: Program
    advisor: Program
    disk: Path
    disk_is_small: bool
    """Whether the disk could be mounted; only root may."""

    @property
    def under_test(self) -> dict[str, Program]:
        return {"exporter": self.exporter, "advisor": self.advisor}


@contextmanager
def running(folder: Path, control: Path) -> Iterator[Stack]:
    """Start all; stop all at the end. Raises NotReadyError."""
    ports = [free_port() for _ in range(4)]
    with ExitStack() as stack:
        disk = folder / "disk"
        disk.mkdir()
        small = stack.enter_context(_small_disk(disk))
        exporter = _exporter(folder, control, disk, ports[0])
        prometheus = _prometheus(folder, ports[0], ports[1])
        alertmanager = _alertmanager(folder, ports[2])
        advisor = _advisor(folder, disk, ports)
        for program in (exporter, prometheus, alertmanager, advisor):
            stack.callback(program.stop)
            program.start()
        yield Stack(exporter, prometheus, alertmanager, advisor, disk, small)


@contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=0700", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _exporter(folder: Path, control: Path, disk: Path, port: int) -> Program:
    library = build(folder)
    command = [
        sys.executable, "-m", "gpu_exporter", f"--web.listen-address=127.0.0.1:{port}",
        f"--state.directory={disk}/exporter",
    ]  # fmt: skip
    environment = {
        "LD_LIBRARY_PATH": str(library.parent),
        CONTROL_VARIABLE: str(control),
        "MALLOC_ARENA_MAX": "2",  # as the unit and the image set it
    }
    return Program(command, port, "/metrics", folder / "exporter.log", environment)


def _prometheus(folder: Path, exporter_port: int, port: int) -> Program:
    config = {
        "global": {"scrape_interval": "5s", "scrape_timeout": "5s"},
        "scrape_configs": [
            {"job_name": "gpu-exporter", "static_configs": [{"targets": [f"127.0.0.1:{exporter_port}"]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        _binary("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
    ]  # fmt: skip
    return Program(command, port, "/-/ready", folder / "prometheus.log")


def _alertmanager(folder: Path, port: int) -> Program:
    config = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
    command = [
        _binary("prometheus-alertmanager"), f"--config.file={folder}/alertmanager.yml",
        f"--storage.path={folder}/alertmanager", f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=", "--log.level=error",
    ]  # fmt: skip
    return Program(command, port, "/-/ready", folder / "alertmanager.log")


def _advisor(folder: Path, disk: Path, ports: list[int]) -> Program:
    _, prometheus, alertmanager, port = ports
    nodes: dict[str, dict[str, int]] = {}
    for gpu in gpus_by_uuid(LEASE_LOAD).values():
        of_node = nodes.setdefault(gpu.node, {})
        of_node[gpu.gpu_type] = of_node.get(gpu.gpu_type, 0) + 1
    machines = [
        {"name": name, "gpus": [{"type": kind, "count": count} for kind, count in gpus.items()]}
        for name, gpus in nodes.items()
    ]
    (folder / "machines.yml").write_text(yaml.safe_dump({"nodes": machines}))
    settings = {
        "state_dir": f"{disk}/advisor",
        "source": {"prometheus": {"url": f"http://127.0.0.1:{prometheus}"}},
        "alertmanagers": [{"url": f"http://127.0.0.1:{alertmanager}"}],
        "web": {"listen_address": f"127.0.0.1:{port}"},
        "allocation": {"inventory_file": f"{folder}/machines.yml"},
        # Windows that are full within the warm-up: what is kept for them is not growth afterwards.
        "evaluation": {
            "interval_seconds": EVALUATION_SECONDS, "window_seconds": 60, "idle_window_seconds": 120,
            "step_seconds": 30, "history_seconds": 300, "min_coverage_ratio": 0.5,
        },
        "outcomes": {"settle_seconds": 60},
    }  # fmt: skip
    (folder / "advisor.yml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "gpu_advisor", "serve", "--config", f"{folder}/advisor.yml"]
    # The image sets no MALLOC_ARENA_MAX for the advisor, so neither does this.
    return Program(command, port, "/-/healthy", folder / "advisor.log")


def _binary(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise NotReadyError(f"{name} is not on PATH: run tests/get_servers.sh .venv/servers, and add its usr/bin")
    return path
