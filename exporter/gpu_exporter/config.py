"""Settings: one definition for the command line, the YAML file and --help.

Each setting is one field; its flag's name is its key in the file, where a dot may also be a level:

    web.listen-address: 127.0.0.1:9816
    collector: {host: false}
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from gpu_exporter.host.base import DISK_EXCLUDE, FS_TYPES_EXCLUDE, MOUNT_POINTS_EXCLUDE


class SettingsError(Exception):
    """A setting is not understood. The message names the place and tells the mend."""


def _setting_field(key: str, default: Any, help_: str, metavar: str = "VALUE") -> Any:
    return field(default=default, metadata={"key": key, "help": help_, "metavar": metavar})


def parse_duration(text: str) -> float:
    """`250ms`, `15s`, `5m`, `6h`, `7d` -> seconds. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a duration: write a number and a unit, as in 250ms, 15s, 5m, 6h or 7d")
    return float(match[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


@dataclass(frozen=True)
class Settings:
    listen_address: str = _setting_field(
        "web.listen-address", "127.0.0.1:9816", "where to serve; 0.0.0.0:9816 for all interfaces", "HOST:PORT"
    )
    web_config_file: str = _setting_field(
        "web.config.file", "", "TLS and users, as Prometheus' exporters have them", "FILE"
    )
    enable_lifecycle: bool = _setting_field(
        "web.enable-lifecycle",
        False,
        "let POST /-/release close the drivers' libraries for 2 minutes; SIGUSR1 does too",
    )
    telemetry_path: str = _setting_field("web.telemetry-path", "/metrics", "path of the metrics", "PATH")
    sampling_interval: str = _setting_field(
        "sampling.interval", "1s", "how often devices and host are read", "DURATION"
    )
    time_limit: str = _setting_field(
        "sampling.time-limit", "5s", "a collector that takes longer is reported as hung", "DURATION"
    )
    simulate: str = _setting_field("simulate", "", "simulate GPUs, as in 8xH100-80GB:training,2xT4-16GB:idle", "FLEET")
    simulate_seed: int = _setting_field("simulate.seed", 0, "another seed is another fleet of the same kind", "N")
    simulate_history: str = _setting_field(
        "simulate.history",
        "",
        "write this much of the simulated past to standard output as OpenMetrics, and stop",
        "DURATION",
    )
    simulate_step: str = _setting_field("simulate.step", "15s", "distance of the samples of that past", "DURATION")
    compat_dcgm: bool = _setting_field("compat.dcgm", False, "also serve the names of dcgm-exporter")
    state_directory: str = _setting_field(
        "state.directory", "", "where lost GPUs are remembered over a restart; empty: nowhere", "PATH"
    )
    textfile_directory: str = _setting_field(
        "collector.textfile.directory", "", "directory of *.prom files that jobs write; may be a pattern", "PATH"
    )
    pod_resources_socket: str = _setting_field(
        "collector.owners.pod-resources-socket", "/var/lib/kubelet/pod-resources/kubelet.sock", "of the kubelet", "PATH"
    )
    node_name: str = _setting_field(
        "node.name", "", "name of this machine, for a container that has another; empty: what uname says", "NAME"
    )
    path_procfs: str = _setting_field("path.procfs", "/proc", "where the host's proc is mounted", "PATH")
    path_sysfs: str = _setting_field("path.sysfs", "/sys", "where the host's sys is mounted", "PATH")
    path_rootfs: str = _setting_field("path.rootfs", "/", "where the host's root is mounted", "PATH")
    mount_points_exclude: str = _setting_field(
        "collector.filesystem.mount-points-exclude", MOUNT_POINTS_EXCLUDE, "mount points left out", "REGEX"
    )
    fs_types_exclude: str = _setting_field(
        "collector.filesystem.fs-types-exclude", FS_TYPES_EXCLUDE, "file system types left out", "REGEX"
    )
    disk_exclude: str = _setting_field("collector.diskstats.device-exclude", DISK_EXCLUDE, "disks left out", "REGEX")
    net_exclude: str = _setting_field("collector.netdev.device-exclude", "", "network devices left out", "REGEX")
    log_level: str = _setting_field("log.level", "info", "debug, info, warning or error", "LEVEL")
    disabled: frozenset[str] = frozenset()

    @property
    def nodename(self) -> str:
        return self.node_name or os.uname().nodename

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.listen_address.rpartition(":")
        return host.strip("[]"), int(port)


def load(argv: Sequence[str], collectors: Sequence[str]) -> Settings:
    """The settings of this command line, over those of its --config.file, over the defaults.

    `collectors` are the names that can be switched on and off. Raises SettingsError; --help and --version exit.
    """
    options = vars(_build_parser(collectors).parse_args(argv))
    path = options.pop("config_file")
    values = dict(_read_config_file(Path(path), collectors)) if path else {}
    values.update((key, value) for key, value in options.items() if value is not None)
    disabled = frozenset(name for name in collectors if not values.pop(f"collector.{name}", True))
    by_key = {f.metadata["key"]: f.name for f in _setting_fields()}
    settings = Settings(**{by_key[key]: value for key, value in values.items()}, disabled=disabled)
    _validate(settings)
    return settings


def _setting_fields() -> Iterator[Any]:
    return (f for f in fields(Settings) if "key" in f.metadata)


def _build_parser(collectors: Sequence[str]) -> argparse.ArgumentParser:
    from gpu_exporter import __version__

    parser = argparse.ArgumentParser(
        prog="gpu-exporter",
        description="Publishes GPU, CPU, memory, disk and network metrics of this machine for Prometheus.",
        epilog="Try it without a GPU: gpu-exporter --simulate 8xH100-80GB:training",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gpu-exporter {__version__}")
    parser.add_argument(
        "--config.file", dest="config_file", metavar="FILE", help="YAML with the same keys as the flags"
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
    switches = parser.add_argument_group("collectors", "all are on; --no-collector.NAME switches one off")
    for name in collectors:
        switches.add_argument(
            f"--collector.{name}", dest=f"collector.{name}", action=argparse.BooleanOptionalAction, default=None
        )
        # node_exporter spells it --no-collector.x, which is what argparse makes of it.
    return parser


def _read_config_file(path: Path, collectors: Sequence[str]) -> Iterator[tuple[str, Any]]:
    import yaml  # a node without a settings file does without its 1 MiB

    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; give the path of a readable file to --config.file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not YAML: {error}") from error
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
            raise SettingsError(f"{place}: {value!r} is not {_TYPE_NAMES[types[key]]}")
        yield key, value


_TYPE_NAMES = {bool: "true or false", str: "text (put it in quotes)", int: "a whole number"}


def _flatten(node: Any, mapping: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, mapping):
        for key, value in node.value:
            yield from _flatten(value, mapping, f"{prefix}.{key.value}" if prefix else str(key.value))
    else:
        yield prefix, node


def _validate(settings: Settings) -> None:
    for name in ("sampling_interval", "time_limit", "simulate_step", "simulate_history"):
        text = getattr(settings, name)
        try:
            good = not text or parse_duration(text) > 0
        except ValueError as error:
            raise SettingsError(f"--{_flag_name(name)}: {error}") from error
        if not good or not (text or name == "simulate_history"):
            raise SettingsError(f"--{_flag_name(name)}: {text!r} must be longer than nothing, as in 1s")
    for name in ("mount_points_exclude", "fs_types_exclude", "disk_exclude", "net_exclude"):
        try:
            re.compile(getattr(settings, name))
        except re.error as error:
            raise SettingsError(f"--{_flag_name(name)}: not a regular expression: {error}") from error
    host, _, port = settings.listen_address.rpartition(":")
    if not host or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise SettingsError(f"--web.listen-address: {settings.listen_address!r} is not HOST:PORT, as in 127.0.0.1:9816")
    if not settings.telemetry_path.startswith("/"):
        raise SettingsError(f"--web.telemetry-path: {settings.telemetry_path!r} must begin with /")
    if settings.log_level not in ("debug", "info", "warning", "error"):
        raise SettingsError(f"--log.level: {settings.log_level!r} is not debug, info, warning or error")
    if settings.simulate_history and not settings.simulate:
        raise SettingsError("--simulate.history needs --simulate: there is no other past to write")


def _flag_name(name: str) -> str:
    return next(str(f.metadata["key"]) for f in _setting_fields() if f.name == name)
