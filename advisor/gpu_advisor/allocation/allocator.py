"""The allocator: places requests on the current inventory, and records them as durable leases."""

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

#: Returns the current inventory; None while none is known.
InventoryGetter = Callable[[], Inventory | None]


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """Whether a request is `valid` for this inventory, and whether its GPUs are `available_now`.

    `field`: the field that makes it unsatisfiable. `placement`: the GPUs that it would get.
    """

    valid: bool
    available_now: bool
    message: str
    field: str = ""
    reasons: tuple[str, ...] = ()
    placement: Placement | None = None


@dataclass(frozen=True, slots=True)
class LeaseLimits:
    """Default and maximum duration of a lease in seconds, and limits of `memory_gb` of a request (None: no limit)."""

    lease_seconds: float = 3600
    max_lease_seconds: float = 7 * 86400
    min_memory_gb: float | None = None
    max_memory_gb: float | None = None

    def check_memory(self, request: GpuRequest) -> None:
        """Raises InvalidRequestError."""
        asked, low, high = request.memory_gb, self.min_memory_gb, self.max_memory_gb
        if asked is not None and low is not None and asked < low:
            words = f"{asked:g}: below {low:g} GB (resources.memory.min_gb): ask for at least that, or leave it out"
            raise InvalidRequestError("memory_gb", words)
        if asked is not None and high is not None and asked > high:
            words = f"{asked:g}: above {high:g} GB (resources.memory.max_gb): ask for at most that on each GPU"
            raise InvalidRequestError("memory_gb", words)

    def seconds(self, requested: float | None) -> float:
        """The duration of a lease. Raises InvalidRequestError."""
        if requested is None:
            return self.lease_seconds
        if not 0 < requested <= self.max_lease_seconds:
            raise InvalidRequestError(
                "lease_seconds",
                f"{requested:g}: must be above 0 and at most {self.max_lease_seconds:g} seconds; renew to keep longer",
            )
        return requested


class Allocator:
    """Thread-safe. Methods raise subclasses of AllocationError."""

    def __init__(self, leases: LeaseManager, get_inventory: InventoryGetter, limits: LeaseLimits | None = None) -> None:
        self.leases = leases
        self.limits = limits or LeaseLimits()
        self._get_inventory = get_inventory

    def inventory(self) -> Inventory:
        """Raises NoInventoryError while no node is known."""
        inventory = self._get_inventory()
        if inventory is None:
            raise NoInventoryError(
                "no GPU node is known yet: wait for the first evaluation, see `source` in GET /recommendations, or "
                "list the nodes in allocation.inventory_file"
            )
        return inventory

    def types(self) -> frozenset[str]:
        """Canonical GPU types in the inventory."""
        inventory = self._get_inventory()
        return inventory.types if inventory else frozenset()

    def snapshot(self) -> LeaseSnapshot:
        """The current leases."""
        return self.leases.snapshot()

    def validate(self, request: GpuRequest) -> ValidationResult:
        """Check a request without allocating."""
        self._check(request)
        try:
            placement = place(request, self._current(), self.snapshot().lease_by_gpu)
        except UnsatisfiableRequestError as error:
            return ValidationResult(False, False, str(error), error.field, error.reasons)
        except InsufficientCapacityError as error:
            return ValidationResult(True, False, str(error), reasons=error.reasons)
        return ValidationResult(True, True, "available now", reasons=placement.reasons, placement=placement)

    def allocate(
        self, request: GpuRequest, client_token: str | None = None, lease_seconds: float | None = None
    ) -> Allocation:
        """Lease GPUs for `lease_seconds`. Idempotent by client token: the same token returns the same allocation."""
        self._check(request)
        seconds = self.limits.seconds(lease_seconds)
        if client_token is not None and not 1 <= len(client_token) <= MAX_TOKEN_LENGTH:
            raise InvalidRequestError("client_token", f"must have 1 to {MAX_TOKEN_LENGTH} characters, or be absent")
        id_ = uuid.uuid4().hex
        token = client_token or id_

        def find_or_add(table: LeaseTable, now: float) -> Allocation:
            existing = table.find_by_token(token)
            if existing is not None:
                if existing.request != request:
                    raise TokenConflictError(
                        f"client_token: allocation {existing.id} has this token and another request: use a new token"
                    )
                return existing
            placed = self._place_or_fall_back(request, table.lease_by_gpu)
            allocation = _make_allocation(id_, token, request, placed, now, now + seconds)
            table.add(allocation)
            return allocation

        return self.leases.execute(find_or_add)

    def preview(self, request: GpuRequest) -> Allocation:
        """The allocation that a request would get now, without a lease."""
        self._check(request)
        now = self.leases.clock()
        placed = self._place_or_fall_back(request, self.snapshot().lease_by_gpu)
        return _make_allocation("preview", "", request, placed, now, now)

    def renew(self, id_: str, lease_seconds: float | None = None) -> Allocation:
        """Extend an allocation to `lease_seconds` from now. Raises UnknownAllocationError if it has ended."""
        seconds = self.limits.seconds(lease_seconds)
        return self.leases.execute(lambda table, now: table.renew(id_, now + seconds))

    def release(self, id_: str) -> None:
        """Release an allocation's GPUs. Raises UnknownAllocationError if it never existed or has expired."""
        self.leases.execute(lambda table, now: table.release(id_, now))

    def get(self, id_: str) -> Allocation:
        """Raises UnknownAllocationError."""
        active = self.snapshot().active
        return active[id_] if id_ in active else self.leases.execute(lambda table, _: table.get(id_))

    def close(self) -> None:
        self.leases.close()

    def _check(self, request: GpuRequest) -> None:
        validate_request(request, self.types())
        self.limits.check_memory(request)

    def _place_or_fall_back(self, request: GpuRequest, leased: Collection[str]) -> Placement | str:
        """The placement, or with cpu_fallback the reason for falling back to the CPU."""
        try:
            return place(request, self._current(), leased)
        except (InsufficientCapacityError, UnsatisfiableRequestError) as error:
            if not request.cpu_fallback:
                raise
            return f"on the CPU (cpu_fallback): {error}"

    def _current(self) -> Inventory:
        inventory = self.inventory()
        if inventory.stale:
            raise NoInventoryError(
                "the inventory is stale, and GPUs that were free may be in use: see `source` in GET /recommendations "
                "for why the data source does not respond"
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
