"""Calls statvfs() on many mounts without blocking on a hung one.

A call to a network file system without its server can block for hours and cannot be cancelled. So calls are made in
daemon threads, which do not block the exit of the process; a hung thread is abandoned.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from threading import Event, Lock, Thread, current_thread

#: Time limit of one collection, for all mounts together.
STATVFS_TIMEOUT_SECONDS = 1.0
#: If no call finishes in this time, another thread is started for the remaining mounts.
STALL_SECONDS = 0.02
#: Hung threads cannot be stopped. With this many of them, one thread calls only the mounts that responded last time.
MAX_THREADS = 64


class StatvfsPool:
    """Runs batches of calls, and tracks hung and responsive groups of mounts between collections."""

    def __init__(self, time_limit: float = STATVFS_TIMEOUT_SECONDS) -> None:
        self._time_limit = time_limit
        self._hung_threads: dict[str, Thread] = {}
        self._responsive_groups: set[str] = set()

    def query(self, groups: Mapping[str, Sequence[str]]) -> dict[str, os.statvfs_result]:
        """Statistics by path, without those that failed, hang or were not reached within the time limit.

        The paths of a group are called one after another, and not at all while a call to one of them hangs. Raises
        OSError if no thread can be started.
        """
        self._hung_threads = {group: thread for group, thread in self._hung_threads.items() if thread.is_alive()}
        free_threads = MAX_THREADS - len(self._hung_threads)
        batch = _StatvfsBatch([(group, groups[group]) for group in self._groups_to_query(groups, free_threads)])
        try:
            self._run_batch(batch, max(free_threads, 1))
        finally:
            self._hung_threads.update(batch.close())
        responded = {group for group, paths in groups.items() if any(path in batch.results for path in paths)}
        # A group that was not reached stays responsive.
        self._responsive_groups = responded | (self._responsive_groups & batch.queued_groups)
        return batch.results

    def _groups_to_query(self, groups: Mapping[str, Sequence[str]], free_threads: int) -> list[str]:
        """The groups to call, responsive ones first, so that many hung mounts do not delay them."""
        responsive = [group for group in groups if group in self._responsive_groups and group not in self._hung_threads]
        if free_threads <= 0:
            return responsive
        return responsive + [
            group for group in groups if group not in self._responsive_groups and group not in self._hung_threads
        ]

    def _run_batch(self, batch: _StatvfsBatch, free_threads: int) -> None:
        deadline = time.monotonic() + self._time_limit
        finished_before = 0
        while not batch.finished.is_set():
            stalled = batch.calls_finished == finished_before
            finished_before = batch.calls_finished
            if stalled and batch.has_queued_groups and free_threads:
                _start_thread(batch)
                free_threads -= 1
            left = deadline - time.monotonic()
            if left <= 0:
                return
            batch.finished.wait(min(left, STALL_SECONDS))


def _start_thread(batch: _StatvfsBatch) -> None:
    try:
        Thread(target=batch.run_worker, name="statvfs", daemon=True).start()
    except RuntimeError as error:
        raise OSError(f"cannot start a thread for statvfs ({error}); raise the thread limit") from error


class _StatvfsBatch:
    """Calls and results of one collection, shared by its threads. Results after `close` are discarded."""

    def __init__(self, groups: Sequence[tuple[str, Sequence[str]]]) -> None:
        self.results: dict[str, os.statvfs_result] = {}
        self.calls_finished = 0
        self.finished = Event()
        self._groups = deque(groups)
        self._busy: dict[Thread, str] = {}
        self._closed = False
        self._lock = Lock()
        if not self._groups:
            self.finished.set()

    @property
    def has_queued_groups(self) -> bool:
        """Whether there are groups that no thread has started."""
        return bool(self._groups)

    @property
    def queued_groups(self) -> set[str]:
        """The groups that no thread has started. Call it after `close`."""
        return {group for group, _ in self._groups}

    def run_worker(self) -> None:
        """Process group after group, until there are none or the batch is closed."""
        while (paths := self._next_group()) is not None:
            for path in paths:
                if self._closed:
                    break
                self._statvfs(path)

    def close(self) -> dict[str, Thread]:
        """Close the batch. Returns the unfinished groups and the threads that process them."""
        with self._lock:
            self._closed = True
            return {group: thread for thread, group in self._busy.items()}

    def _next_group(self) -> Sequence[str] | None:
        thread = current_thread()
        with self._lock:
            self._busy.pop(thread, None)
            if self._groups and not self._closed:
                self._busy[thread], paths = self._groups.popleft()
                return paths
            if not self._busy:
                self.finished.set()
            return None

    def _statvfs(self, path: str) -> None:
        try:
            result = os.statvfs(path)
        except (OSError, ValueError):
            # Any failure is a device error (ValueError: a NUL byte in the path).
            result = None
        with self._lock:
            self.calls_finished += 1
            # After close the collector reads the results without the lock.
            if result is not None and not self._closed:
                self.results[path] = result
