"""Errors of GPU allocation. Each message names the field, if one is wrong, and says how to fix it."""

from __future__ import annotations

from collections.abc import Sequence


class AllocationError(Exception):
    """Base class of allocation errors."""


class InvalidRequestError(AllocationError):
    """The request is invalid for any inventory. `field`: the invalid one, as `gpu_count`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message


class NoInventoryError(AllocationError):
    """The inventory is not known, or stale, so nothing can be allocated."""


class UnsatisfiableRequestError(AllocationError):
    """No node can serve the request, even with all GPUs free. `field`: the one that makes it unsatisfiable."""

    def __init__(self, field: str, message: str, reasons: Sequence[str] = ()) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message
        self.reasons = tuple(reasons)


class InsufficientCapacityError(AllocationError):
    """The request can be served, but not now. `reasons`: why not, for each node."""

    def __init__(self, message: str, reasons: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.reasons = tuple(reasons)


class TokenConflictError(AllocationError):
    """The client token was used for another request."""


class UnknownAllocationError(AllocationError):
    """The allocation never existed, was released, or has expired."""


class LeaseStoreError(AllocationError):
    """The leases cannot be read or written: nothing was allocated or released."""
