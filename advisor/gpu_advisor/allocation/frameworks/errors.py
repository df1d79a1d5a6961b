"""Errors of applying settings. Each message says how to fix it."""

from __future__ import annotations

from gpu_advisor.allocation.errors import AllocationError


class SetupError(AllocationError):
    """The settings cannot be applied in this process."""


class AlreadyInitializedError(SetupError):
    """The framework has already read its environment or started its runtime."""


class SettingsConflictError(SetupError):
    """A variable already has another value."""


class UnknownNodeError(SetupError):
    """This process's node is not in the settings."""


class MissingDevicesError(SetupError):
    """The framework does not see the GPUs of the allocation."""
