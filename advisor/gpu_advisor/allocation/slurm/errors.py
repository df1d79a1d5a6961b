"""Errors of a Slurm cluster."""

from __future__ import annotations

from gpu_advisor.allocation.errors import AllocationError


class SlurmError(AllocationError):
    """A command of Slurm failed. The message has its own, and says how to fix it."""


class JobNotManagedError(SlurmError):
    """The job was not submitted by gpu-advisor, so it is not changed."""
