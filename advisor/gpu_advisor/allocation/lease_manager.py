"""Leases that survive a crash, with group commit: many requests are acknowledged by one write to the disk.

One thread takes all requests that wait, decides them one after the other, writes what changed in one transaction, and
only then answers them. So no answer is ever given that a crash could take back, and while the disk writes, the next
group gathers (group commit as in DeWitt et al., "Implementation Techniques for Main Memory Database Systems", 1984).
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
from gpu_advisor.allocation.steady_clock import SteadyClock

log = logging.getLogger(__name__)

T = TypeVar("T")
MAX_GROUP_SIZE = 256
COMMIT_TIMEOUT_SECONDS = 30.0

#: Decides one request by the book at a time (seconds since 1970), and raises AllocationError before it changes any.
LeaseOperation = Callable[[LeaseTable, float], T]


@dataclass(frozen=True, slots=True)
class LeaseSnapshot:
    """What is written: active allocations by id, and the id that holds each GPU, by uuid. Both never change."""

    active: Mapping[str, Allocation] = field(default_factory=lambda: MappingProxyType({}))
    held: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def at(self, now: float) -> LeaseSnapshot:
        """Without what has expired by then."""
        expired = [each for each in self.active.values() if each.expires <= now]
        if not expired:
            return self
        expired_ids = {each.id for each in expired}
        return LeaseSnapshot(
            {id_: each for id_, each in self.active.items() if id_ not in expired_ids},
            {uuid: id_ for uuid, id_ in self.held.items() if id_ not in expired_ids},
        )


@dataclass(frozen=True, slots=True)
class _PendingOperation:
    decide: LeaseOperation[Any]
    answer: Future[Any]


class LeaseManager:
    """Open for one process at a time. Raises LeaseStoreError."""

    def __init__(self, store: LeaseStore, clock: Callable[[], float] | None = None) -> None:
        self.clock = clock or SteadyClock()
        self._store = store
        self._book: LeaseTable | None = store.load()
        self._tasks: queue.SimpleQueue[_PendingOperation | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self.last_error = ""  # why the last write failed; empty while all is well
        self.commits = 0
        self._snapshot = LeaseSnapshot(dict(self._book.active), dict(self._book.held))
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        self._thread.start()

    def snapshot(self) -> LeaseSnapshot:
        """What is acknowledged and has not expired. Waits for nobody."""
        return self._snapshot.at(self.clock())

    def decide(self, decision: LeaseOperation[T]) -> T:
        """Have a decision made and written. Raises what it raises, and LeaseStoreError if it cannot be written."""
        if self._closed.is_set():
            raise LeaseStoreError("the service is stopping: ask again in a moment")
        task = _PendingOperation(decision, Future())
        self._tasks.put(task)
        try:
            answer: T = task.answer.result(COMMIT_TIMEOUT_SECONDS)
        except FutureTimeoutError as error:
            raise LeaseStoreError("the disk has not taken the lease in time: ask again with the same token") from error
        return answer

    def close(self) -> None:
        self._closed.set()
        self._tasks.put(None)
        self._thread.join(timeout=COMMIT_TIMEOUT_SECONDS)
        self._store.close()

    def _run(self) -> None:
        while (first := self._tasks.get()) is not None:
            group: list[_PendingOperation] = [first]
            last = False
            while len(group) < MAX_GROUP_SIZE and not self._tasks.empty():
                task = self._tasks.get()
                if task is None:
                    last = True
                    break
                group.append(task)
            self._process_group(group)
            if last:
                break
        while not self._tasks.empty():
            if (remaining := self._tasks.get()) is not None:
                remaining.answer.set_exception(LeaseStoreError("the service is stopping: ask again in a moment"))

    def _process_group(self, group: Sequence[_PendingOperation]) -> None:
        try:
            book = self._book = self._store.load() if self._book is None else self._book
            answers = self._execute_group(book, group)
            self._commit(book)
        except Exception as error:  # whatever it is: who asks must hear it, and the next group must be served
            if not self.last_error:
                log.exception("leases cannot be written")
            self._book, self.last_error = None, str(error)  # what the disk has is the truth: it is read again
            for task in group:
                task.answer.set_exception(error)
            return
        self.last_error = ""
        for task, (value, failure) in zip(group, answers, strict=True):
            if failure is None:
                task.answer.set_result(value)
            else:
                task.answer.set_exception(failure)

    def _execute_group(
        self, book: LeaseTable, group: Sequence[_PendingOperation]
    ) -> list[tuple[Any, Exception | None]]:
        now = self.clock()
        book.expire(now)
        answers: list[tuple[Any, Exception | None]] = []
        for task in group:
            try:
                answers.append((task.decide(book, now), None))
            except AllocationError as error:
                answers.append((None, error))
        return answers

    def _commit(self, book: LeaseTable) -> None:
        if not book.changes:
            return
        changes, book.changes = book.changes, LeaseChanges()
        self._store.write(changes)
        self.commits += 1
        self._snapshot = LeaseSnapshot(dict(book.active), dict(book.held))
