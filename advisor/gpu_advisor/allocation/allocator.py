"""Giving out GPUs: requests are placed on the machines as they are known now, and held by durable leases."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass

from gpu_advisor.allocation.errors import (
    InsufficientCapacityError,
    InvalidRequestError,
    NoInventoryError,
    TokenConflictError,
    UnsatisfiableRequestError,
)
from gpu_advisor.allocation.gpu_request import GpuRequest, validate_request
from gpu_advisor.allocation.lease_manager import LeaseManager, LeaseSnapshot
from gpu_advisor.allocation.lease_table import LeaseTable
from gpu_advisor.allocation.model import Allocation, Inventory
from gpu_advisor.allocation.placement import Placement, place

MAX_TOKEN_LENGTH = 200

#: The machines as they are known now; None while nothing is known.
InventoryGetter = Callable[[], Inventory | None]


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """Whether a request can be met: `valid` by these machines at all, `available_now` at this moment.

    `field` is what rules it out, and `placement` what it would get.
    """

    valid: bool
    available_now: bool
    message: str
    field: str = ""
    reasons: tuple[str, ...] = ()
    placement: Placement | None = None


@dataclass(frozen=True, slots=True)
class LeaseLimits:
    """How long a lease holds, in seconds: if nothing is said, and at most."""

    lease_seconds: float = 3600
    max_lease_seconds: float = 7 * 86400

    def seconds(self, wanted: float | None) -> float:
        """Raises InvalidRequestError."""
        if wanted is None:
            return self.lease_seconds
        if not 0 < wanted <= self.max_lease_seconds:
            raise InvalidRequestError(
                "lease_seconds", f"{wanted:g}: give seconds above 0, at most {self.max_lease_seconds:g}, and renew"
            )
        return wanted


class Allocator:
    """Safe to use from several threads. Every method raises AllocationError, of the kind that fits."""

    def __init__(self, leases: LeaseManager, machines: InventoryGetter, terms: LeaseLimits | None = None) -> None:
        self.leases = leases
        self.terms = terms or LeaseLimits()
        self._machines = machines

    def inventory(self) -> Inventory:
        """Raises NoInventoryError while nothing is known of any machine."""
        inventory = self._machines()
        if inventory is None:
            raise NoInventoryError(
                "no GPU machine is known yet: wait for the first evaluation, see `source` in GET /recommendations, or "
                "list the machines in allocation.inventory_file"
            )
        return inventory

    def types(self) -> frozenset[str]:
        """Canonical names of the types that are here."""
        inventory = self._machines()
        return inventory.types if inventory else frozenset()

    def snapshot(self) -> LeaseSnapshot:
        """Who holds what now."""
        return self.leases.snapshot()

    def validate(self, request: GpuRequest) -> ValidationResult:
        """What would become of a request. Changes nothing."""
        validate_request(request, self.types())
        try:
            placement = place(request, self._current(), self.snapshot().held)
        except UnsatisfiableRequestError as error:
            return ValidationResult(False, False, str(error), error.field, error.reasons)
        except InsufficientCapacityError as error:
            return ValidationResult(True, False, str(error), reasons=error.reasons)
        return ValidationResult(True, True, "can be had now", reasons=placement.reasons, placement=placement)

    def allocate(
        self, request: GpuRequest, client_token: str | None = None, lease_seconds: float | None = None
    ) -> Allocation:
        """GPUs for `lease_seconds`. The same token gives the same allocation again: so a request can be repeated."""
        validate_request(request, self.types())
        seconds = self.terms.seconds(lease_seconds)
        if client_token is not None and not 1 <= len(client_token) <= MAX_TOKEN_LENGTH:
            raise InvalidRequestError("client_token", f"give 1 to {MAX_TOKEN_LENGTH} characters, or leave it out")
        id_ = uuid.uuid4().hex
        token = client_token or id_

        def decide(book: LeaseTable, now: float) -> Allocation:
            former = book.find_by_token(token)
            if former is not None:
                if former.request != request:
                    raise TokenConflictError(
                        f"client_token: {former.id} was made with this token for another request: use a new token"
                    )
                return former
            made = _make_allocation(
                id_, token, request, self._place_or_fall_back(request, book.held), now, now + seconds
            )
            book.add(made)
            return made

        return self.leases.decide(decide)

    def preview(self, request: GpuRequest) -> Allocation:
        """What a request would get now, leased to nobody."""
        validate_request(request, self.types())
        now = self.leases.clock()
        return _make_allocation(
            "preview", "", request, self._place_or_fall_back(request, self.snapshot().held), now, now
        )

    def renew(self, id_: str, lease_seconds: float | None = None) -> Allocation:
        """The allocation, now until `lease_seconds` from now. Raises UnknownAllocationError for one that is over."""
        seconds = self.terms.seconds(lease_seconds)
        return self.leases.decide(lambda book, now: book.renew(id_, now + seconds))

    def release(self, id_: str) -> None:
        """Give its GPUs back. Raises UnknownAllocationError for one that never was, or that expired."""
        self.leases.decide(lambda book, now: book.release(id_, now))

    def get(self, id_: str) -> Allocation:
        """Raises UnknownAllocationError."""
        active = self.snapshot().active
        return active[id_] if id_ in active else self.leases.decide(lambda book, _: book.get(id_))

    def close(self) -> None:
        self.leases.close()

    def _place_or_fall_back(self, request: GpuRequest, held: Collection[str]) -> Placement | str:
        """Where the request goes, or why it goes to the CPU, where that is asked for."""
        try:
            return place(request, self._current(), held)
        except (InsufficientCapacityError, UnsatisfiableRequestError) as error:
            if not request.cpu_fallback:
                raise
            return f"on the CPU, as asked: {error}"

    def _current(self) -> Inventory:
        inventory = self.inventory()
        if inventory.stale:
            raise NoInventoryError(
                "what is known of the machines is old, and GPUs that were free may be in use by now: see `source` in "
                "GET /recommendations for what keeps the data source from answering"
            )
        return inventory


def _make_allocation(
    id_: str, token: str, request: GpuRequest, placed: Placement | str, made: float, expires: float
) -> Allocation:
    if isinstance(placed, str):
        return Allocation(id_, token, request, (), "cpu", "", None, made, expires, (placed,))
    return Allocation(
        id_, token, request, placed.shares, placed.gpu_type, placed.vendor, placed.memory_per_gpu, made, expires,
        placed.reasons,
    )  # fmt: skip
