"""Durable leases with group commit: one write to disk acknowledges many requests.

One thread takes all waiting operations, executes them in order, writes their changes in one transaction, and only then
returns their results. So a crash never loses an acknowledged lease, and the next group gathers while the disk writes
(group commit as in DeWitt et al., "Implementation Techniques for Main Memory Database Systems", 1984).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from gpu_advisor.allocation.errors import AllocationError, LeaseStoreError
from gpu_advisor.allocation.lease_store import LeaseStore
from gpu_advisor.allocation.lease_table import LeaseChanges, LeaseTable
from gpu_advisor.allocation.model import Allocation
from gpu_advisor.allocation.steady_clock import resume_clock
from gpu_advisor.storage.damage import DamagedFile

log = logging.getLogger(__name__)

T = TypeVar("T")
MAX_GROUP_SIZE = 256
COMMIT_TIMEOUT_SECONDS = 30.0
STOPPING_MESSAGE = "the service is stopping: retry in a moment"

#: Executes one request on the table at a Unix time. Raises AllocationError before it changes anything.
LeaseOperation = Callable[[LeaseTable, float], T]


@dataclass(frozen=True, slots=True)
class LeaseSnapshot:
    """Committed leases: active allocations by id, and the allocation id of each leased GPU, by uuid. Immutable."""

    active: Mapping[str, Allocation] = field(default_factory=lambda: MappingProxyType({}))
    lease_by_gpu: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def at(self, now: float) -> LeaseSnapshot:
        """Without the leases that have expired by then."""
        expired = [each for each in self.active.values() if each.expires <= now]
        if not expired:
            return self
        expired_ids = {each.id for each in expired}
        return LeaseSnapshot(
            {id_: each for id_, each in self.active.items() if id_ not in expired_ids},
            {uuid: id_ for uuid, id_ in self.lease_by_gpu.items() if id_ not in expired_ids},
        )


@dataclass(frozen=True, slots=True)
class _PendingOperation:
    operation: LeaseOperation[Any]
    future: Future[Any]


class LeaseManager:
    """One process at a time can open the store. Raises LeaseStoreError."""

    def __init__(self, store: LeaseStore, clock: Callable[[], float] | None = None) -> None:
        self._store = store
        table = store.load()
        self._table: LeaseTable | None = table
        self.clock = clock or resume_clock(store.clock_file, in_use=bool(table.active))
        self._queue: queue.SimpleQueue[_PendingOperation | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._write_error = ""  # why the last write failed; empty if it succeeded
        self._snapshot = LeaseSnapshot(dict(table.active), dict(table.lease_by_gpu))
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        self._thread.start()

    @property
    def last_error(self) -> str:
        """Why leases cannot be written, or must be confirmed first; empty if all is well."""
        return self._store.unconfirmed or self._write_error

    @property
    def damaged(self) -> DamagedFile | None:
        """The database that was moved aside at the start."""
        return self._store.damaged

    def snapshot(self) -> LeaseSnapshot:
        """Committed leases that have not expired. Never blocks."""
        return self._snapshot.at(self.clock())

    def execute(self, operation: LeaseOperation[T]) -> T:
        """Execute and commit an operation. Raises its AllocationError, and LeaseStoreError if the commit fails."""
        if self._closed.is_set():
            raise LeaseStoreError(STOPPING_MESSAGE)
        if why := self._store.unconfirmed:
            raise LeaseStoreError(why)
        future: Future[T] = Future()
        self._queue.put(_PendingOperation(operation, future))
        try:
            return future.result(COMMIT_TIMEOUT_SECONDS)
        except FutureTimeoutError as error:
            raise LeaseStoreError("the disk did not write the lease in time: retry with the same token") from error
        finally:
            del future  # an exception in it refers to this frame: the cycle would live until the collector finds it

    def close(self) -> None:
        self._closed.set()
        self._queue.put(None)
        self._thread.join(timeout=COMMIT_TIMEOUT_SECONDS)
        self._store.close()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            group: list[_PendingOperation] = [first]
            last = False
            while len(group) < MAX_GROUP_SIZE and not self._queue.empty():
                pending = self._queue.get()
                if pending is None:
                    last = True
                    break
                group.append(pending)
            self._process_group(group)
            if last:
                break
        while not self._queue.empty():
            if (remaining := self._queue.get()) is not None:
                remaining.future.set_exception(LeaseStoreError(STOPPING_MESSAGE))

    def _process_group(self, group: Sequence[_PendingOperation]) -> None:
        try:
            table = self._table = self._store.load() if self._table is None else self._table
            results = self._execute_group(table, group)
            self._commit(table)
        except Exception as error:  # whatever it is: fail this group's callers, and go on with the next group
            if not self._write_error:
                log.exception("cannot write leases")
            self._table, self._write_error = None, str(error)  # the disk is authoritative: reload it
            for pending in group:
                pending.future.set_exception(_for_one_caller(error))
            return
        for pending, (value, failure) in zip(group, results, strict=True):
            if failure is None:
                pending.future.set_result(value)
            else:
                pending.future.set_exception(failure)

    def _execute_group(
        self, table: LeaseTable, group: Sequence[_PendingOperation]
    ) -> list[tuple[Any, Exception | None]]:
        now = self.clock()
        table.expire(now)
        results: list[tuple[Any, Exception | None]] = []
        for pending in group:
            try:
                results.append((pending.operation(table, now), None))
            except AllocationError as error:
                # Without its traceback: it refers to this frame, and so to the table and to the exception itself.
                results.append((None, error.with_traceback(None)))
        return results

    def _commit(self, table: LeaseTable) -> None:
        if not table.changes:
            return
        changes, table.changes = table.changes, LeaseChanges()
        self._store.write(changes)
        self._write_error = ""
        self._snapshot = LeaseSnapshot(dict(table.active), dict(table.lease_by_gpu))


def _for_one_caller(error: Exception) -> Exception:
    """An exception that only one thread raises, and that refers to no table: a full disk fails many requests."""
    return LeaseStoreError(str(error)) if isinstance(error, LeaseStoreError) else RuntimeError(str(error))
