"""Sensors of mainboards, CPUs, disks and network cards: temperatures, fans, voltages, power.

Kernel document: Documentation/hwmon/sysfs-interface.rst (each file's unit). Names, labels and units are those of
node_exporter.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import label_value, list_folder, read_file, read_label
from gpu_exporter.metrics import FamilySamples, MetricFamily, MetricType, group_by_family

CHIP_NAMES = MetricFamily(
    "node_hwmon_chip_names", "gauge", "Name that the chip's driver gives it, always 1.", ("chip", "chip_name")
)
SENSOR_LABEL = MetricFamily(
    "node_hwmon_sensor_label", "gauge", "Label of the sensor, always 1.", ("chip", "sensor", "label")
)
LABELS = ("chip", "sensor")

#: `temp1_crit_alarm`: type, number and property. Some types have no number, and some files no property.
SENSOR_FILE = re.compile(r"([^0-9]+)(\d*)(?:_(.+))?")
SENSOR_TYPES = (
    "vrm", "beep_enable", "update_interval", "in", "cpu", "fan", "pwm", "temp", "curr", "power", "energy", "humidity",
    "intrusion", "freq",
)  # fmt: skip
INVALID_CHARACTERS = re.compile(r"[^a-z0-9:_]")

MILLI, MICRO = 0.001, 1e-6
FAN_SPEEDS = ("input", "min", "max", "target")
AVERAGE_INTERVALS = ("average_interval", "average_interval_min", "average_interval_max")


class SensorUnit(NamedTuple):
    """Suffix of the family's name, and factor from the unit of the file."""

    suffix: str = ""
    scale: float = 1.0
    type: MetricType = "gauge"


class SensorFile(NamedTuple):
    """A file of a sensor. `property` is empty for the files without one, such as `pwm1`."""

    kind: str
    sensor: str
    property: str
    path: str


#: Sensors whose whole name is the quantity.
NAMED_SENSORS = {
    "beep_enable": ("node_hwmon_beep_enabled", 1.0),
    "vrm": ("node_hwmon_voltage_regulator_version", 1.0),
    "update_interval": ("node_hwmon_update_interval_seconds", MILLI),
}


def sensor_unit(kind: str, property_: str) -> SensorUnit:
    """The unit of a property of a sensor of this type."""
    if property_ in ("fault", "alarm"):
        return SensorUnit()
    if property_ == "beep":
        return SensorUnit("_enabled")
    if kind == "power":
        if property_ == "accuracy":
            return SensorUnit("", MICRO)
        return SensorUnit("_seconds", MILLI) if property_ in AVERAGE_INTERVALS else SensorUnit("_watt", MICRO)
    if kind == "fan":
        return SensorUnit("_rpm") if property_ in FAN_SPEEDS else SensorUnit()
    if kind == "temp":
        return SensorUnit() if property_ == "type" else SensorUnit("_celsius", MILLI)
    return {
        "in": SensorUnit("_volts", MILLI),
        "cpu": SensorUnit("_volts", MILLI),
        "curr": SensorUnit("_amps", MILLI),
        "energy": SensorUnit("_joule_total", MICRO, "counter"),
        "humidity": SensorUnit("", MICRO),
    }.get(kind, SensorUnit())


class HwmonCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._folder = f"{settings.sysfs}/class/hwmon"
        #: By name: which there are depends on the chips.
        self._families: dict[str, MetricFamily] = {}

    def collect(self) -> list[FamilySamples]:
        """By chip and sensor, without those that cannot be read; empty on a node without sensors."""
        rows: list[tuple[MetricFamily, tuple[str, ...], float]] = []
        for chip, folder in self._chips():
            name = clean_name(read_label(f"{folder}/name"))
            if name:
                rows.append((CHIP_NAMES, (chip, name), 1.0))
            rows += self._sensors(chip, _sensor_files(folder))
        # Two folders of one chip may have the same sensor.
        unique = {(family, labels): value for family, labels, value in rows}
        return group_by_family((family, labels, value) for (family, labels), value in unique.items())

    def _chips(self) -> Iterator[tuple[str, str]]:
        """(unique name, folder) of each chip. The numbers of the folders change from boot to boot."""
        folders = [f"{self._folder}/{name}" for name in list_folder(self._folder)]
        names = {folder: _chip_name(folder) for folder in folders if os.path.isdir(folder)}
        per_name = Counter(names.values())
        driver_names = {folder: read_label(f"{folder}/name") for folder in names}
        per_driver_name = Counter((names[folder], driver_names[folder]) for folder in names)
        for folder, name in names.items():
            if per_name[name] > 1:  # several chips of one device
                suffix = clean_name(driver_names[folder])
                if not suffix or per_driver_name[name, driver_names[folder]] > 1:
                    suffix = clean_name(os.path.basename(folder))
                name = f"{name}_{suffix}"
            yield name, folder

    def _sensors(self, chip: str, files: list[SensorFile]) -> Iterator[tuple[MetricFamily, tuple[str, ...], float]]:
        texts = {(file.sensor, file.property): _read_line(file.path) for file in files}
        for file in files:
            text, labels = texts[file.sensor, file.property], (chip, file.sensor)
            if file.property == "label":
                if text:
                    yield SENSOR_LABEL, (*labels, text), 1.0
                continue
            value = _parse_number(text)
            if value is None:
                continue
            if file.kind in NAMED_SENSORS:
                name, scale = NAMED_SENSORS[file.kind]
                yield self._family(name, "gauge", f"Sensor {file.kind}."), labels, value * scale
            elif file.kind == "freq" and file.property == "input":
                label = clean_name(texts.get((file.sensor, "label"), ""))
                if label:
                    family = self._family("node_hwmon_freq_freq_mhz", "gauge", "Frequency, in MHz.")
                    yield family, (chip, label), value * MICRO
            else:
                unit = sensor_unit(file.kind, file.property)
                name = _family_name(file, has_plain_file=(file.sensor, "") in texts) + unit.suffix
                help_ = f"Sensor {file.kind}, {file.property or 'input'}."
                yield self._family(name, unit.type, help_), labels, value * unit.scale

    def _family(self, name: str, type_: MetricType, help_: str) -> MetricFamily:
        family = self._families.get(name)
        if family is None:
            family = self._families[name] = MetricFamily(name, type_, help_, LABELS)
        return family


def clean_name(name: str) -> str:
    """In lower case, with `_` for characters that a metric name may not have."""
    return INVALID_CHARACTERS.sub("_", name.lower()).strip("_")


def _family_name(file: SensorFile, has_plain_file: bool) -> str:
    """`temp1_input` is the value itself, unless there is a file `temp1`."""
    if not file.property or (file.property == "input" and not has_plain_file):
        return f"node_hwmon_{file.kind}"
    return f"node_hwmon_{file.kind}_{clean_name(file.property)}"


def _chip_name(folder: str) -> str:
    """From the bus and the name of the device, which are the same after each boot; else from the driver's name."""
    try:
        bus, device = os.path.realpath(f"{folder}/device", strict=True).split("/")[-2:]
    except OSError:
        bus = device = ""
    name = "_".join(filter(None, (clean_name(bus), clean_name(device))))
    return name or clean_name(read_label(f"{folder}/name")) or clean_name(os.path.basename(os.path.realpath(folder)))


def _sensor_files(folder: str) -> list[SensorFile]:
    """Of the chip and of its device, where old drivers have them."""
    found: dict[tuple[str, str], SensorFile] = {}
    for place in (folder, f"{folder}/device"):
        for name in list_folder(place):
            match = SENSOR_FILE.fullmatch(name)
            if not match or match[1] not in SENSOR_TYPES:
                continue
            kind, number, property_ = match.groups()
            sensor = f"{kind}{int(number or 0)}"
            found[sensor, property_ or ""] = SensorFile(kind, sensor, property_ or "", f"{place}/{name}")
    return list(found.values())


def _read_line(path: str) -> str:
    """The text of a file without the end of the line: labels may end in spaces. Empty if it cannot be read."""
    try:
        return label_value(read_file(path).strip(b"\n"))
    except OSError:
        return ""


def _parse_number(text: str) -> float | None:
    """The number, which may be negative; None if it is none."""
    digits = text.removeprefix("-")
    return float(text) if digits.isascii() and digits.isdigit() and len(digits) <= 20 else None
