"""Settings: one definition for the command line, the YAML file and --help.

Each setting is one field. Flag and YAML key have the same name; in YAML a dot may also be a nesting level:

    web.listen-address: 127.0.0.1:9816
    collector: {host: false}
"""

from __future__ import annotations

import argparse
import difflib
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_exporter.host.base import DISK_EXCLUDE, FS_TYPES_EXCLUDE, MOUNT_POINTS_EXCLUDE

if TYPE_CHECKING:
    import yaml  # an exporter without a settings file does not need it


class SettingsError(Exception):
    """A setting is invalid. The message says where it is, what is wrong and how to fix it."""


def _setting_field(key: str, default: Any, help_: str, metavar: str = "VALUE") -> Any:
    return field(default=default, metadata={"key": key, "help": help_, "metavar": metavar})


def parse_duration(text: str) -> float:
    """`250ms`, `15s`, `5m`, `6h`, `7d` -> seconds. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a duration: use a number and a unit, such as 250ms, 15s, 5m, 6h or 7d")
    return float(match[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


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
        "collector.filesystem.mount-points-exclude", MOUNT_POINTS_EXCLUDE, "mount points to exclude", "REGEX"
    )
    fs_types_exclude: str = _setting_field(
        "collector.filesystem.fs-types-exclude", FS_TYPES_EXCLUDE, "file system types to exclude", "REGEX"
    )
    disk_exclude: str = _setting_field("collector.diskstats.device-exclude", DISK_EXCLUDE, "disks to exclude", "REGEX")
    net_exclude: str = _setting_field("collector.netdev.device-exclude", "", "network devices to exclude", "REGEX")
    log_level: str = _setting_field("log.level", "info", "debug, info, warning or error", "LEVEL")
    disabled: frozenset[str] = frozenset()

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
    options = vars(_build_parser(collectors).parse_args(argv))
    path = options.pop("config_file")
    values = dict(_read_config_file(Path(path), collectors)) if path else {}
    values.update((key, value) for key, value in options.items() if value is not None)
    disabled = frozenset(name for name in collectors if not values.pop(f"collector.{name}", True))
    by_key = {f.metadata["key"]: f.name for f in _setting_fields()}
    settings = ExporterSettings(**{by_key[key]: value for key, value in values.items()}, disabled=disabled)
    validate(settings)
    return settings


def _setting_fields() -> Iterator[Any]:
    return (f for f in fields(ExporterSettings) if "key" in f.metadata)


def _build_parser(collectors: Sequence[str]) -> argparse.ArgumentParser:
    from gpu_exporter import __version__

    parser = argparse.ArgumentParser(
        prog="gpu-exporter",
        description="Exports GPU, CPU, memory, disk and network metrics of this machine to Prometheus.",
        epilog="To try it without a GPU: gpu-exporter --simulate 8xH100-80GB:training",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gpu-exporter {__version__}")
    parser.add_argument(
        "--config.file", dest="config_file", metavar="FILE", help="YAML file; its keys are the names of the flags"
    )
    for f in _setting_fields():
        key = f.metadata["key"]
        if isinstance(f.default, bool):
            parser.add_argument(
                f"--{key}", dest=key, action=argparse.BooleanOptionalAction, default=None, help=f.metadata["help"]
            )
            continue
        default_text = str(f.default).replace("%", "%%") or "none"
        parser.add_argument(
            f"--{key}",
            dest=key,
            type=type(f.default),
            default=None,
            metavar=f.metadata["metavar"],
            help=f"{f.metadata['help']} (default: {default_text})",
        )
    switches = parser.add_argument_group("collectors", "all are enabled; --no-collector.NAME disables one")
    for name in collectors:
        switches.add_argument(
            f"--collector.{name}", dest=f"collector.{name}", action=argparse.BooleanOptionalAction, default=None
        )
        # BooleanOptionalAction adds --no-collector.NAME, as node_exporter spells it.
    return parser


def compose_without_aliases(text: str) -> yaml.Node | None:
    """The nodes of a YAML document. Raises yaml.YAMLError.

    Aliases are errors: a few lines of them stand for billions of nodes, and no settings here need them.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                mark = self.get_event().start_mark  # type: ignore[no-untyped-call]
                raise yaml.composer.ComposerError(None, None, "aliases are not supported; write the value out", mark)
            return super().compose_node(parent, index)

    node: yaml.Node | None = yaml.compose(text, Loader=Loader)
    return node


def _read_config_file(path: Path, collectors: Sequence[str]) -> Iterator[tuple[str, Any]]:
    import yaml  # 1 MiB that an exporter without a settings file does not need

    try:
        root = compose_without_aliases(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; give the path of a readable file to --config.file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not YAML: {error}") from error
    except RecursionError as error:
        raise SettingsError(f"{path}: too deeply nested; write one KEY: VALUE per line") from error
    if root is None:
        return
    types: dict[str, type] = {f.metadata["key"]: type(f.default) for f in _setting_fields()}
    types |= {f"collector.{name}": bool for name in collectors}
    for key, node in _flatten(root, yaml.MappingNode, ""):
        place = f"{path}:{node.start_mark.line + 1}: {key}"
        if key not in types:
            matches = difflib.get_close_matches(key, types, n=1)
            raise SettingsError(
                f"{place}: unknown key; " + (f"did you mean {matches[0]}?" if matches else "see --help")
            )
        value = yaml.safe_load(yaml.serialize(node))
        if type(value) is not types[key]:
            raise SettingsError(f"{place}: {value!r} must be {_TYPE_NAMES[types[key]]}")
        yield key, value


_TYPE_NAMES = {bool: "true or false", str: "a string (put it in quotes)", int: "an integer"}


def _flatten(node: Any, mapping: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, mapping):
        for key, value in node.value:
            yield from _flatten(value, mapping, f"{prefix}.{key.value}" if prefix else str(key.value))
    else:
        yield prefix, node


def validate(settings: ExporterSettings) -> None:
    """Check the values of these settings. Raises SettingsError."""
    for name in (
        "sampling_interval", "time_limit", "scontrol_interval", "slurm_queue_interval", "simulate_step",
        "simulate_history",
    ):  # fmt: skip
        text = getattr(settings, name)
        try:
            good = not text or parse_duration(text) > 0
        except ValueError as error:
            raise SettingsError(f"--{_flag_name(name)}: {error}") from error
        if not good or not (text or name == "simulate_history"):
            raise SettingsError(f"--{_flag_name(name)}: {text!r} must be greater than 0s, for example 1s")
    for name in ("mount_points_exclude", "fs_types_exclude", "disk_exclude", "net_exclude"):
        try:
            re.compile(getattr(settings, name))
        except re.error as error:
            raise SettingsError(f"--{_flag_name(name)}: not a regular expression: {error}") from error
    host, _, port = settings.listen_address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535 or (":" in host and not bracketed):
        raise SettingsError(
            f"--web.listen-address: {settings.listen_address!r} must be HOST:PORT, for example 127.0.0.1:9816, with an "
            "IPv6 address in brackets, for example [::1]:9816"
        )
    host, _, port = settings.node_exporter.rpartition(":")
    if settings.node_exporter and not (host and port.isdigit() and 0 < int(port) <= 65535):
        raise SettingsError(
            f"--collector.host.node-exporter: {settings.node_exporter!r} must be HOST:PORT, for example 127.0.0.1:9100"
        )
    if not settings.telemetry_path.startswith("/"):
        raise SettingsError(f"--web.telemetry-path: {settings.telemetry_path!r} must start with /")
    if settings.log_level not in ("debug", "info", "warning", "error"):
        raise SettingsError(f"--log.level: {settings.log_level!r} must be debug, info, warning or error")
    if settings.simulate_history and not settings.simulate:
        raise SettingsError("--simulate.history requires --simulate: only a simulated fleet has history to write")


def _flag_name(name: str) -> str:
    return next(str(f.metadata["key"]) for f in _setting_fields() if f.name == name)
