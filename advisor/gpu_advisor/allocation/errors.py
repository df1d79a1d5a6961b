"""What can keep an allocation from being made. Each message names the field, where there is one, and the mend."""

from __future__ import annotations

from collections.abc import Sequence


class AllocationError(Exception):
    """The root of all that goes wrong here."""


class InvalidRequestError(AllocationError):
    """The request makes no sense, on whatever machines. `field` is the one that is wrong, as `gpu_count`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message


class NoInventoryError(AllocationError):
    """Nothing is known of any machine, so nothing can be given out yet."""


class UnsatisfiableRequestError(AllocationError):
    """No machine here could ever serve the request, also if all were free. `field` is what rules it out."""

    def __init__(self, field: str, message: str, reasons: Sequence[str] = ()) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message
        self.reasons = tuple(reasons)


class InsufficientCapacityError(AllocationError):
    """The machines could serve the request, but not now. `reasons` tells of each node what it failed on."""

    def __init__(self, message: str, reasons: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.reasons = tuple(reasons)


class TokenConflictError(AllocationError):
    """The client token was used for another request."""


class UnknownAllocationError(AllocationError):
    """There is no such allocation: never made, released, or expired."""


class LeaseStoreError(AllocationError):
    """The leases cannot be read or written: nothing was given out or taken back."""
