"""Who holds what, as one process sees it: the rules of leases, without a clock of its own and without a database.

What is changed is noted, so that a store can write it and, if it cannot, all of it can be taken back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from gpu_advisor.allocation.errors import AllocationError, TokenConflictError, UnknownAllocationError
from gpu_advisor.allocation.model import Allocation

EndReason = Literal["released", "expired"]

#: How long it is remembered how an allocation ended: so long a repeated request is told from a new one.
ENDED_RETENTION_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class EndedLease:
    """An allocation that is over since `at` (seconds since 1970)."""

    id: str
    client_token: str
    how: EndReason
    at: float


@dataclass(slots=True)
class LeaseChanges:
    """What is to be written: allocations that were made or renewed, endings, and ids to forget."""

    upserts: dict[str, Allocation] = field(default_factory=dict)
    ended: dict[str, EndedLease] = field(default_factory=dict)
    purged_ids: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.upserts or self.ended or self.purged_ids)


class LeaseTable:
    """The active allocations, who holds each GPU, and how former ones ended. One thread writes."""

    def __init__(self, active: Iterable[Allocation] = (), ended: Iterable[EndedLease] = ()) -> None:
        self.active: dict[str, Allocation] = {}
        self.held: dict[str, str] = {}
        self._ended: dict[str, EndedLease] = {each.id: each for each in ended}
        self._tokens: dict[str, str] = {each.client_token: each.id for each in self._ended.values()}
        self.changes = LeaseChanges()
        self._next_expiry = 0.0  # before this time nothing expires and nothing is forgotten: no need to look
        for each in active:
            self._insert(each)

    def expire(self, now: float) -> None:
        """End what was not renewed in time, and forget what ended long ago."""
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
        """The allocation that was made for a client token; None for a new token. Raises TokenConflictError if it ended."""
        id_ = self._tokens.get(token)
        if id_ is None:
            return None
        if id_ in self._ended:
            how = self._ended[id_].how
            raise TokenConflictError(f"client_token: the allocation {id_} of this token was {how}: use a new token")
        return self.active[id_]

    def add(self, allocation: Allocation) -> None:
        """Raises AllocationError for a GPU that is held: placement must not have offered it."""
        if taken := [uuid for uuid in allocation.uuids if uuid in self.held]:
            raise AllocationError(f"{', '.join(taken)} cannot be given out: leased to {self.held[taken[0]]}")
        self._insert(allocation)
        self.changes.upserts[allocation.id] = allocation

    def renew(self, id_: str, expires: float) -> Allocation:
        """Raises UnknownAllocationError for one that is over: its GPUs may be somebody else's by now."""
        if id_ not in self.active:
            raise self._unknown_error(id_)
        renewed = replace(self.active[id_], expires=expires)
        self._next_expiry = min(self._next_expiry, expires)
        self.active[id_] = renewed
        self.changes.upserts[id_] = renewed
        return renewed

    def release(self, id_: str, now: float) -> None:
        """Releasing again is no error, as who asks may not have heard the first answer. Raises UnknownAllocationError
        for an allocation that never was, or that expired before."""
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
        self.held.update(dict.fromkeys(allocation.uuids, allocation.id))

    def _end(self, allocation: Allocation, how: EndReason, at: float) -> None:
        del self.active[allocation.id]
        for uuid in allocation.uuids:
            del self.held[uuid]
        ended = EndedLease(allocation.id, allocation.client_token, how, at)
        self._ended[allocation.id] = ended
        self._next_expiry = min(self._next_expiry, at + ENDED_RETENTION_SECONDS)
        self.changes.upserts.pop(allocation.id, None)
        self.changes.ended[allocation.id] = ended

    def _unknown_error(self, id_: str) -> UnknownAllocationError:
        ended = self._ended.get(id_)
        if ended is None:
            return UnknownAllocationError(f"there is no allocation {id_!r}: see GET /api/v1/gpu/allocations")
        return UnknownAllocationError(f"the allocation {id_} was {ended.how}: allocate again")
