"""The textfile collector: exposes *.prom files that jobs write and rename into place.

An invalid file is skipped and reported; the others are exposed. Of two conflicting files, the later by name is skipped.
Files are read when they change, in the collector's thread, never during a scrape.
"""

from __future__ import annotations

import glob
import logging
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gpu_exporter import metrics
from gpu_exporter.exposition import render
from gpu_exporter.jobs.exposition_parser import ExpositionError, ParsedFamily, parse_exposition
from gpu_exporter.metrics import FamilySamples, MetricFamily, single_sample

log = logging.getLogger(__name__)

_READ_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):  # the last is Windows', which lacks the others
    _READ_FLAGS |= getattr(os, _name, 0)

MAX_FILE_BYTES = 1024 * 1024
#: Limit for all files together; a file that would exceed it is skipped.
MAX_TOTAL_BYTES = 8 * 1024 * 1024
MAX_FILES = 10_000

#: node_exporter's names.
MTIME = MetricFamily("node_textfile_mtime_seconds", "gauge", "Modification time of each exposed file.", ("file",))
SCRAPE_ERROR = MetricFamily("node_textfile_scrape_error", "gauge", "1 if a file was skipped, else 0.")

_EXPORTER_PREFIXES = ("gpu_", "node_textfile_", "process_", metrics.DCGM_PREFIX, metrics.NVIDIA_SMI_PREFIX)
_HOST_PREFIXES = (
    "node_amazonefa_", "node_arp_", "node_bonding_", "node_boot_time_", "node_context_switches_",
    "node_cooling_device_", "node_cpu_", "node_disk_", "node_edac_", "node_entropy_", "node_filefd_",
    "node_filesystem_", "node_forks_", "node_hwmon_", "node_infiniband_", "node_intr_", "node_kernel_hung_",
    "node_load1", "node_load5", "node_md_", "node_memory_", "node_netstat_", "node_network_", "node_nf_conntrack_",
    "node_nvme_", "node_power_supply_", "node_pressure_", "node_procs_", "node_schedstat_", "node_scrape_collector_",
    "node_sockstat_", "node_softnet_", "node_thermal_zone_", "node_time_", "node_timex_", "node_udp_queues",
    "node_uname_", "node_vmstat_",
)  # fmt: skip


def reserved_name_matcher(host: bool) -> Callable[[str], bool]:
    """Whether a name is reserved for the exporter's own families; `host` includes those of the host collectors."""
    prefixes = _EXPORTER_PREFIXES + _HOST_PREFIXES if host else _EXPORTER_PREFIXES
    return lambda name: name.startswith(prefixes)


@dataclass(frozen=True, slots=True)
class _Textfile:
    """A file as last read: its families, or the reason why it was skipped."""

    signature: tuple[int, ...]
    size: int = 0
    mtime: float = 0.0
    families: dict[str, ParsedFamily] | None = None
    reason: str = ""


class FileSkipped(Exception):
    """The file is skipped; `reason` is a label value of gpu_exporter_textfile_error."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TextfilePage:
    """A RenderedPage: `page` is the merged text of all files, `run` refreshes it."""

    def __init__(self, directories: Sequence[str], is_reserved: Callable[[str], bool]) -> None:
        """`directories` may be glob patterns. Subdirectories are not read."""
        self.page = b""
        self._directories = tuple(directories)
        self._is_reserved = is_reserved
        self._files: dict[str, _Textfile] = {}
        self._directory_errors: dict[str, str] = {}
        self._logged_reasons: dict[str, str] = {}

    def run(self) -> None:
        """Read new and changed files. The page names each file or directory that fails."""
        files: dict[str, _Textfile] = {}
        errors: dict[str, str] = {}
        for path, reason in self._list_files():
            if reason:
                errors[path] = reason
            elif file := self._load(path):
                files[path] = file
        if not self.page or files != self._files or errors != self._directory_errors:
            self._files, self._directory_errors = files, errors
            self.page = self._render(dict(errors))

    def _list_files(self) -> Iterator[tuple[str, str]]:
        """(path, "") of each file in order, or (directory, reason) if it cannot be read."""
        for pattern in self._directories:
            for directory in sorted(glob.glob(pattern)) or [pattern]:
                try:
                    names = sorted(name for name in os.listdir(directory) if name.endswith(".prom"))
                except OSError as error:
                    self._log_once(directory, f"{error.strerror}; create the directory, or let the exporter read it")
                    yield directory, "unreadable"
                    continue
                for name in names[:MAX_FILES]:
                    yield os.path.join(directory, name), ""
                if len(names) > MAX_FILES:
                    self._log_once(directory, f"only the first {MAX_FILES} files are read")
                    yield directory, "too_many_files"

    def _load(self, path: str) -> _Textfile | None:
        """The file, cached if unchanged; None if it no longer exists."""
        try:
            current = os.stat(path)
        except FileNotFoundError:
            return _Textfile((), reason="unreadable") if os.path.islink(path) else None
        except OSError as error:
            self._log_once(path, str(error.strerror))
            return _Textfile((), reason="unreadable")
        cached = self._files.get(path)
        if cached and cached.signature == _stat_signature(current):
            return cached
        if not stat.S_ISREG(current.st_mode):  # opening a device can have side effects
            self._log_once(path, "not_a_file")
            return _Textfile(_stat_signature(current), reason="not_a_file")
        try:
            file = self._read(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._log_once(path, str(error.strerror))
            return _Textfile((), reason="unreadable")
        except FileSkipped as skip:
            self._log_once(path, skip.reason)
            return _Textfile(_stat_signature(current), reason=skip.reason)
        except ExpositionError as invalid:
            # Not the text of the line: the file may be a link to something that only the exporter may read.
            self._log_once(path, f"{invalid.reason}, {invalid}")
            return _Textfile(_stat_signature(current), reason=invalid.reason)
        self._logged_reasons.pop(path, None)
        return file

    def _read(self, path: str) -> _Textfile:
        """Raises OSError, FileSkipped or ExpositionError."""
        # O_NONBLOCK: opening a named pipe would wait for its writer.
        descriptor = os.open(path, _READ_FLAGS)
        with open(descriptor, "rb", buffering=0) as file:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise FileSkipped("not_a_file")
            if before.st_size > MAX_FILE_BYTES:
                raise FileSkipped("too_large")
            content = file.read(MAX_FILE_BYTES + 1)
            if _stat_signature(os.fstat(descriptor)) != _stat_signature(before) or len(content) != before.st_size:
                raise FileSkipped("being_written")
        try:
            families = parse_exposition(_decode(content))
        except UnicodeDecodeError:
            raise FileSkipped("not_utf8") from None
        if any(self._is_reserved(name) for family in families.values() for name in family.names):
            raise FileSkipped("reserved_name")
        return _Textfile(_stat_signature(before), len(content), before.st_mtime, families)

    def _render(self, errors: dict[str, str]) -> bytes:
        merged: dict[str, ParsedFamily] = {}
        owner_of_name: dict[str, str] = {}
        mtimes: dict[str, float] = {}
        total = 0
        for path, file in self._files.items():
            reason = file.reason
            if file.families is not None:
                reason = "too_large_together" if total + file.size > MAX_TOTAL_BYTES else ""
                reason = reason or _conflict(file.families, merged, owner_of_name)
                if reason:
                    self._log_once(path, f"{reason}, in combination with the files before it")
                else:
                    total += file.size
                    mtimes[_printable(path)] = file.mtime
                    _merge(file.families, merged, owner_of_name)
            if reason:
                errors[path] = reason
        rows = tuple(sorted({(_printable(path), reason): 1.0 for path, reason in errors.items()}.items()))
        self_samples = [single_sample(SCRAPE_ERROR, float(bool(errors)))]
        if rows:
            self_samples.append(FamilySamples(metrics.TEXTFILE_ERROR, rows))
        if mtimes:
            self_samples.append(FamilySamples(MTIME, tuple(((path,), mtime) for path, mtime in sorted(mtimes.items()))))
        return "".join(map(_format_family, merged.values())).encode() + render(self_samples)

    def _log_once(self, path: str, what: str) -> None:
        """Log once, until the message changes."""
        if self._logged_reasons.get(path) != what:
            if len(self._logged_reasons) > 2 * MAX_FILES:
                self._logged_reasons.clear()
            self._logged_reasons[path] = what
            log.warning("skipped textfile %s: %s", _printable(path), what)


def _stat_signature(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _printable(path: str) -> str:
    """As UTF-8: file names may contain any bytes, label values may not."""
    return os.fsencode(path).decode("utf-8", "replace")


def _decode(content: bytes) -> str:
    """The text, with line ends and without a mark as Windows programs write them. Raises UnicodeDecodeError."""
    return content.decode("utf-8-sig").replace("\r\n", "\n")


def _conflict(families: dict[str, ParsedFamily], merged: dict[str, ParsedFamily], owner_of_name: dict[str, str]) -> str:
    """The reason why these families cannot be merged; empty if they can.

    Another HELP is no reason: jobs of two versions of a program may run at once, and the first text serves both.
    """
    for name, family in families.items():
        if any(owner_of_name.get(part, name) != name for part in family.names):
            return "conflict"
        other = merged.get(name)
        if other is None:
            continue
        if other.type != family.type:
            return "conflict"
        if family.series.keys() & other.series.keys():
            return "duplicate_series"
    return ""


def _merge(families: dict[str, ParsedFamily], merged: dict[str, ParsedFamily], owner_of_name: dict[str, str]) -> None:
    for name, family in families.items():
        other = merged.setdefault(name, ParsedFamily(name, family.type))
        other.help = family.help if other.help is None else other.help
        other.series.update(family.series)
        owner_of_name.update(dict.fromkeys(family.names, name))


def _format_family(family: ParsedFamily) -> str:
    help_ = "Read from a textfile." if family.help is None else family.help
    lines = [f"# HELP {family.name} {help_}", f"# TYPE {family.name} {family.type}"]
    lines += [f"{series} {value}" for series, value in family.series.items()]
    return "\n".join(lines) + "\n"
