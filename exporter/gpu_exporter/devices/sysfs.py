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

from gpu_exporter.metrics import Family
from gpu_exporter.snapshot import AbsentReason, Reading

LARGEST_FILE = 8192
"""Bytes. A sysfs file has at most a page."""

_REASONS = {
    errno.ENOENT: AbsentReason.UNSUPPORTED,
    errno.EOPNOTSUPP: AbsentReason.UNSUPPORTED,
    errno.EINVAL: AbsentReason.UNSUPPORTED,  # amdgpu's answer for a sensor that the chip does not have
    errno.ENODATA: AbsentReason.UNSUPPORTED,
    errno.EACCES: AbsentReason.NO_PERMISSION,
}
_GONE = (errno.ENOENT, errno.ENODEV, errno.ENXIO)


class NoValue(Exception):
    """There is no such value now. `gone` if the file itself went away, and with it perhaps the card."""

    def __init__(self, reason: AbsentReason, gone: bool = False) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.gone = gone


def read(path: str) -> bytes:
    """The whole of a small file. Raises NoValue.

    EPERM from the read itself is no lack of permission: amdgpu says so while a card resets or suspends.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        reason = AbsentReason.NO_PERMISSION if error.errno == errno.EPERM else _reason(error)
        raise NoValue(reason, error.errno in _GONE) from error
    try:
        return os.read(handle, LARGEST_FILE)
    except OSError as error:
        raise NoValue(_reason(error), error.errno in _GONE) from error
    finally:
        os.close(handle)


def _reason(error: OSError) -> AbsentReason:
    return _REASONS.get(error.errno or 0, AbsentReason.ERROR)


def text(path: str) -> str:
    """The file as one line of text, empty if it cannot be read."""
    try:
        return read(path).decode("utf-8", "replace").strip()
    except NoValue:
        return ""


def number(raw: bytes) -> int:
    """A decimal number. Raises NoValue for anything else."""
    digits = raw.strip()
    if not digits.lstrip(b"-").isdigit() or len(digits) > 20:
        raise NoValue(AbsentReason.ERROR)
    try:
        return int(digits)
    except ValueError as error:  # "--5"
        raise NoValue(AbsentReason.ERROR) from error


Convert = Callable[[bytes], float]


def scaled(top: float, lowest: float = 0, times: float = 1, per: float = 1, nothing: int | None = None) -> Convert:
    """`raw * times / per` if raw is from `lowest` to `top`, both in the file's unit; `nothing` means "not measured"."""

    def convert(raw: bytes) -> float:
        value = number(raw)
        if value == nothing:
            raise NoValue(AbsentReason.UNSUPPORTED)
        if not lowest <= value <= top:
            raise NoValue(AbsentReason.ERROR)
        return value * times / per

    return convert


def entry(name: bytes, convert: Convert) -> Convert:
    """The value of the line that has this name, in a file of lines like `ue: 0`."""

    def converted(raw: bytes) -> float:
        for line in raw.splitlines():
            key, _, value = line.partition(b":")
            if key.strip() == name:
                return convert(value)
        raise NoValue(AbsentReason.ERROR)

    return converted


PERCENT = scaled(100, per=100)
BYTES = scaled(2**50)
COUNT = scaled(2**63)
MILLICELSIUS = scaled(200_000, lowest=-50_000, per=1000)
MICROWATTS = scaled(10**11, per=10**6, nothing=0)
"""No GPU that is awake draws 0 W, and no limit is 0 W: amdgpu's second dies and a disabled limit say so."""

_GENERATIONS = {"2.5": 1, "5.0": 2, "8.0": 3, "16.0": 4, "32.0": 5, "64.0": 6}


def link_generation(raw: bytes) -> float:
    """`16.0 GT/s PCIe` -> 4. Raises NoValue; an integrated GPU has `Unknown`."""
    words = raw.decode("ascii", "replace").split()
    generation = _GENERATIONS.get(words[0]) if words else None
    if generation is None:
        raise NoValue(AbsentReason.UNSUPPORTED if words[:1] == ["Unknown"] else AbsentReason.ERROR)
    return generation


LINK_WIDTH = scaled(32, lowest=1, nothing=0)


class Line(NamedTuple):
    """One file that is one value of one family. `labels` are those after `uuid`."""

    family: Family
    path: str
    convert: Convert
    labels: tuple[str, ...] = ()


@dataclass
class Values:
    """What one reading of a card brought. `gone` if a file went away meanwhile."""

    readings: list[Reading] = field(default_factory=list)
    absent: dict[Family, AbsentReason] = field(default_factory=dict)
    gone: bool = False

    def add(self, family: Family, value: float, *labels: str) -> None:
        self.readings.append(Reading(family, value, labels))

    def lack(self, families: Iterable[Family], why: NoValue) -> None:
        self.absent.update(dict.fromkeys(families, why.reason))
        self.gone |= why.gone

    def take(self, lines: Iterable[Line]) -> None:
        for line in lines:
            try:
                self.readings.append(Reading(line.family, line.convert(read(line.path)), line.labels))
            except NoValue as why:
                self.lack((line.family,), why)

    def value(self, family: Family) -> float | None:
        return next((reading.value for reading in self.readings if reading.family is family), None)


def existing(lines: Iterable[Line]) -> tuple[Line, ...]:
    """Those whose file there is, the first of a family and its labels: alternatives are given in order."""
    chosen: dict[tuple[str, tuple[str, ...]], Line] = {}
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
        return error.errno not in (*_GONE, errno.ENOTDIR)
    return True


def names(folder: str, pattern: str) -> list[str]:
    """The entries of a folder that match, in order; none if there is no such folder."""
    try:
        return sorted(filter(re.compile(pattern).fullmatch, os.listdir(folder)))
    except OSError:
        return []


def hwmons(device: str) -> list[str]:
    """The folders of a device's sensors."""
    return [f"{device}/hwmon/{name}" for name in names(f"{device}/hwmon", r"hwmon\d+")]


def labelled(hwmon: str, kind: str) -> dict[str, str]:
    """Label -> path without `_input`, as in `temp2_label` saying `junction`."""
    found = {}
    for name in names(hwmon, rf"{kind}\d+_label"):
        found[text(f"{hwmon}/{name}")] = f"{hwmon}/{name.removesuffix('_label')}"
    return found


def machine_part(sysfs: str, procfs: str) -> str:
    """Eight digits that tell machines apart, for GPUs that have nothing but a PCI address, which all machines share.

    The board's own number needs root; without it, it is the host name.
    """
    own = text(f"{sysfs}/class/dmi/id/product_uuid") or text(f"{procfs}/sys/kernel/hostname")
    return hashlib.sha256(own.encode()).hexdigest()[:8]
