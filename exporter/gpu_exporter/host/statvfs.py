"""Asks many mounts for their statistics without waiting for ever for any of them.

A network file system whose server is gone can hold the call for hours, and the call cannot be given up. So the calls
are made by daemon threads, which do not hold up the exit of the process, and a thread that is held is left behind.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from threading import Event, Lock, Thread, current_thread

#: For all mounts of one collection together.
STATVFS_TIMEOUT_SECONDS = 1.0
#: How long a mount may hold up the others before another thread goes on with them.
STALL_SECONDS = 0.02
#: A held thread cannot be ended. With this many of them, only mounts that answered last time are asked, by one thread.
MAX_THREADS = 64


class StatvfsPool:
    """Keeps in mind which groups of mounts are stuck, from one collection to the next."""

    def __init__(self, time_limit: float = STATVFS_TIMEOUT_SECONDS) -> None:
        self._time_limit = time_limit
        self._hung_threads: dict[str, Thread] = {}
        self._responsive_groups: set[str] = set()

    def query(self, groups: Mapping[str, Sequence[str]]) -> dict[str, os.statvfs_result]:
        """Statistics by path; what failed, is stuck or was not reached within the time limit is not in it.

        The paths of a group share its fate: they are asked one after another, and not at all while one of them has
        not come back. Raises OSError if no thread can be started.
        """
        self._hung_threads = {group: thread for group, thread in self._hung_threads.items() if thread.is_alive()}
        room = MAX_THREADS - len(self._hung_threads)
        batch = _StatvfsBatch([(group, groups[group]) for group in self._groups_to_query(groups, room)])
        try:
            self._run_batch(batch, max(room, 1))
        finally:
            self._hung_threads.update(batch.close())
        answered = {group for group, paths in groups.items() if any(path in batch.results for path in paths)}
        # A group that was not reached keeps its good name.
        self._responsive_groups = answered | (self._responsive_groups & batch.queued_groups)
        return batch.results

    def _groups_to_query(self, groups: Mapping[str, Sequence[str]], room: int) -> list[str]:
        """The groups to ask, those that answered last time first: many dead mounts must not keep them waiting."""
        responsive = [group for group in groups if group in self._responsive_groups and group not in self._hung_threads]
        if room <= 0:
            return responsive
        return responsive + [
            group for group in groups if group not in self._responsive_groups and group not in self._hung_threads
        ]

    def _run_batch(self, batch: _StatvfsBatch, room: int) -> None:
        deadline = time.monotonic() + self._time_limit
        asked = 0
        while not batch.finished.is_set():
            stalled = batch.asked == asked
            asked = batch.asked
            if stalled and batch.has_queued_groups and room:
                _start_thread(batch)
                room -= 1
            left = deadline - time.monotonic()
            if left <= 0:
                return
            batch.finished.wait(min(left, STALL_SECONDS))


def _start_thread(batch: _StatvfsBatch) -> None:
    try:
        Thread(target=batch.run_worker, name="statvfs", daemon=True).start()
    except RuntimeError as error:
        raise OSError(f"no thread could be started to ask the mounts ({error}); raise the limit on threads") from error


class _StatvfsBatch:
    """The questions and answers of one collection. Threads share it; one that comes back late finds it closed."""

    def __init__(self, groups: Sequence[tuple[str, Sequence[str]]]) -> None:
        self.results: dict[str, os.statvfs_result] = {}
        self.asked = 0
        self.finished = Event()
        self._groups = deque(groups)
        self._busy: dict[Thread, str] = {}
        self._closed = False
        self._lock = Lock()
        if not self._groups:
            self.finished.set()

    @property
    def has_queued_groups(self) -> bool:
        """Whether there are groups that no thread has taken."""
        return bool(self._groups)

    @property
    def queued_groups(self) -> set[str]:
        """The groups that no thread has taken, once the batch is closed."""
        return {group for group, _ in self._groups}

    def run_worker(self) -> None:
        """Asks group after group, as long as there are any and the batch is open."""
        while (paths := self._next_group()) is not None:
            for path in paths:
                if self._closed:
                    break
                self._statvfs(path)

    def close(self) -> dict[str, Thread]:
        """Ends the batch; the groups that were not finished, with the threads that they hold."""
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
            answer = os.statvfs(path)
        except (OSError, ValueError):
            # A path without an answer is a device error, whatever the reason (ValueError: a NUL byte in the path).
            answer = None
        with self._lock:
            self.asked += 1
            # The collector may be reading the answers of a closed batch.
            if answer is not None and not self._closed:
                self.results[path] = answer
