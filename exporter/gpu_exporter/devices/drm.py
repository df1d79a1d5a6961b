"""DRM cards and what their drivers share: finding them, remembering them, leaving those alone that sleep.

Kernel documents: ABI/testing/sysfs-devices-power (`power/runtime_status`), ABI/testing/sysfs-bus-pci,
Documentation/power/runtime_pm.rst.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from gpu_exporter import metrics
from gpu_exporter.devices.base import DriverUnavailable
from gpu_exporter.devices.busy import LONGEST_GAP, BusyMeter, BusySource
from gpu_exporter.devices.sysfs import Line, Values, existing, machine_part, names, text
from gpu_exporter.metrics import Family
from gpu_exporter.snapshot import Absence, AbsentReason, DeviceReading, DownReason, DriverState, Identity

REPLAN_SECONDS = 60.0
"""How often is looked anew which files a card has, and how often the slow and the fixed ones are read."""

FAMILIES: tuple[Family, ...] = (
    metrics.UTILIZATION, metrics.BUSY, metrics.OBSERVED, metrics.BUSY_SOURCE, metrics.MEMORY_TOTAL, metrics.MEMORY_USED,
    metrics.MEMORY_RESERVED, metrics.MEMORY_ACTIVITY, metrics.TEMPERATURE, metrics.POWER, metrics.POWER_LIMIT,
    metrics.ENERGY, metrics.SM_CLOCK, metrics.SM_CLOCK_MAX, metrics.MEMORY_CLOCK, metrics.FAN_SPEED,
    metrics.PERFORMANCE_STATE, metrics.ENCODER, metrics.DECODER, metrics.PCIE_GENERATION, metrics.PCIE_WIDTH,
    metrics.PCIE_REPLAYS, metrics.THROTTLED, metrics.ECC_ERRORS, metrics.REMAPPED_ROWS, metrics.PROCESSES,
)  # fmt: skip
"""Each has a value or a reason why not, for every card."""


@dataclass(frozen=True, slots=True)
class Card:
    """A DRM card. `folder` is /sys/class/drm/cardN, `device` its PCI device's folder with links resolved."""

    number: int
    folder: str
    device: str
    driver: str
    pci_id: str
    address: str

    @property
    def pci_bus_id(self) -> str:
        """The address in NVML's form, so that all vendors' are alike: `00000000:C1:00.0`."""
        domain, _, rest = self.address.partition(":")
        return f"{domain:0>8}:{rest}".upper()

    @property
    def suspended(self) -> bool:
        """True while the kernel has switched the card off; asking so does not wake it."""
        return text(f"{self.device}/power/runtime_status") in ("suspended", "suspending")

    @property
    def present(self) -> bool:
        return os.path.exists(f"{self.device}/uevent")

    def link(self) -> str:
        """The folder whose PCIe link is the card's link to the machine.

        Some cards are a switch with the GPU behind it, whose inner link says nothing: the outermost bridge of the
        card's vendor counts. A root port of that vendor is the other end of the same link.
        """
        vendor, device = text(f"{self.device}/vendor"), self.device
        while text(f"{parent(device)}/class").startswith("0x0604") and text(f"{parent(device)}/vendor") == vendor:
            device = parent(device)
        return device


def parent(folder: str) -> str:
    return folder.rpartition("/")[0]


def cards(drm: str, card_names: Iterable[str], drivers: Collection[str]) -> list[Card]:
    """The cards that one of these kernel drivers runs, by PCI address."""
    found = []
    for name in card_names:
        device = os.path.realpath(f"{drm}/{name}/device")
        facts = dict(line.partition("=")[::2] for line in text(f"{device}/uevent").splitlines())
        driver, address = facts.get("DRIVER", ""), facts.get("PCI_SLOT_NAME", "").lower()
        if driver in drivers and address:
            pci_id = facts.get("PCI_ID", "").lower()
            found.append(Card(int(name[4:]), f"{drm}/{name}", device, driver, pci_id, address))
    return sorted(found, key=lambda card: card.address)


@dataclass
class Gpu:
    """A card that is there. `live` is read each time, `slow` at every look anew; `settled` is what that brought."""

    card: Card
    identity: Identity
    meter: BusyMeter
    live: tuple[Line, ...] = ()
    slow: tuple[Line, ...] = ()
    settled: Values | None = None
    planned_at: float = 0.0


class DrmDriver(ABC):
    """All cards of one vendor. `clock` gives monotonic seconds.

    A suspended card is up and idle: the kernel suspends none that has work. It is never read, for reading would wake
    it; its busy time stands while its observed time goes on, its fixed values stay, and all others are absent as
    `unsupported` until it wakes by itself.
    """

    vendor: str
    drivers: tuple[str, ...]
    longest_gap = LONGEST_GAP
    busy_source = BusySource.GAUGE

    def __init__(
        self,
        sysfs: Path = Path("/sys"),
        procfs: Path = Path("/proc"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sysfs = str(sysfs)
        self._procfs = str(procfs)
        self._clock = clock
        self._gpus: list[Gpu] = []
        self._seen: dict[str, Gpu] = {}
        self._links: tuple[tuple[str, str], ...] | None = None

    @abstractmethod
    def _name(self, card: Card) -> str:
        """What people call it."""

    @abstractmethod
    def _serial(self, card: Card) -> str:
        """The vendor's own identity of the card, empty if it has none."""

    @abstractmethod
    def _lines(self, card: Card) -> tuple[Iterable[Line], Iterable[Line]]:
        """What is read each time, and what seldom: expensive or fixed. Of alternatives the first existing is taken."""

    @abstractmethod
    def _more(self, gpu: Gpu, values: Values) -> None:
        """Add what is not one number in one file."""

    @abstractmethod
    def _rest(self, gpu: Gpu) -> None:
        """The card sleeps or is gone: forget what is only good for two readings in a row."""

    def read(self) -> tuple[DeviceReading, ...]:
        """All cards, those lost since the start included. Raises DriverUnavailable while there never was one."""
        self._find()
        if not self._seen:
            raise DriverUnavailable(
                DriverState.ABSENT, f"no card of the {' or '.join(self.drivers)} driver under {self._sysfs}/class/drm"
            )
        found = {gpu.identity.uuid: self._read_gpu(gpu) for gpu in self._gpus}
        return tuple(found.get(uuid) or self._lost(gpu) for uuid, gpu in self._seen.items())

    def close(self) -> None:
        """Look for everything anew at the next reading. What was seen is remembered."""
        for gpu in self._gpus:
            self._rest(gpu)
        self._gpus = []
        self._links = None

    def _find(self) -> None:
        drm = f"{self._sysfs}/class/drm"
        links = tuple((name, _target(f"{drm}/{name}")) for name in names(drm, r"card\d+"))
        if links == self._links:
            return
        self.close()
        for card in cards(drm, (name for name, _ in links), self.drivers):
            self._welcome(card)
        self._links = links

    def _welcome(self, card: Card) -> None:
        prefix, serial = self.vendor.upper(), self._serial(card)
        uuid = f"{prefix}-{serial}" if serial else f"{prefix}-{machine_part(self._sysfs, self._procfs)}-{card.address}"
        if any(gpu.identity.uuid == uuid for gpu in self._gpus):
            uuid = f"{uuid}-{card.address}"  # two chips that share a serial number
        for other, gpu in list(self._seen.items()):
            if gpu.card.address == card.address and other != uuid:
                del self._seen[other]  # another card sits in its slot: it was replaced
        version = text(f"{self._sysfs}/module/{card.driver}/version") or text(f"{self._procfs}/sys/kernel/osrelease")
        identity = Identity(uuid, str(card.number), self._name(card), self.vendor, card.pci_bus_id, version)
        before = self._seen.get(uuid)
        gpu = Gpu(card, identity, before.meter if before else BusyMeter(longest_gap=self.longest_gap))
        self._seen[uuid] = gpu
        self._gpus.append(gpu)

    def _read_gpu(self, gpu: Gpu) -> DeviceReading:
        now = self._clock()
        if gpu.card.suspended:
            return self._asleep(gpu, now)
        values = Values()
        if gpu.settled is None or now - gpu.planned_at > REPLAN_SECONDS:
            self._plan(gpu, now)
        values.take(gpu.live)
        self._more(gpu, values)
        if values.gone:
            gpu.settled = None  # sensors move to other folders when a driver is loaded again
        if not values.readings and gpu.card.suspended:
            return self._asleep(gpu, now)
        if not gpu.card.present:
            self._links = None
            return self._lost(gpu)
        if not values.readings:
            return DeviceReading(gpu.identity, down=DownReason.ERROR)
        utilization = values.value(metrics.UTILIZATION)
        gpu.meter.update(now, None, None if utilization is None else 100 * utilization)
        return self._finish(gpu, values)

    def _plan(self, gpu: Gpu, now: float) -> None:
        live, slow = self._lines(gpu.card)
        gpu.live, gpu.slow = existing(live), existing(slow)
        gpu.settled = Values()
        gpu.settled.take(gpu.slow)
        gpu.planned_at = now

    def _asleep(self, gpu: Gpu, now: float) -> DeviceReading:
        self._rest(gpu)
        gpu.meter.update(now, None, 0.0)
        values = Values()
        values.add(metrics.UTILIZATION, 0.0)
        return self._finish(gpu, values)

    def _finish(self, gpu: Gpu, values: Values) -> DeviceReading:
        if values.value(metrics.UTILIZATION) is None:
            why_not = values.absent.get(metrics.UTILIZATION, AbsentReason.UNSUPPORTED)
            values.absent.update(dict.fromkeys((metrics.BUSY, metrics.OBSERVED, metrics.BUSY_SOURCE), why_not))
        else:
            values.add(metrics.BUSY, gpu.meter.busy)
            values.add(metrics.OBSERVED, gpu.meter.observed)
            values.add(metrics.BUSY_SOURCE, 1, self.busy_source.value)
        settled = gpu.settled or Values()
        readings = (*settled.readings, *values.readings)
        absent = {**settled.absent, **values.absent}
        half = {family for family in absent if len(family.labels) > 1}
        if half:  # all rows of a family or none: half a family would pass for the whole
            readings = tuple(reading for reading in readings if reading.family not in half)
        there = {reading.family for reading in readings}
        absences = tuple(
            Absence(family, absent.get(family, AbsentReason.UNSUPPORTED)) for family in FAMILIES if family not in there
        )
        return DeviceReading(gpu.identity, readings, absences)

    def _lost(self, gpu: Gpu) -> DeviceReading:
        self._rest(gpu)
        loaded = os.path.isdir(f"{self._sysfs}/bus/pci/drivers/{gpu.card.driver}")
        return DeviceReading(gpu.identity, down=DownReason.LOST if loaded else DownReason.DRIVER_GONE)


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""
