"""What the host collectors share: reading a small kernel file, its numbers, and which devices are wanted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gpu_exporter.metrics import FamilySamples, MetricFamily

#: Devices come and go (containers have a network interface each), so what is known of them must not grow for ever.
MAX_CACHED_DEVICES = 4096
#: Digits of the largest unsigned 64-bit number, the widest that the kernel prints.
MAX_DIGITS = 20


def read_file(path: str) -> bytes:
    """The whole file, unbuffered: the kernel makes these files up on reading. Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        return file.readall() or b""


def parse_unsigned(text: bytes) -> float:
    """A number that the kernel prints without a sign. Raises ValueError for anything else."""
    if not text.isdigit() or len(text) > MAX_DIGITS:
        raise ValueError(f"not an unsigned 64-bit number: {text[:40]!r}")
    return float(text)


def label_value(text: bytes) -> str:
    """Names may hold any bytes, label values only UTF-8."""
    return text.decode("utf-8", "replace")


def compile_exclude_pattern(pattern: str, what: str) -> re.Pattern[str] | None:
    """The compiled pattern, searched anywhere in the name; None if nothing is excluded. Raises ValueError."""
    if not pattern:
        return None
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{what}: {pattern!r} is not a regular expression: {error}") from error


class DeviceFilter:
    """The devices that are wanted, with the label values of each ready-made."""

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
    """One family a column of a table that has one line a device; a short line or None leaves the family out there."""
    found = []
    for i, family in enumerate(families):
        if family is None:
            continue
        values = [(labels, line[i]) for labels, line in rows.items() if i < len(line)]
        samples = tuple((labels, value) for labels, value in values if value is not None)
        if samples:
            found.append(FamilySamples(family, samples))
    return found
