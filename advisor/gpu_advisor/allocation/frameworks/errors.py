"""What can keep settings from being applied. Each message tells the mend."""

from __future__ import annotations

from gpu_advisor.allocation.errors import AllocationError


class SetupError(AllocationError):
    """The settings cannot be put in force in this process."""


class AlreadyInitializedError(SetupError):
    """The framework has read its environment or started its runtime already."""


class SettingsConflictError(SetupError):
    """Somebody else has set a variable to another value."""


class UnknownNodeError(SetupError):
    """It is not clear which node's settings this process is to take."""


class MissingDevicesError(SetupError):
    """The framework does not see the GPUs of the allocation."""
