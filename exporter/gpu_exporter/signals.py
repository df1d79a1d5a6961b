"""Actions on signals, run in threads.

Python runs a handler in the main thread, between two of its instructions: for a signal that comes just before the main
thread waits, only after that wait. So a thread reads the numbers of signals, which Python's C handler writes at once
(https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd).
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

Action = Callable[[], object]


@contextmanager
def signal_actions(actions: Mapping[str, Action]) -> Iterator[None]:
    """Run the action of each signal, by its name, in a thread of its own when it comes. Only in the main thread.

    Signals that the platform lacks are left out: Windows has no SIGHUP and SIGUSR1.
    """
    by_number = {
        number: action for name, action in actions.items() if (number := getattr(signal, name, None)) is not None
    }
    received, wakeup = socket.socketpair()
    wakeup.setblocking(False)
    threading.Thread(target=_run_actions, args=(received, by_number), name="signals", daemon=True).start()
    previous_fd = signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
    previous = {number: signal.signal(number, _leave_to_thread) for number in by_number}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_fd)
        wakeup.close()  # ends the thread


def _leave_to_thread(number: int, frame: object) -> None:
    """Without a handler in Python, nothing is written."""


def _run_actions(received: socket.socket, actions: Mapping[int, Action]) -> None:
    with received:
        while numbers := received.recv(64):
            for number in numbers:
                if action := actions.get(number):
                    threading.Thread(target=action, daemon=True).start()
