"""Worker threads with a bounded queue."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class WorkerPool:
    """Tasks beyond `waiting` are refused at once, so that nobody waits for what cannot be served in time."""

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self._tasks: queue.Queue[Callable[[], object] | None] = queue.Queue(waiting + threads)
        self._threads = [
            threading.Thread(target=self._run, name=f"{name} {number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, task: Callable[[], object]) -> bool:
        """Whether the task was accepted. It must not raise."""
        try:
            self._tasks.put_nowait(task)
        except queue.Full:
            return False
        return True

    def stop(self) -> None:
        """Let the threads end after their present tasks, without waiting for them. Tasks that wait are dropped."""
        while True:
            try:
                self._tasks.get_nowait()
            except queue.Empty:
                break
        for _ in self._threads:
            self._tasks.put(None)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
            del task  # with its request and response, while this thread waits
