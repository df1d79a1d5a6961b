"""What can be wrong with a calibration. The text of each error says how to fix it."""

from __future__ import annotations


class CalibrationError(Exception):
    """A calibration cannot be made or used as asked."""


class PointsError(CalibrationError):
    """Measured points that no curve can be drawn through."""


class ProfileError(CalibrationError):
    """A profile file that cannot be read."""


class WorkloadError(CalibrationError):
    """A workload that cannot be probed: its factory raises, hangs or returns something else."""


class HostMemoryError(CalibrationError):
    """The host's memory ran out, which says nothing about the device's."""


class DeviceBusyError(CalibrationError):
    """Somebody else used the GPU during the probe, so its figures mean nothing."""
