"""A driver whose lost GPUs keep their identity over a restart of the exporter, for vendors that do not do it
themselves."""

from __future__ import annotations

from pathlib import Path

from gpu_exporter.devices.base import Driver, DriverUnavailable
from gpu_exporter.devices.roster import Roster
from gpu_exporter.snapshot import DeviceReading, DownReason, DriverState

REASONS = {DriverState.HUNG: DownReason.HUNG, DriverState.NO_PERMISSION: DownReason.ERROR}
"""Why all GPUs are down while the driver is in this state; in any other, the driver is gone."""


class Remembered:
    """Adds the GPUs that the driver has named before and names no more. `state_file` None: nothing is kept."""

    def __init__(self, driver: Driver, state_file: Path | None) -> None:
        self.vendor = driver.vendor
        self._driver = driver
        self._roster = Roster(state_file)

    def read(self) -> tuple[DeviceReading, ...]:
        """All GPUs, those lost before the start included. Raises DriverUnavailable while there never was one."""
        self._roster.load()
        try:
            found = self._driver.read()
        except DriverUnavailable as error:
            if not self._roster:
                raise
            reason = REASONS.get(error.state, DownReason.DRIVER_GONE)
            return tuple(DeviceReading(identity, down=reason) for identity in self._roster)
        self._roster.see([device.identity for device in found])
        there = {device.identity.uuid for device in found}
        lost = (DeviceReading(who, down=DownReason.LOST) for who in self._roster if who.uuid not in there)
        return (*found, *lost)

    def close(self) -> None:
        self._driver.close()
