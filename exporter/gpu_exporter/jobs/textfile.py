"""The textfile directory: *.prom files, written elsewhere and renamed into place, served as they are.

A file that cannot be served is skipped and named; the others are served. Of two files that do not agree on a family
the later by name is skipped. Files are read when they have changed, in a thread of their own, never during a scrape.
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

MAX_FILE_BYTES = 1024 * 1024
#: All together: a file that would go beyond is skipped.
MAX_TOTAL_BYTES = 8 * 1024 * 1024
MAX_FILES = 10_000

#: node_exporter's own.
MTIME = MetricFamily(
    "node_textfile_mtime_seconds", "gauge", "When each file that is served was last written, since 1970.", ("file",)
)
SCRAPE_ERROR = MetricFamily("node_textfile_scrape_error", "gauge", "1 if a file was skipped, 0 if none was.")

_EXPORTER_PREFIXES = ("gpu_", "node_textfile_", "DCGM_FI_")
_HOST_PREFIXES = (
    "node_boot_time_", "node_context_switches_", "node_cpu_", "node_disk_", "node_filesystem_", "node_forks_",
    "node_infiniband_", "node_intr_", "node_load1", "node_load5", "node_memory_", "node_network_", "node_pressure_",
    "node_procs_", "node_uname_",
)  # fmt: skip


def reserved(host: bool) -> Callable[[str], bool]:
    """Which names are the exporter's own; `host`: whether those of the host collectors are."""
    prefixes = _EXPORTER_PREFIXES + _HOST_PREFIXES if host else _EXPORTER_PREFIXES
    return lambda name: name.startswith(prefixes)


@dataclass(frozen=True, slots=True)
class _Textfile:
    """A file as it was read: its families, or why it has none."""

    signature: tuple[int, ...]
    size: int = 0
    mtime: float = 0.0
    families: dict[str, ParsedFamily] | None = None
    reason: str = ""


class FileSkipped(Exception):
    """The file is not served, for this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TextfilePage:
    """Has `page`, the prepared bytes of all files, and `run` to renew them: what a host collector's page has."""

    def __init__(self, directories: Sequence[str], reserved: Callable[[str], bool]) -> None:
        """`directories` may be patterns; those in a directory below are not read."""
        self.page = b""
        self._directories = tuple(directories)
        self._reserved = reserved
        self._files: dict[str, _Textfile] = {}
        self._directory_errors: dict[str, str] = {}
        self._logged_reasons: dict[str, str] = {}

    def run(self) -> None:
        """Look at the directories once. A file or directory that fails is named in the page."""
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
        """Paths to read, in order; or a directory and why it cannot be."""
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
        """The file, as known or read anew; None if it has gone."""
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
        if not stat.S_ISREG(current.st_mode):  # opening a device can have effects
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
            # The line's number and not its text: the file may be a link to what only the exporter may read.
            self._log_once(path, f"{invalid.reason}, {invalid}")
            return _Textfile(_stat_signature(current), reason=invalid.reason)
        self._logged_reasons.pop(path, None)
        return file

    def _read(self, path: str) -> _Textfile:
        """Raises OSError, Skipped, ExpositionError."""
        # Opening a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
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
            families = parse_exposition(content.decode("utf-8"))
        except UnicodeDecodeError:
            raise FileSkipped("not_utf8") from None
        if any(self._reserved(name) for family in families.values() for name in family.names):
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
                    self._log_once(path, f"{reason} with the files before it")
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
        """Log it, once for as long as it stays the same."""
        if self._logged_reasons.get(path) != what:
            if len(self._logged_reasons) > 2 * MAX_FILES:
                self._logged_reasons.clear()
            self._logged_reasons[path] = what
            log.warning("textfile %s is skipped: %s", _printable(path), what)


def _stat_signature(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _printable(path: str) -> str:
    """Names may hold any bytes, label values only UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")


def _conflict(families: dict[str, ParsedFamily], merged: dict[str, ParsedFamily], owner_of_name: dict[str, str]) -> str:
    """Why these families cannot stand beside those; empty text if they can."""
    for name, family in families.items():
        if any(owner_of_name.get(part, name) != name for part in family.names):
            return "conflict"
        other = merged.get(name)
        if other is None:
            continue
        if other.type != family.type:
            return "conflict"
        if other.help is not None and family.help is not None and other.help != family.help:
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
