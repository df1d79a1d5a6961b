"""Values in small kernel files: a reason for each that cannot be had, units, and the file of each family.

Kernel documents: Documentation/filesystems/sysfs.rst (one value a file, made up on reading), hwmon/sysfs-interface.rst
(millidegrees, microwatts, microjoules), ABI/testing/sysfs-bus-pci (`current_link_*`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from gpu_exporter.metrics import MetricFamily
from gpu_exporter.snapshot import AbsenceReason, MetricReading

MAX_SYSFS_FILE_BYTES = 8192
"""Bytes. A sysfs file has at most a page."""

_REASON_BY_ERRNO = {
    errno.ENOENT: AbsenceReason.UNSUPPORTED,
    errno.EOPNOTSUPP: AbsenceReason.UNSUPPORTED,
    errno.EINVAL: AbsenceReason.UNSUPPORTED,  # amdgpu's answer for a sensor that the chip does not have
    errno.ENODATA: AbsenceReason.UNSUPPORTED,
    errno.EACCES: AbsenceReason.NO_PERMISSION,
}
_MISSING_ERRNOS = (errno.ENOENT, errno.ENODEV, errno.ENXIO)


class SysfsValueError(Exception):
    """There is no such value now. `gone` if the file itself went away, and with it perhaps the card."""

    def __init__(self, reason: AbsenceReason, gone: bool = False) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.gone = gone


def read(path: str) -> bytes:
    """The whole of a small file. Raises SysfsValueError.

    EPERM from the read itself is no lack of permission: amdgpu says so while a card resets or suspends.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        reason = AbsenceReason.NO_PERMISSION if error.errno == errno.EPERM else _reason(error)
        raise SysfsValueError(reason, error.errno in _MISSING_ERRNOS) from error
    try:
        return os.read(handle, MAX_SYSFS_FILE_BYTES)
    except OSError as error:
        raise SysfsValueError(_reason(error), error.errno in _MISSING_ERRNOS) from error
    finally:
        os.close(handle)


def _reason(error: OSError) -> AbsenceReason:
    return _REASON_BY_ERRNO.get(error.errno or 0, AbsenceReason.ERROR)


def read_text(path: str) -> str:
    """The file as one line of text, empty if it cannot be read."""
    try:
        return read(path).decode("utf-8", "replace").strip()
    except SysfsValueError:
        return ""


def number(raw: bytes) -> int:
    """A decimal number. Raises SysfsValueError for anything else."""
    digits = raw.strip()
    if not digits.lstrip(b"-").isdigit() or len(digits) > 20:
        raise SysfsValueError(AbsenceReason.ERROR)
    try:
        return int(digits)
    except ValueError as error:  # "--5"
        raise SysfsValueError(AbsenceReason.ERROR) from error


ValueParser = Callable[[bytes], float]


def scaled_int(
    max_value: float, min_value: float = 0, times: float = 1, per: float = 1, unmeasured: int | None = None
) -> ValueParser:
    """`raw * times / per` if raw is from `min_value` to `max_value`, both in the file's unit; `unmeasured` means "not measured"."""

    def convert(raw: bytes) -> float:
        value = number(raw)
        if value == unmeasured:
            raise SysfsValueError(AbsenceReason.UNSUPPORTED)
        if not min_value <= value <= max_value:
            raise SysfsValueError(AbsenceReason.ERROR)
        return value * times / per

    return convert


def keyed_value(name: bytes, convert: ValueParser) -> ValueParser:
    """The value of the line that has this name, in a file of lines like `ue: 0`."""

    def converted(raw: bytes) -> float:
        for line in raw.splitlines():
            key, _, value = line.partition(b":")
            if key.strip() == name:
                return convert(value)
        raise SysfsValueError(AbsenceReason.ERROR)

    return converted


PERCENT = scaled_int(100, per=100)
BYTES = scaled_int(2**50)
COUNT = scaled_int(2**63)
MILLICELSIUS = scaled_int(200_000, min_value=-50_000, per=1000)
MICROWATTS = scaled_int(10**11, per=10**6, unmeasured=0)
"""No GPU that is awake draws 0 W, and no limit is 0 W: amdgpu's second dies and a disabled limit say so."""

_GENERATIONS = {"2.5": 1, "5.0": 2, "8.0": 3, "16.0": 4, "32.0": 5, "64.0": 6}


def link_generation(raw: bytes) -> float:
    """`16.0 GT/s PCIe` -> 4. Raises SysfsValueError; an integrated GPU has `Unknown`."""
    words = raw.decode("ascii", "replace").split()
    generation = _GENERATIONS.get(words[0]) if words else None
    if generation is None:
        raise SysfsValueError(AbsenceReason.UNSUPPORTED if words[:1] == ["Unknown"] else AbsenceReason.ERROR)
    return generation


LINK_WIDTH = scaled_int(32, min_value=1, unmeasured=0)


class SysfsSource(NamedTuple):
    """One file that is one value of one family. `labels` are those after `uuid`."""

    family: MetricFamily
    path: str
    convert: ValueParser
    labels: tuple[str, ...] = ()


@dataclass
class SysfsReadings:
    """What one reading of a card brought. `gone` if a file went away meanwhile."""

    readings: list[MetricReading] = field(default_factory=list)
    absent: dict[MetricFamily, AbsenceReason] = field(default_factory=dict)
    gone: bool = False

    def add(self, family: MetricFamily, value: float, *labels: str) -> None:
        self.readings.append(MetricReading(family, value, labels))

    def add_absent(self, families: Iterable[MetricFamily], why: SysfsValueError) -> None:
        self.absent.update(dict.fromkeys(families, why.reason))
        self.gone |= why.gone

    def read_sources(self, lines: Iterable[SysfsSource]) -> None:
        for line in lines:
            try:
                self.readings.append(MetricReading(line.family, line.convert(read(line.path)), line.labels))
            except SysfsValueError as why:
                self.add_absent((line.family,), why)

    def value(self, family: MetricFamily) -> float | None:
        return next((reading.value for reading in self.readings if reading.family is family), None)


def select_existing(lines: Iterable[SysfsSource]) -> tuple[SysfsSource, ...]:
    """Those whose file there is, the first of a family and its labels: alternatives are given in order."""
    chosen: dict[tuple[str, tuple[str, ...]], SysfsSource] = {}
    for line in lines:
        key = (line.family.name, line.labels)
        if key not in chosen and _exists(line.path):
            chosen[key] = line
    return tuple(chosen.values())


def _exists(path: str) -> bool:
    """Unlike os.path.exists, a file in a folder that we may not enter counts: reading it tells why not."""
    try:
        os.stat(path)
    except OSError as error:
        return error.errno not in (*_MISSING_ERRNOS, errno.ENOTDIR)
    return True


def list_names(folder: str, pattern: str) -> list[str]:
    """The entries of a folder that match, in order; none if there is no such folder."""
    try:
        return sorted(filter(re.compile(pattern).fullmatch, os.listdir(folder)))
    except OSError:
        return []


def hwmon_paths(device: str) -> list[str]:
    """The folders of a device's sensors."""
    return [f"{device}/hwmon/{name}" for name in list_names(f"{device}/hwmon", r"hwmon\d+")]


def paths_by_label(hwmon: str, kind: str) -> dict[str, str]:
    """Label -> path without `_input`, as in `temp2_label` saying `junction`."""
    found = {}
    for name in list_names(hwmon, rf"{kind}\d+_label"):
        found[read_text(f"{hwmon}/{name}")] = f"{hwmon}/{name.removesuffix('_label')}"
    return found


def machine_hash(sysfs: str, procfs: str) -> str:
    """Eight digits that tell machines apart, for GPUs that have nothing but a PCI address, which all machines share.

    The board's own number needs root; without it, it is the host name.
    """
    own = read_text(f"{sysfs}/class/dmi/id/product_uuid") or read_text(f"{procfs}/sys/kernel/hostname")
    return hashlib.sha256(own.encode()).hexdigest()[:8]
