"""The lease table in memory: the rules of leases, without clock and database.

It collects its changes, so that a store can write them, or drop the table if that fails.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from gpu_advisor.allocation.errors import AllocationError, TokenConflictError, UnknownAllocationError
from gpu_advisor.allocation.model import Allocation

EndReason = Literal["released", "expired"]

#: Retention of ended leases: for this time, a repeated request is recognized by its token.
ENDED_RETENTION_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class EndedLease:
    """An allocation that ended at `at` (Unix time)."""

    id: str
    client_token: str
    how: EndReason
    at: float


@dataclass(slots=True)
class LeaseChanges:
    """Changes to write: allocations created or renewed, leases ended, ids to delete."""

    upserts: dict[str, Allocation] = field(default_factory=dict)
    ended: dict[str, EndedLease] = field(default_factory=dict)
    purged_ids: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.upserts or self.ended or self.purged_ids)


class LeaseTable:
    """Active allocations, the allocation id of each leased GPU (by uuid), and ended leases. Not thread-safe."""

    def __init__(self, active: Iterable[Allocation] = (), ended: Iterable[EndedLease] = ()) -> None:
        self.active: dict[str, Allocation] = {}
        self.lease_by_gpu: dict[str, str] = {}
        self._ended: dict[str, EndedLease] = {each.id: each for each in ended}
        self._tokens: dict[str, str] = {each.client_token: each.id for each in self._ended.values()}
        self.changes = LeaseChanges()
        self._next_expiry = 0.0  # before this time there is nothing to expire or purge
        for each in active:
            self._insert(each)

    def expire(self, now: float) -> None:
        """End leases that were not renewed in time, and purge those that ended long ago."""
        if now < self._next_expiry:
            return
        for each in [each for each in self.active.values() if each.expires <= now]:
            self._end(each, "expired", each.expires)
        for old in [each for each in self._ended.values() if each.at + ENDED_RETENTION_SECONDS <= now]:
            del self._ended[old.id]
            del self._tokens[old.client_token]
            self.changes.purged_ids.append(old.id)
        times = [each.expires for each in self.active.values()]
        times += [each.at + ENDED_RETENTION_SECONDS for each in self._ended.values()]
        self._next_expiry = min(times, default=float("inf"))

    def find_by_token(self, token: str) -> Allocation | None:
        """The allocation of a client token; None for a new token. Raises TokenConflictError if it has ended."""
        id_ = self._tokens.get(token)
        if id_ is None:
            return None
        if id_ in self._ended:
            how = self._ended[id_].how
            raise TokenConflictError(f"client_token: allocation {id_} with this token was {how}: use a new token")
        return self.active[id_]

    def add(self, allocation: Allocation) -> None:
        """Raises AllocationError for a GPU that is already leased: a bug in placement."""
        if leased := [uuid for uuid in allocation.uuids if uuid in self.lease_by_gpu]:
            raise AllocationError(f"{', '.join(leased)} cannot be allocated: leased to {self.lease_by_gpu[leased[0]]}")
        self._insert(allocation)
        self.changes.upserts[allocation.id] = allocation

    def renew(self, id_: str, expires: float) -> Allocation:
        """Raises UnknownAllocationError for an ended lease: its GPUs may be leased to another job."""
        if id_ not in self.active:
            raise self._unknown_error(id_)
        renewed = replace(self.active[id_], expires=expires)
        self._next_expiry = min(self._next_expiry, expires)
        self.active[id_] = renewed
        self.changes.upserts[id_] = renewed
        return renewed

    def release(self, id_: str, now: float) -> None:
        """Idempotent, because the client may have missed the first response. Raises UnknownAllocationError for an
        allocation that never existed or has expired."""
        if id_ in self.active:
            self._end(self.active[id_], "released", now)
        elif id_ not in self._ended or self._ended[id_].how != "released":
            raise self._unknown_error(id_)

    def get(self, id_: str) -> Allocation:
        """Raises UnknownAllocationError."""
        if id_ not in self.active:
            raise self._unknown_error(id_)
        return self.active[id_]

    def _insert(self, allocation: Allocation) -> None:
        self._next_expiry = min(self._next_expiry, allocation.expires)
        self.active[allocation.id] = allocation
        self._tokens[allocation.client_token] = allocation.id
        self.lease_by_gpu.update(dict.fromkeys(allocation.uuids, allocation.id))

    def _end(self, allocation: Allocation, how: EndReason, at: float) -> None:
        del self.active[allocation.id]
        for uuid in allocation.uuids:
            del self.lease_by_gpu[uuid]
        ended = EndedLease(allocation.id, allocation.client_token, how, at)
        self._ended[allocation.id] = ended
        self._next_expiry = min(self._next_expiry, at + ENDED_RETENTION_SECONDS)
        self.changes.upserts.pop(allocation.id, None)
        self.changes.ended[allocation.id] = ended

    def _unknown_error(self, id_: str) -> UnknownAllocationError:
        ended = self._ended.get(id_)
        if ended is None:
            return UnknownAllocationError(f"no allocation {id_!r}: see GET /api/v1/gpu/allocations")
        return UnknownAllocationError(f"allocation {id_} was {ended.how}: allocate again")
