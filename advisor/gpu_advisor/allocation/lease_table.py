"""The lease table in memory: the rules of leases, without clock and database.

It collects its changes, so that a store can write them, or drop the table if that fails.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from gpu_advisor.allocation.errors import AllocationError, TokenConflictError, UnknownAllocationError
from gpu_advisor.allocation.model import Allocation

EndReason = Literal["released", "expired"]

#: Retention of ended leases: for this time, a repeated request is recognized by its token.
ENDED_RETENTION_SECONDS = 86400.0
PURGE_INTERVAL_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class EndedLease:
    """An allocation that ended at `at` (Unix time)."""

    id: str
    client_token: str
    how: EndReason
    at: float


class EndedLeases(Protocol):
    """Leases whose end is committed. They are many, so they stay where they are stored."""

    def ended_by_id(self, id_: str) -> EndedLease | None: ...

    def ended_by_token(self, token: str) -> EndedLease | None: ...


class NoEndedLeases:
    """No lease has ended."""

    def ended_by_id(self, id_: str) -> EndedLease | None:
        return None

    def ended_by_token(self, token: str) -> EndedLease | None:
        return None


@dataclass(slots=True)
class LeaseChanges:
    """Changes to write: allocations created or renewed, and leases ended.

    `purge_until` deletes leases that ended up to this Unix time with the next write; on its own it is not worth one.
    """

    upserts: dict[str, Allocation] = field(default_factory=dict)
    ended: dict[str, EndedLease] = field(default_factory=dict)
    ended_ids: dict[str, str] = field(default_factory=dict)  # by client token
    purge_until: float | None = None

    def __bool__(self) -> bool:
        return bool(self.upserts or self.ended)


class LeaseTable:
    """Active allocations, and the allocation id of each leased GPU (by uuid). Not thread-safe.

    Methods that look for ended leases raise what `ended` raises.
    """

    def __init__(self, active: Iterable[Allocation] = (), ended: EndedLeases | None = None) -> None:
        self.active: dict[str, Allocation] = {}
        self.lease_by_gpu: dict[str, str] = {}
        self._ended: EndedLeases = ended or NoEndedLeases()
        self._tokens: dict[str, str] = {}  # of active leases
        self.changes = LeaseChanges()
        self._next_expiry = 0.0  # before this time there is nothing to expire
        self._forgotten_until = 0.0  # leases that ended up to this time are no longer recognized
        self._next_purge = 0.0
        for each in active:
            self._insert(each)

    def expire(self, now: float) -> None:
        """End leases that were not renewed in time, and purge those that ended long ago."""
        self._forgotten_until = now - ENDED_RETENTION_SECONDS
        if now >= self._next_purge:
            self.changes.purge_until = self._forgotten_until
            self._next_purge = now + PURGE_INTERVAL_SECONDS
        if now < self._next_expiry:
            return
        for each in [each for each in self.active.values() if each.expires <= now]:
            self._end(each, "expired", each.expires)
        self._next_expiry = min((each.expires for each in self.active.values()), default=float("inf"))

    def find_by_token(self, token: str) -> Allocation | None:
        """The allocation of a client token; None for a new token. Raises TokenConflictError if it has ended."""
        id_ = self._tokens.get(token)
        if id_ is not None:
            return self.active[id_]
        just_ended = self.changes.ended.get(self.changes.ended_ids.get(token, ""))
        ended = self._remembered(just_ended or self._ended.ended_by_token(token))
        if ended is not None:
            words = f"client_token: allocation {ended.id} with this token was {ended.how}: use a new token"
            raise TokenConflictError(words)
        return None

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
            return
        ended = self._find_ended(id_)
        if ended is None or ended.how != "released":
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
        del self._tokens[allocation.client_token]
        self.changes.upserts.pop(allocation.id, None)
        self.changes.ended[allocation.id] = EndedLease(allocation.id, allocation.client_token, how, at)
        self.changes.ended_ids[allocation.client_token] = allocation.id

    def _find_ended(self, id_: str) -> EndedLease | None:
        return self._remembered(self.changes.ended.get(id_) or self._ended.ended_by_id(id_))

    def _remembered(self, ended: EndedLease | None) -> EndedLease | None:
        return ended if ended is not None and ended.at > self._forgotten_until else None

    def _unknown_error(self, id_: str) -> UnknownAllocationError:
        ended = self._find_ended(id_)
        if ended is None:
            return UnknownAllocationError(f"no allocation {id_!r}: see GET /api/v1/gpu/allocations")
        return UnknownAllocationError(f"allocation {id_} was {ended.how}: allocate again")
