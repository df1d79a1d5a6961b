"""Shared by the host collectors: reading kernel files, parsing numbers, filtering devices."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from gpu_exporter.metrics import FamilySamples, MetricFamily

#: Bounds the cache: devices come and go, such as the network interfaces of containers.
MAX_CACHED_DEVICES = 4096
#: Digits of the largest unsigned 64-bit number, the largest that the kernel prints.
MAX_DIGITS = 20


def read_file(path: str) -> bytes:
    """The whole file, unbuffered: the kernel generates these files on read. Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        return file.readall() or b""


def parse_unsigned(text: bytes) -> float:
    """Parse an unsigned number. Raises ValueError."""
    if not text.isdigit() or len(text) > MAX_DIGITS:
        raise ValueError(f"not an unsigned 64-bit number: {text[:40]!r}")
    return float(text)


def parse_hex(text: bytes) -> float:
    """Parse an unsigned hexadecimal number, as in /proc/net. Raises ValueError."""
    if not text.isalnum() or len(text) > MAX_DIGITS:
        raise ValueError(f"not a hexadecimal number: {text[:40]!r}")
    return float(int(text, 16))


def read_number(path: str) -> float | None:
    """The unsigned number in a file of one value; None if it cannot be read, or is not such a number."""
    try:
        return parse_unsigned(read_file(path).strip())
    except (OSError, ValueError):
        return None


def read_label(path: str) -> str:
    """The text of a file of one value, as a label value; empty if it cannot be read."""
    try:
        return label_value(read_file(path).strip())
    except OSError:
        return ""


def list_folder(folder: str, pattern: str = ".+") -> list[str]:
    """The entries whose whole name matches, numbers in numeric order; empty if the folder cannot be read."""
    try:
        names = filter(re.compile(pattern).fullmatch, os.listdir(folder))
    except OSError:
        return []
    return sorted(names, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])


T = TypeVar("T")


class SlowlyRead(Generic[T]):
    """What `read` returned last, read again after `seconds`: for values that rarely change and cost many files."""

    def __init__(self, read: Callable[[], T], seconds: float, clock: Callable[[], float]) -> None:
        self._read = read
        self._seconds = seconds
        self._clock = clock
        self._read_at: float | None = None

    def value(self) -> T:
        """Raises what `read` raises."""
        now = self._clock()
        if self._read_at is None or now - self._read_at >= self._seconds:
            self._value = self._read()
            self._read_at = now
        return self._value

    def expire(self) -> None:
        """Read at the next call."""
        self._read_at = None


def label_value(text: bytes) -> str:
    """As UTF-8: names may contain any bytes, label values may not."""
    return text.decode("utf-8", "replace")


def compile_exclude_pattern(pattern: str, what: str) -> re.Pattern[str] | None:
    """Compile a pattern to search in names; None if it is empty. `what` names it in the ValueError."""
    if not pattern:
        return None
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{what}: {pattern!r} is not a regular expression: {error}") from error


class DeviceFilter:
    """Excludes devices by name, and caches the label values of the others."""

    def __init__(self, exclude: str, what: str) -> None:
        self._exclude = compile_exclude_pattern(exclude, what)
        self._labels_by_name: dict[bytes, tuple[str] | None] = {}

    def labels(self, name: bytes) -> tuple[str] | None:
        """The label values of the device, or None if it is excluded."""
        try:
            return self._labels_by_name[name]
        except KeyError:
            return self._add(name)

    def _add(self, name: bytes) -> tuple[str] | None:
        if len(self._labels_by_name) >= MAX_CACHED_DEVICES:
            self._labels_by_name.clear()
        shown = label_value(name)
        labels = None if self._exclude and self._exclude.search(shown) else (shown,)
        self._labels_by_name[name] = labels
        return labels


def samples_by_column(
    families: Sequence[MetricFamily | None], rows: Mapping[tuple[str, ...], Sequence[float | None]]
) -> list[FamilySamples]:
    """One family per column of a table with one row per device. None, or a short row, means no value."""
    found = []
    for i, family in enumerate(families):
        if family is None:
            continue
        values = [(labels, line[i]) for labels, line in rows.items() if i < len(line)]
        samples = tuple((labels, value) for labels, value in values if value is not None)
        if samples:
            found.append(FamilySamples(family, samples))
    return found
