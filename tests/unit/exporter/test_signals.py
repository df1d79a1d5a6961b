"""Actions on signals that come at the worst moments, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

PROGRAM = """
import os, signal, threading, time
from gpu_exporter.signals import signal_actions

came = threading.Event()

def act():
    came.set()

def wait_in_main():
    # as long as an idle server; sleep() goes on after a handler, and no handler runs before it ends
    threading.Thread(target=lambda: (came.wait(60), os._exit(0 if came.is_set() else 1))).start()
    time.sleep(3600)

with signal_actions({"SIGUSR1": act, "SIGNONE": act}):
"""

MOMENTS = {
    "while the main thread waits": "    os.kill(os.getpid(), signal.SIGUSR1); wait_in_main()",
    # As just before its wait: Python's C handler has run, and nothing wakes the main thread.
    "just before the main thread waits": (
        "    threading.Thread(target=lambda: (time.sleep(0.1),"
        " signal.pthread_kill(threading.get_ident(), signal.SIGUSR1))).start(); wait_in_main()"
    ),
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_an_action_runs_whenever_the_signal_comes(moment: str) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM + moment], check=True, timeout=120)


def test_handlers_are_as_before_afterwards() -> None:
    program = (
        "import signal\nfrom gpu_exporter.signals import signal_actions\n"
        "with signal_actions({'SIGTERM': print}):\n    assert callable(signal.getsignal(signal.SIGTERM))\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\nassert signal.set_wakeup_fd(-1) == -1\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
