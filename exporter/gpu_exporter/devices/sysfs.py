"""Values in sysfs files: parsers, units, and the reason for each value that is absent.

Kernel documents: Documentation/filesystems/sysfs.rst (one value per file, generated on read), hwmon/sysfs-interface.rst
(millidegrees, microwatts, microjoules), ABI/testing/sysfs-bus-pci (`current_link_*`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from gpu_exporter.metrics import MetricFamily
from gpu_exporter.snapshot import AbsenceReason

MAX_SYSFS_FILE_BYTES = 8192
"""A sysfs file has at most one page of memory, 4 KiB on most machines."""

_ENOTSUPP = 524
"""The kernel's own "not supported", which some drivers let through to user space (include/linux/errno.h)."""

_REASON_BY_ERRNO = {
    _ENOTSUPP: AbsenceReason.UNSUPPORTED,
    errno.ENOENT: AbsenceReason.UNSUPPORTED,
    errno.EOPNOTSUPP: AbsenceReason.UNSUPPORTED,
    errno.EINVAL: AbsenceReason.UNSUPPORTED,  # amdgpu, for a sensor that the chip does not have
    errno.ENODATA: AbsenceReason.UNSUPPORTED,
    errno.EACCES: AbsenceReason.NO_PERMISSION,
}
_CLOSE_ON_EXEC = getattr(os, "O_CLOEXEC", 0)
"""Not on Windows, which has no sysfs either."""

_MISSING_ERRNOS = (errno.ENOENT, errno.ENODEV, errno.ENXIO)


class SysfsValueError(Exception):
    """The value is absent. `file_missing`: the file does not exist, and the card may be lost."""

    def __init__(self, reason: AbsenceReason, file_missing: bool = False) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.file_missing = file_missing


def read_file(path: str) -> bytes:
    """Read a small file. Raises SysfsValueError.

    EPERM from read() does not mean a lack of permission: amdgpu returns it while a card resets or suspends.
    """
    try:
        handle = os.open(path, os.O_RDONLY | _CLOSE_ON_EXEC)
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
    """The stripped text of a file; empty if it cannot be read."""
    try:
        return read_file(path).decode("utf-8", "replace").strip()
    except SysfsValueError:
        return ""


def parse_int(raw: bytes) -> int:
    """Parse a decimal integer. Raises SysfsValueError."""
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
    """A parser for `raw * times / per` with raw between `min_value` and `max_value`, in the file's unit.

    `unmeasured` is the raw value that means "not measured".
    """

    def convert(raw: bytes) -> float:
        value = parse_int(raw)
        if value == unmeasured:
            raise SysfsValueError(AbsenceReason.UNSUPPORTED)
        if not min_value <= value <= max_value:
            raise SysfsValueError(AbsenceReason.ERROR)
        return value * times / per

    return convert


def keyed_value(name: bytes, convert: ValueParser) -> ValueParser:
    """A parser for the line with this name, in a file with lines such as `ue: 0`."""

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
"""0 means "not measured": the second die of a package, or a disabled limit, reads 0 in amdgpu."""

_GENERATIONS = {"2.5": 1, "5.0": 2, "8.0": 3, "16.0": 4, "32.0": 5, "64.0": 6}


def link_generation(raw: bytes) -> float:
    """`16.0 GT/s PCIe` -> 4. Raises SysfsValueError; an integrated GPU reads `Unknown`."""
    words = raw.decode("ascii", "replace").split()
    generation = _GENERATIONS.get(words[0]) if words else None
    if generation is None:
        raise SysfsValueError(AbsenceReason.UNSUPPORTED if words[:1] == ["Unknown"] else AbsenceReason.ERROR)
    return generation


LINK_WIDTH = scaled_int(32, min_value=1, unmeasured=0)


class SysfsSource(NamedTuple):
    """A file that has one value of a family. `labels` are those after `uuid`."""

    family: MetricFamily
    path: str
    convert: ValueParser
    labels: tuple[str, ...] = ()


def select_existing(lines: Iterable[SysfsSource]) -> tuple[SysfsSource, ...]:
    """The sources whose file exists; of alternatives for one family and labels, the first."""
    chosen: dict[tuple[str, tuple[str, ...]], SysfsSource] = {}
    for line in lines:
        key = (line.family.name, line.labels)
        if key not in chosen and _exists(line.path):
            chosen[key] = line
    return tuple(chosen.values())


def _exists(path: str) -> bool:
    """Unlike os.path.exists, True for a file in a folder without permission: reading it gives the reason."""
    try:
        os.stat(path)
    except OSError as error:
        return error.errno not in (*_MISSING_ERRNOS, errno.ENOTDIR)
    return True


def list_names(folder: str, pattern: str) -> list[str]:
    """The sorted entries of a folder that match; empty if the folder does not exist."""
    try:
        return sorted(filter(re.compile(pattern).fullmatch, os.listdir(folder)))
    except OSError:
        return []


def hwmon_paths(device: str) -> list[str]:
    """The hwmon folders of a device."""
    return [f"{device}/hwmon/{name}" for name in list_names(f"{device}/hwmon", r"hwmon\d+")]


def paths_by_label(hwmon: str, kind: str) -> dict[str, str]:
    """Label -> path without `_input`: if `temp2_label` reads `junction`, {"junction": ".../temp2"}."""
    found = {}
    for name in list_names(hwmon, rf"{kind}\d+_label"):
        found[read_text(f"{hwmon}/{name}")] = f"{hwmon}/{name.removesuffix('_label')}"
    return found


def machine_hash(sysfs: str, procfs: str) -> str:
    """Eight hexadecimal digits that identify the machine, for GPUs without any other unique id than a PCI address.

    Made from the mainboard's product_uuid, which only root can read, from the serial number in the device tree
    (Jetson), or else from the host name.
    """
    own = (
        read_text(f"{sysfs}/class/dmi/id/product_uuid")
        or read_text(f"{sysfs}/firmware/devicetree/base/serial-number")
        or read_text(f"{procfs}/sys/kernel/hostname")
    )
    return hashlib.sha256(own.encode()).hexdigest()[:8]
