"""Huawei Ascend NPUs through the table of `npu-smi info`, Huawei's own tool.

Manual: the "npu-smi Command Reference" of each product (support.huawei.com, hiascend.com). Columns are found by the
names in the header, so that widths and versions do not matter. The tool takes about a second: it runs every 15 seconds,
and its last output is used until then.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gpu_exporter import metrics
from gpu_exporter.devices.base import DriverUnavailable
from gpu_exporter.devices.card_readings import CardReadings
from gpu_exporter.devices.meters import BusyMeter, BusySource
from gpu_exporter.devices.sysfs import machine_hash
from gpu_exporter.metrics import MetricFamily
from gpu_exporter.snapshot import AbsenceReason, DeviceIdentity, DeviceReading, DownReason, DriverState

QUERY_INTERVAL_SECONDS = 15.0
COMMAND_TIMEOUT_SECONDS = 4.0
"""Less than the sampler's time limit, so that this driver can report the reason."""

COMMAND = "npu-smi"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin"
"""Where Huawei's installer puts the tool; searched after PATH, which may lack it in a service."""

_ADDRESS = re.compile(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]")
_MIB = 2.0**20
_NOT_AVAILABLE = ("NA", "N/A", "-", "--")
_MAX_VALUES = {"Power(W)": 5000.0, "Temp(C)": 200.0, "AICore(%)": 100.0}

TableRow = dict[str, str]


@dataclass(frozen=True, slots=True)
class Chip:
    """One chip: the rows of its NPU and of itself, by column, and the version of the tool."""

    npu_row: TableRow
    chip_row: TableRow
    version: str

    @property
    def key(self) -> str:
        """Identifies the chip on this machine: its PCI address, or else its numbers."""
        address = self.chip_row.get("Bus-Id", "")
        if _ADDRESS.fullmatch(address):
            return address.lower()
        return f"npu{self.npu_row.get('NPU', '')}-chip{self.chip_row.get('Chip', '')}"


class Word(NamedTuple):
    """A word of a cell, and where it starts in the cell."""

    text: str
    start: int


Cell = list[Word]


def parse_npu_smi(output: str) -> list[Chip]:
    """Parse the chips of the table, in order; other lines are ignored.

    A row with an empty cell, or with fewer words than columns, has the values that are there.
    """
    heads: dict[str, list[Cell]] = {}
    chips: list[Chip] = []
    npu: TableRow | None = None
    version = ""
    for line in output.splitlines():
        if not line.lstrip().startswith("|"):
            continue
        if "Process" in line and heads:
            break  # the process table comes last
        cells = [_split_words(cell) for cell in line.strip().strip("|").split("|")]
        if match := re.search(r"Version:\s*(\S+)", line):
            version = match[1]
        elif cells[0] and cells[0][0].text in ("NPU", "Chip"):
            heads[cells[0][0].text] = cells
        elif len(heads) == 2 and len(cells) == len(heads["NPU"]) and _is_row(cells):
            # The row of the NPU precedes that of each chip.
            if _is_npu_row(cells, npu is not None):
                npu = _row(heads["NPU"], cells)
            elif npu is not None:
                chip = _row(heads["Chip"], cells)
                siblings = sum(other.npu_row.get("NPU") == npu.get("NPU") for other in chips)
                chips.append(Chip(npu, {"Chip": str(siblings), **chip}, version))
                npu = None
    return chips


def _is_row(cells: list[Cell]) -> bool:
    first = cells[0][0].text if cells[0] else ""
    return first.isdigit() or (not first and any(cells[1:]))


def _is_npu_row(cells: list[Cell], expects_chip: bool) -> bool:
    """Whether the second cell is a state of health, and not an address. If it is empty, the order decides."""
    second = cells[1][0].text if cells[1] else ""
    if _ADDRESS.fullmatch(second):
        return False
    return not expects_chip if second in ("", *_NOT_AVAILABLE) else True


def _split_words(cell: str) -> Cell:
    """Split on white space, but `3318 / 65536` is one word."""
    return [Word(re.sub(r"\s", "", match[0]), match.start()) for match in re.finditer(r"\S+?\s*/\s*\S+|\S+", cell)]


def _row(head: list[Cell], cells: list[Cell]) -> TableRow:
    """Column -> word. Where words are missing, each belongs to the column of its form that it is closest to."""
    row: TableRow = {}
    for columns, words in zip(head, cells, strict=True):
        if len(words) >= len(columns):
            row.update((column.text, word.text) for column, word in zip(columns, words, strict=False))
            continue
        for word in words:
            fitting = [column for column in columns if _fits(column, word) and column.text not in row]
            if fitting:
                row[min(fitting, key=lambda column: abs(column.start - word.start)).text] = word.text
    return row


def _fits(column: Word, word: Word) -> bool:
    """Columns of usage have words such as 3318/65536, and others do not."""
    return word.text in _NOT_AVAILABLE or ("Usage" in column.text) == ("/" in word.text)


@dataclass
class Npu:
    """A chip observed since the start."""

    identity: DeviceIdentity
    meter: BusyMeter


class AscendDriver:
    """All Ascend NPUs of this machine. `clock` returns monotonic seconds; `sysfs` is only read for the machine's id."""

    vendor = "ascend"

    def __init__(
        self,
        sysfs: Path = Path("/sys"),
        procfs: Path = Path("/proc"),
        clock: Callable[[], float] = time.monotonic,
        command: str = COMMAND,
        timeout_seconds: float = COMMAND_TIMEOUT_SECONDS,
    ) -> None:
        self._sysfs, self._procfs = str(sysfs), str(procfs)
        self._clock = clock
        self._command = command
        self._timeout_seconds = timeout_seconds
        self._npus: dict[str, Npu] = {}
        self._queried_at: float | None = None
        self._last: tuple[DeviceReading, ...] = ()

    def read(self) -> tuple[DeviceReading, ...]:
        """All NPUs, including those lost since the start. Raises DriverUnavailable until the tool has listed one."""
        now = self._clock()
        if self._queried_at is None or now - self._queried_at >= QUERY_INTERVAL_SECONDS:
            self._queried_at = now
            self._last = self._query()
        return self._last

    def close(self) -> None:
        """Run the tool at the next reading."""
        self._queried_at = None

    def _query(self) -> tuple[DeviceReading, ...]:
        try:
            chips = self._chips()
        except DriverUnavailable as error:
            if not self._npus:
                self._queried_at = None
                raise
            reasons = {DriverState.ABSENT: DownReason.DRIVER_GONE, DriverState.HUNG: DownReason.HUNG}
            reason = reasons.get(error.state, DownReason.ERROR)
            return tuple(DeviceReading(npu.identity, down=reason) for npu in self._npus.values())
        found = {chip.key: self._reading(chip, index) for index, chip in enumerate(chips)}
        return tuple(
            found.get(key) or DeviceReading(npu.identity, down=DownReason.LOST) for key, npu in self._npus.items()
        )

    def _chips(self) -> list[Chip]:
        chips = parse_npu_smi(self._run())
        if not chips:
            raise DriverUnavailable(
                DriverState.FAILED,
                f"{self._command} info lists no NPU; see whether the tool works for the exporter's user",
            )
        return chips

    def _run(self) -> str:
        path = shutil.which(self._command) or shutil.which(self._command, path=SEARCH_PATH)
        if path is None:
            raise DriverUnavailable(
                DriverState.ABSENT,
                f"{self._command} is not installed: install the Ascend driver, or mount its tools into the container",
            )
        try:
            result = subprocess.run(
                [path, "info"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self._timeout_seconds,
                check=False,
                env={**os.environ, "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired as error:
            raise DriverUnavailable(
                DriverState.HUNG, f"{path} info did not finish within {self._timeout_seconds} s"
            ) from error
        except OSError as error:
            state = DriverState.NO_PERMISSION if isinstance(error, PermissionError) else DriverState.FAILED
            raise DriverUnavailable(state, f"cannot run {path}: {error}") from error
        if result.returncode:
            message = (result.stderr or result.stdout).decode("utf-8", "replace").strip()[:200]
            raise DriverUnavailable(
                DriverState.FAILED, f"{path} info failed with exit code {result.returncode}: {message}"
            )
        return result.stdout.decode("utf-8", "replace")

    def _reading(self, chip: Chip, index: int) -> DeviceReading:
        npu = self._npus.get(chip.key) or self._register(chip, index)
        values = CardReadings()
        for family, value in _parse_values(chip):
            if isinstance(value, AbsenceReason):
                values.absent[family] = value
            else:
                values.add(family, value)
        utilization = values.value(metrics.UTILIZATION)
        npu.meter.update(self._clock(), None, None if utilization is None else 100 * utilization)
        values.add_busy(npu.meter, BusySource.GAUGE)
        health = chip.npu_row.get("Health", "").lower()
        values.add(metrics.HEALTH, 1, health or "unknown")
        return values.of(npu.identity)

    def _register(self, chip: Chip, index: int) -> Npu:
        address = chip.chip_row.get("Bus-Id", "")
        domain, _, rest = address.partition(":")
        identity = DeviceIdentity(
            uuid=f"ASCEND-{machine_hash(self._sysfs, self._procfs)}-{chip.key}",
            index=str(index),
            name=f"Ascend {chip.npu_row.get('Name', '')}".strip(),
            vendor=self.vendor,
            pci_bus_id=f"{domain:0>8}:{rest}".upper() if _ADDRESS.fullmatch(address) else "",
            driver_version=chip.version,
        )
        # The tool runs rarely, so that each value of the gauge covers a longer time than usual.
        npu = self._npus[chip.key] = Npu(identity, BusyMeter(max_gap_seconds=2.5 * QUERY_INTERVAL_SECONDS))
        return npu


def _parse_values(chip: Chip) -> Iterator[tuple[MetricFamily, float | AbsenceReason]]:
    yield metrics.UTILIZATION, _parse_number(chip.chip_row, "AICore(%)", per=100)
    yield metrics.TEMPERATURE, _parse_number(chip.npu_row, "Temp(C)")
    power = _parse_number(chip.npu_row, "Power(W)")
    yield metrics.POWER, power or AbsenceReason.UNSUPPORTED  # chips without a sensor, such as the 310B4, read 0.0
    # Inference cards have no HBM column, or a total of 0 in it: use the other memory column.
    memory: tuple[float, float] | AbsenceReason = AbsenceReason.UNSUPPORTED
    for column in ("HBM-Usage(MB)", "Memory-Usage(MB)"):
        memory = _used_and_total(chip.chip_row, column)
        if memory is not AbsenceReason.UNSUPPORTED:
            break
    used, total = memory if isinstance(memory, tuple) else (memory, memory)
    yield metrics.MEMORY_USED, used
    yield metrics.MEMORY_TOTAL, total


def _parse_number(row: TableRow, column: str, per: float = 1) -> float | AbsenceReason:
    word = row.get(column, "NA")
    if word in _NOT_AVAILABLE:
        return AbsenceReason.UNSUPPORTED
    if not re.fullmatch(r"\d{1,6}(\.\d+)?", word) or float(word) > _MAX_VALUES[column]:
        return AbsenceReason.ERROR
    return float(word) / per


def _used_and_total(row: TableRow, column: str) -> tuple[float, float] | AbsenceReason:
    """(used, total) in bytes, from a word such as `3318/65536`."""
    word = row.get(column, "0/0")
    if all(part in _NOT_AVAILABLE for part in word.split("/")):
        return AbsenceReason.UNSUPPORTED
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", word)
    if not match:
        return AbsenceReason.ERROR
    used, total = int(match[1]), int(match[2])
    if total == 0:
        return AbsenceReason.UNSUPPORTED
    return (used * _MIB, total * _MIB) if used <= total else AbsenceReason.ERROR
