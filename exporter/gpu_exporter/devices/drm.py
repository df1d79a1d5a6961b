"""What drivers of DRM cards share: discovery, identities of lost cards, and not waking suspended ones.

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
from gpu_exporter.devices.card_readings import CardReadings
from gpu_exporter.devices.meters import MAX_GAP_SECONDS, BusyMeter, BusySource
from gpu_exporter.devices.pci_names import PciNames
from gpu_exporter.devices.sysfs import SysfsSource, list_names, machine_hash, read_text, select_existing
from gpu_exporter.snapshot import DeviceIdentity, DeviceReading, DownReason, DriverState

RESCAN_SECONDS = 60.0
"""How often the files of a card are listed, and the slow and constant ones are read."""


@dataclass(frozen=True, slots=True)
class DrmCard:
    """A DRM card. `folder` is /sys/class/drm/cardN, `device` the resolved folder of its PCI device."""

    number: int
    folder: str
    device: str
    driver: str
    pci_id: str
    address: str

    @property
    def pci_bus_id(self) -> str:
        """The address in NVML's form, the same for all vendors: `00000000:C1:00.0`."""
        domain, _, rest = self.address.partition(":")
        return f"{domain:0>8}:{rest}".upper()

    @property
    def suspended(self) -> bool:
        """Whether the card is runtime-suspended. Reading this does not wake it."""
        return read_text(f"{self.device}/power/runtime_status") in ("suspended", "suspending")

    @property
    def present(self) -> bool:
        return os.path.exists(f"{self.device}/uevent")

    def pcie_link_folder(self) -> str:
        """The folder of the device whose PCIe link connects the card to the host.

        Some cards have a PCIe switch in front of the GPU, whose inner link is meaningless: use the outermost bridge of
        the card's vendor. A root port of that vendor is the other end of the same link.
        """
        vendor, device = read_text(f"{self.device}/vendor"), self.device
        while (
            read_text(f"{parent_folder(device)}/class").startswith("0x0604")
            and read_text(f"{parent_folder(device)}/vendor") == vendor
        ):
            device = parent_folder(device)
        return device


def parent_folder(folder: str) -> str:
    return folder.rpartition("/")[0]


def find_cards(drm: str, card_names: Iterable[str], kernel_drivers: Collection[str]) -> list[DrmCard]:
    """The cards bound to one of these kernel drivers, sorted by PCI address."""
    found = []
    for name in card_names:
        device = os.path.realpath(f"{drm}/{name}/device")
        uevent = dict(line.partition("=")[::2] for line in read_text(f"{device}/uevent").splitlines())
        driver, address = uevent.get("DRIVER", ""), uevent.get("PCI_SLOT_NAME", "").lower()
        if driver in kernel_drivers and address:
            pci_id = uevent.get("PCI_ID", "").lower()
            found.append(DrmCard(int(name[4:]), f"{drm}/{name}", device, driver, pci_id, address))
    return sorted(found, key=lambda card: card.address)


@dataclass
class DrmGpu:
    """A card. `live_sources` are read each time, `slow_sources` at each rescan, into `slow_readings`."""

    card: DrmCard
    identity: DeviceIdentity
    meter: BusyMeter
    live_sources: tuple[SysfsSource, ...] = ()
    slow_sources: tuple[SysfsSource, ...] = ()
    slow_readings: CardReadings | None = None
    scanned_at: float = 0.0


class DrmDriver(ABC):
    """All cards of one vendor. `clock` returns monotonic seconds.

    A suspended card is up and idle: the kernel does not suspend a card that has work. It is not read, because reading
    would wake it: observed time increases and busy time does not, constant values stay, and all other families are
    absent as `unsupported` until it resumes.
    """

    vendor: str
    kernel_drivers: tuple[str, ...]
    max_gap_seconds = MAX_GAP_SECONDS
    busy_source = BusySource.GAUGE

    def __init__(
        self, sysfs: Path = Path("/sys"), procfs: Path = Path("/proc"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sysfs = str(sysfs)
        self._procfs = str(procfs)
        self._clock = clock
        self._gpus: list[DrmGpu] = []
        self._known_gpus: dict[str, DrmGpu] = {}
        self._links: tuple[tuple[str, str], ...] | None = None
        self._pci_names = PciNames(self._procfs)

    @abstractmethod
    def _name(self, card: DrmCard) -> str:
        """The product name."""

    @abstractmethod
    def _serial(self, card: DrmCard) -> str:
        """The vendor's unique id of the card; empty if it has none."""

    def _shares_memory(self, card: DrmCard) -> bool:
        """Whether the card uses the memory of the CPU."""
        return False

    @abstractmethod
    def _sources(self, card: DrmCard) -> tuple[Iterable[SysfsSource], Iterable[SysfsSource]]:
        """Sources read each time, and those read rarely (expensive or constant). Of alternatives, the first is used."""

    @abstractmethod
    def _add_readings(self, gpu: DrmGpu, values: CardReadings) -> None:
        """Add readings that are not a single number in a single file."""

    @abstractmethod
    def _reset(self, gpu: DrmGpu) -> None:
        """Discard state that is valid only between consecutive readings: the card is suspended or lost."""

    def _partitions(self, whole: DeviceReading) -> Iterable[DeviceReading]:
        """The readings of a GPU's partitions, each a GPU of its own; none for a GPU that is not partitioned."""
        return ()

    def read(self) -> tuple[DeviceReading, ...]:
        """All cards, including those lost since the start. Raises DriverUnavailable until one was found."""
        self._find_cards()
        if not self._known_gpus:
            raise DriverUnavailable(
                DriverState.ABSENT,
                f"no card of the {' or '.join(self.kernel_drivers)} driver in {self._sysfs}/class/drm",
            )
        found = {gpu.identity.uuid: self._read_gpu(gpu) for gpu in self._gpus}
        whole = [found.get(uuid) or self._lost_reading(gpu) for uuid, gpu in self._known_gpus.items()]
        return tuple(reading for each in whole for reading in (each, *self._partitions(each)))

    def close(self) -> None:
        """Rescan all cards at the next reading. Known cards stay known."""
        for gpu in self._gpus:
            self._reset(gpu)
        self._gpus = []
        self._links = None

    def _find_cards(self) -> None:
        drm = f"{self._sysfs}/class/drm"
        links = tuple((name, _link_target(f"{drm}/{name}")) for name in list_names(drm, r"card\d+"))
        if links == self._links:
            return
        self.close()
        for card in find_cards(drm, (name for name, _ in links), self.kernel_drivers):
            self._register(card)
        self._links = links

    def _register(self, card: DrmCard) -> None:
        prefix, serial = self.vendor.upper(), self._serial(card)
        uuid = f"{prefix}-{serial}" if serial else f"{prefix}-{machine_hash(self._sysfs, self._procfs)}-{card.address}"
        if any(gpu.identity.uuid == uuid for gpu in self._gpus):
            uuid = f"{uuid}-{card.address}"  # two chips with the same serial number
        for other, gpu in list(self._known_gpus.items()):
            if gpu.card.address == card.address and other != uuid:
                del self._known_gpus[other]  # replaced by another card in the same slot
        version = read_text(f"{self._sysfs}/module/{card.driver}/version") or read_text(
            f"{self._procfs}/sys/kernel/osrelease"
        )
        identity = DeviceIdentity(
            uuid, str(card.number), self._name(card), self.vendor, card.pci_bus_id, version,
            unified="true" if self._shares_memory(card) else "",
        )  # fmt: skip
        before = self._known_gpus.get(uuid)
        gpu = DrmGpu(card, identity, before.meter if before else BusyMeter(max_gap_seconds=self.max_gap_seconds))
        self._known_gpus[uuid] = gpu
        self._gpus.append(gpu)

    def _read_gpu(self, gpu: DrmGpu) -> DeviceReading:
        now = self._clock()
        if gpu.card.suspended:
            return self._suspended_reading(gpu, now)
        values = CardReadings()
        if gpu.slow_readings is None or now - gpu.scanned_at > RESCAN_SECONDS:
            self._rescan(gpu, now)
        values.read_sources(gpu.live_sources)
        self._add_readings(gpu, values)
        if values.file_missing:
            gpu.slow_readings = None  # a driver reload moves sensors to other folders
        if not values.readings and gpu.card.suspended:
            return self._suspended_reading(gpu, now)
        if not gpu.card.present:
            self._links = None
            return self._lost_reading(gpu)
        if not values.readings:
            return DeviceReading(gpu.identity, down=DownReason.ERROR)
        utilization = values.value(metrics.UTILIZATION)
        gpu.meter.update(now, None, None if utilization is None else 100 * utilization)
        return self._build_reading(gpu, values)

    def _rescan(self, gpu: DrmGpu, now: float) -> None:
        live_sources, slow_sources = self._sources(gpu.card)
        gpu.live_sources, gpu.slow_sources = select_existing(live_sources), select_existing(slow_sources)
        gpu.slow_readings = CardReadings()
        gpu.slow_readings.read_sources(gpu.slow_sources)
        gpu.scanned_at = now

    def _suspended_reading(self, gpu: DrmGpu, now: float) -> DeviceReading:
        self._reset(gpu)
        gpu.meter.update(now, None, 0.0)
        values = CardReadings()
        values.add(metrics.UTILIZATION, 0.0)
        return self._build_reading(gpu, values)

    def _build_reading(self, gpu: DrmGpu, values: CardReadings) -> DeviceReading:
        values.add_busy(gpu.meter, self.busy_source)
        slow = gpu.slow_readings or CardReadings()
        both = CardReadings([*slow.readings, *values.readings], {**slow.absent, **values.absent})
        incomplete = {family for family in both.absent if len(family.labels) > 1}
        # All rows of a family or none: a partial family would look complete.
        both.readings = [reading for reading in both.readings if reading.family not in incomplete]
        return both.of(gpu.identity)

    def _lost_reading(self, gpu: DrmGpu) -> DeviceReading:
        self._reset(gpu)
        loaded = os.path.isdir(f"{self._sysfs}/bus/pci/drivers/{gpu.card.driver}")
        return DeviceReading(gpu.identity, down=DownReason.LOST if loaded else DownReason.DRIVER_GONE)


def _link_target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""
