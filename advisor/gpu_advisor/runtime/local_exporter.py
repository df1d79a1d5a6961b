"""`gpu-advisor up`: an exporter beside the advisor, in one process group, for one machine without anything else."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gpu_advisor.runtime.wiring import StartupError
from gpu_advisor.settings.addresses import check_can_listen
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.openmetrics_import import import_openmetrics

log = logging.getLogger(__name__)

#: A simulated fleet brings this much of its past, so that a demonstration shows recommendations at once; half as dense
#: as scrapes are, as making and reading it is most of what the start costs.
SIMULATED_HISTORY, SIMULATED_STEP = "3h", "30s"

READY_TIMEOUT_SECONDS = 15.0
_PR_SET_PDEATHSIG = 1


#: File systems take names of up to 255 bytes; a longer fleet's name is cut, and its hash tells it from others.
MAX_NAME_CHARACTERS = 100


def state_dir_for(state_dir: Path, simulate: str) -> Path:
    """A simulated fleet has its own state: it must never mix with what was real."""
    if not simulate:
        return state_dir
    name = re.sub(r"[^\w.-]+", "_", simulate, flags=re.ASCII)
    if len(name) > MAX_NAME_CHARACTERS:
        name = f"{name[:MAX_NAME_CHARACTERS]}-{hashlib.sha256(simulate.encode()).hexdigest()[:16]}"
    return state_dir / "simulated" / name


@contextmanager
def run_exporter(address: str, simulate: str, state_dir: Path, jobs: Path) -> Iterator[subprocess.Popen[str]]:
    """A gpu-exporter as a child process, ready to be scraped; ended with the block. Jobs report to the folder `jobs`.

    Raises StartupError.
    """
    check_can_listen(address, "--exporter-address")  # another exporter there would look like ours, ready
    command = [sys.executable, "-m", "gpu_exporter", "--web.listen-address", address, "--log.level", "warning"]
    command += ["--simulate", simulate] if simulate else ["--state.directory", str(state_dir)]
    try:
        jobs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartupError(f"{jobs} cannot be made ({error.strerror}): choose another --state-dir") from error
    command += ["--collector.textfile.directory", str(jobs)]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=_end_with_parent)
    try:
        _wait_until_ready(child, address)
        # Nobody reads what it says from here on; a full pipe would stop it at its next word.
        threading.Thread(target=shutil.copyfileobj, args=(child.stderr, sys.stderr), daemon=True).start()
        yield child
    finally:
        child.terminate()
        try:
            child.wait(timeout=3)
        except subprocess.TimeoutExpired:
            child.kill()


def _end_with_parent() -> None:
    """Linux: the kernel ends the child when the advisor dies in any way, so that no exporter keeps the address."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_until_ready(child: subprocess.Popen[str], address: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            stderr_text = child.stderr.read().strip() if child.stderr else ""
            raise StartupError(_translate_error(stderr_text) or f"the exporter ended with exit code {child.returncode}")
        try:
            with urllib.request.urlopen(f"http://{address}/-/healthy", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise StartupError(f"the exporter did not answer at {address} within {READY_TIMEOUT_SECONDS:g} s")


def _translate_error(stderr_text: str) -> str:
    """The exporter's last line, with the flag as it is called here."""
    line = stderr_text.splitlines()[-1] if stderr_text else ""
    return line.removeprefix("gpu-exporter: ").replace("--web.listen-address", "--exporter-address")


def import_simulated_history(history: History, address: str, simulate: str) -> int:
    """Fill the history with the simulated fleet's past, as the exporter tells it. Returns the number of samples."""
    command = [sys.executable, "-m", "gpu_exporter", "--simulate", simulate, "--simulate.history", SIMULATED_HISTORY]
    command += ["--simulate.step", SIMULATED_STEP]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        if child.stdout is None:
            raise StartupError("the exporter's past cannot be read")
        return import_openmetrics(history, lines_outside(child.stdout, history.span()), address)


def lines_outside(lines: Iterable[str], span: tuple[float, float] | None) -> Iterator[str]:
    """The lines of OpenMetrics text that tell of another time than this one (seconds since 1970).

    What was scraped lags a little behind the time at which it was. Samples of the past among these would look as if
    counters went back again and again.
    """
    for line in lines:
        if span is None or line.startswith("#") or not span[0] <= float(line.rsplit(None, 1)[-1]) <= span[1]:
            yield line
