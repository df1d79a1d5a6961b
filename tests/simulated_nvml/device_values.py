"""Readings as dictionaries that tests can compare."""

from __future__ import annotations

from typing import Any

from gpu_exporter.snapshot import DeviceReading, DownReason


def values(device: DeviceReading) -> dict[Any, float]:
    """Family name -> value; (name, label) -> value for families with a label."""
    return {
        (reading.family.name, *reading.labels) if reading.labels else reading.family.name: reading.value
        for reading in device.readings
    }


def absent(device: DeviceReading) -> dict[str, str]:
    return {absence.family.name: absence.reason.value for absence in device.absences}


def down_reasons(devices: tuple[DeviceReading, ...]) -> list[DownReason | None]:
    return [device.down for device in devices]
