"""Settings: one definition for the command line, the YAML file and --help.

Each setting is one field. Flag and YAML key have the same name; in YAML a dot may also be a nesting level:

    web.listen-address: 127.0.0.1:9816
    collector: {host: false}
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from gpu_exporter.config.errors import SettingsError
from gpu_exporter.config.file import read_config_file
from gpu_exporter.config.flags import parse_flags
from gpu_exporter.host.base import DISK_EXCLUDE, FS_TYPES_EXCLUDE, MOUNT_POINTS_EXCLUDE


def _setting_field(key: str, default: Any, help_: str, metavar: str = "VALUE", default_text: str = "") -> Any:
    """A field. `default_text` replaces its default in --help."""
    metadata = {"key": key, "help": help_, "metavar": metavar, "default_text": default_text}
    return field(default=default, metadata=metadata)


def parse_duration(text: str) -> float:
    """`250ms`, `15s`, `5m`, `6h`, `7d` -> seconds. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a duration: use a number and a unit, such as 250ms, 15s, 5m, 6h or 7d")
    return float(match[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


_NODE_EXPORTER_DEFAULT = "that of node_exporter"


@dataclass(frozen=True)
class ExporterSettings:
    listen_address: str = _setting_field(
        "web.listen-address", "127.0.0.1:9816", "address to listen on; 0.0.0.0:9816 for all interfaces", "HOST:PORT"
    )
    web_config_file: str = _setting_field(
        "web.config.file", "", "TLS and basic auth, in the format of the Prometheus exporter toolkit", "FILE"
    )
    enable_lifecycle: bool = _setting_field(
        "web.enable-lifecycle",
        False,
        "enable POST /-/release, which unloads the driver libraries for 2 minutes, and POST /-/reload, which reads the "
        "settings file again (as SIGUSR1 and SIGHUP always do)",
    )
    telemetry_path: str = _setting_field("web.telemetry-path", "/metrics", "path under which to expose metrics", "PATH")
    sampling_interval: str = _setting_field("sampling.interval", "1s", "how often to read GPUs and host", "DURATION")
    time_limit: str = _setting_field(
        "sampling.time-limit", "5s", "time after which a collector is reported as hung", "DURATION"
    )
    simulate: str = _setting_field(
        "simulate", "", "simulate GPUs, for example 8xH100-80GB:training,2xT4-16GB:idle", "FLEET"
    )
    simulate_seed: int = _setting_field("simulate.seed", 0, "random seed of the simulated fleet", "N")
    simulate_history: str = _setting_field(
        "simulate.history",
        "",
        "write simulated history of this length to standard output as OpenMetrics, and exit",
        "DURATION",
    )
    simulate_step: str = _setting_field("simulate.step", "15s", "sample interval of the simulated history", "DURATION")
    compat_dcgm: bool = _setting_field("compat.dcgm", False, "also expose dcgm-exporter's metric names")
    compat_nvidia_smi: bool = _setting_field(
        "compat.nvidia-smi", False, "also expose the metric names of nvidia_gpu_exporter"
    )
    state_directory: str = _setting_field(
        "state.directory",
        "",
        "directory that keeps the identities of known GPUs across restarts; empty to disable",
        "PATH",
    )
    textfile_directory: str = _setting_field(
        "collector.textfile.directory", "", "directory with *.prom files to expose; may be a glob pattern", "PATH"
    )
    pod_resources_socket: str = _setting_field(
        "collector.owners.pod-resources-socket",
        "/var/lib/kubelet/pod-resources/kubelet.sock",
        "socket of the kubelet's pod-resources API",
        "PATH",
    )
    slurm_config: str = _setting_field(
        "collector.owners.slurm-config",
        "",
        "directory of Slurm's slurm.conf and gres.conf; empty to search /etc/slurm and /run/slurm/conf",
        "PATH",
    )
    scontrol: str = _setting_field(
        "collector.owners.scontrol",
        "scontrol",
        "Slurm's scontrol, which names jobs and allocated GPUs where cgroups do not; empty to disable",
        "PATH",
    )
    scontrol_interval: str = _setting_field(
        "collector.owners.scontrol-interval", "1m", "how often to run scontrol", "DURATION"
    )
    slurm_queue: bool = _setting_field(
        "collector.slurm-queue",
        False,
        "expose the pending GPU jobs of the Slurm cluster, with squeue; enable it on one machine of the cluster",
    )
    slurm_queue_interval: str = _setting_field(
        "collector.slurm-queue.interval", "1m", "how often to run squeue", "DURATION"
    )
    node_name: str = _setting_field(
        "node.name", "", "node name, if the container's host name differs from it; empty to use uname", "NAME"
    )
    node_exporter: str = _setting_field(
        "collector.host.node-exporter",
        "",
        "address of a node_exporter on this machine; if it responds at startup, host collectors are disabled",
        "HOST:PORT",
    )
    path_procfs: str = _setting_field("path.procfs", "/proc", "mount point of the host's procfs", "PATH")
    path_sysfs: str = _setting_field("path.sysfs", "/sys", "mount point of the host's sysfs", "PATH")
    path_rootfs: str = _setting_field("path.rootfs", "/", "mount point of the host's root file system", "PATH")
    path_udev_data: str = _setting_field(
        "path.udev.data", "/run/udev/data", "udev's database, for the names and models of disks", "PATH"
    )
    mount_points_exclude: str = _setting_field(
        "collector.filesystem.mount-points-exclude",
        MOUNT_POINTS_EXCLUDE,
        "mount points to exclude",
        "REGEX",
        _NODE_EXPORTER_DEFAULT,
    )
    fs_types_exclude: str = _setting_field(
        "collector.filesystem.fs-types-exclude",
        FS_TYPES_EXCLUDE,
        "file system types to exclude",
        "REGEX",
        _NODE_EXPORTER_DEFAULT,
    )
    disk_exclude: str = _setting_field(
        "collector.diskstats.device-exclude", DISK_EXCLUDE, "disks to exclude", "REGEX", _NODE_EXPORTER_DEFAULT
    )
    net_exclude: str = _setting_field("collector.netdev.device-exclude", "", "network devices to exclude", "REGEX")
    log_level: str = _setting_field("log.level", "info", "debug, info, warning or error", "LEVEL")
    disabled: frozenset[str] = frozenset()
    places: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Where the settings file has a key, as `FILE:LINE: KEY`."""

    def place(self, key: str) -> str:
        """Where the value of this key comes from, for messages: its place in the settings file, or else its flag."""
        return self.places.get(key, f"--{key}")

    @property
    def nodename(self) -> str:
        return self.node_name or platform.node()

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.listen_address.rpartition(":")
        return host.strip("[]"), int(port)


def load_settings(argv: Sequence[str], collectors: Sequence[str]) -> ExporterSettings:
    """Load the settings: the command line overrides --config.file, which overrides the defaults.

    `collectors` are the names that --[no-]collector.NAME accepts. Raises SettingsError; --help and --version exit.
    """
    known = list(_setting_fields())
    options = parse_flags(argv, known, collectors)
    path = options.pop("config_file")
    types: dict[str, type] = {f.metadata["key"]: type(f.default) for f in known}
    types |= {f"collector.{name}": bool for name in collectors}
    from_file = read_config_file(Path(path), types) if path else {}
    values = {key: value for key, (_, value) in from_file.items()}
    flags = {key: value for key, value in options.items() if value is not None}
    values.update(flags)
    disabled = frozenset(name for name in collectors if not values.pop(f"collector.{name}", True))
    by_key = {f.metadata["key"]: f.name for f in known}
    places = {key: place for key, (place, _) in from_file.items() if key not in flags}
    settings = ExporterSettings(
        **{by_key[key]: value for key, value in values.items()}, disabled=disabled, places=places
    )
    validate(settings)
    return settings


def _setting_fields() -> Iterator[Any]:
    return (f for f in fields(ExporterSettings) if "key" in f.metadata)


def validate(settings: ExporterSettings) -> None:
    """Check the values of these settings. Raises SettingsError."""
    for name in (
        "sampling_interval", "time_limit", "scontrol_interval", "slurm_queue_interval", "simulate_step",
        "simulate_history",
    ):  # fmt: skip
        text, place = getattr(settings, name), settings.place(_key(name))
        try:
            good = not text or parse_duration(text) > 0
        except ValueError as error:
            raise SettingsError(f"{place}: {error}") from error
        if not good or not (text or name == "simulate_history"):
            raise SettingsError(f"{place}: {text!r} must be greater than 0s, for example 1s")
    for name in ("mount_points_exclude", "fs_types_exclude", "disk_exclude", "net_exclude"):
        text = getattr(settings, name)
        try:
            re.compile(text)
        except re.error as error:
            problem = f"{text!r} is not a regular expression: {error}; put a \\ before special characters"
            raise SettingsError(f"{settings.place(_key(name))}: {problem}") from error
    host, _, port = settings.listen_address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535 or (":" in host and not bracketed):
        raise SettingsError(
            f"{settings.place('web.listen-address')}: {settings.listen_address!r} must be HOST:PORT, for example "
            "127.0.0.1:9816, with an IPv6 address in brackets, for example [::1]:9816"
        )
    host, _, port = settings.node_exporter.rpartition(":")
    if settings.node_exporter and not (host and port.isdigit() and 0 < int(port) <= 65535):
        raise SettingsError(
            f"{settings.place('collector.host.node-exporter')}: {settings.node_exporter!r} must be HOST:PORT, "
            "for example 127.0.0.1:9100"
        )
    if not re.fullmatch(r"/(?!-/)[^\s?#]*", settings.telemetry_path):
        raise SettingsError(
            f"{settings.place('web.telemetry-path')}: {settings.telemetry_path!r} must be a path that starts with /, "
            "without spaces, ? and #, and not below /-/; for example /metrics"
        )
    if settings.log_level not in ("debug", "info", "warning", "error"):
        raise SettingsError(
            f"{settings.place('log.level')}: {settings.log_level!r} must be debug, info, warning or error"
        )
    if settings.simulate_history and not settings.simulate:
        raise SettingsError(
            f"{settings.place('simulate.history')} requires --simulate: only a simulated fleet has history to write"
        )


def _key(name: str) -> str:
    return next(str(f.metadata["key"]) for f in _setting_fields() if f.name == name)
