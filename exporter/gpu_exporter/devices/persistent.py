"""Keeps the identities of lost GPUs across restarts, for drivers that do not do it themselves."""

from __future__ import annotations

from pathlib import Path

from gpu_exporter.devices.base import Driver, DriverUnavailable
from gpu_exporter.devices.inventory import DeviceInventory
from gpu_exporter.snapshot import DeviceReading, DownReason, DriverState

DOWN_REASONS = {DriverState.HUNG: DownReason.HUNG, DriverState.NO_PERMISSION: DownReason.ERROR}
"""Why all GPUs are down in this state of the driver; in any other state: DRIVER_GONE."""


class PersistentDriver:
    """Adds, as lost, the GPUs that the driver no longer lists. Without `state_file` they are kept in memory only."""

    def __init__(self, driver: Driver, state_file: Path | None) -> None:
        self.vendor = driver.vendor
        self._driver = driver
        self._inventory = DeviceInventory(state_file)

    def read(self) -> tuple[DeviceReading, ...]:
        """All GPUs, including those lost before the start. Raises DriverUnavailable until one was found."""
        self._inventory.load()
        try:
            found = self._driver.read()
        except DriverUnavailable as error:
            if not self._inventory:
                raise
            reason = DOWN_REASONS.get(error.state, DownReason.DRIVER_GONE)
            return tuple(DeviceReading(identity, down=reason) for identity in self._inventory)
        self._inventory.remember([device.identity for device in found])
        present_uuids = {device.identity.uuid for device in found}
        lost = (
            DeviceReading(device_identity, down=DownReason.LOST)
            for device_identity in self._inventory
            if device_identity.uuid not in present_uuids
        )
        return (*found, *lost)

    def close(self) -> None:
        self._driver.close()
