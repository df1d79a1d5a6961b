"""Starts a gpu-exporter as a child process for `gpu-advisor up`, and imports the history of a simulated fleet."""

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
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import requests

from gpu_advisor.runtime.wiring import StartupError
from gpu_advisor.settings.addresses import check_can_listen
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.openmetrics_import import import_openmetrics
from gpu_advisor.sources.prometheus.http_client import BodyTooLargeError, DeadlineClient, DeadlineExceededError
from gpu_advisor.storage.private_files import make_private_folder

log = logging.getLogger(__name__)

#: History of a simulated fleet, so that a demonstration has recommendations at once.
SIMULATED_HISTORY_SECONDS = 3 * 3600

#: Its steps: longer for many GPUs, as generating and importing it is most of the startup time. Queries look back five
#: minutes for a sample: two and a half of the longest steps.
MIN_SIMULATED_STEP_SECONDS, MAX_SIMULATED_STEP_SECONDS = 30, 120

#: Readings of a GPU that the history is to have at most, about ten seconds of work.
SIMULATED_READINGS = 25_000

#: Intervals at which a simulated fleet is scraped, and its last window imported: data coverage counts samples, so a
#: window with two intervals looks as if samples were missing. A window of five minutes has ten of the longest.
SIMULATED_INTERVALS_SECONDS = (5, 10, 15, 30)

#: Beyond the longest window: an evaluation may be late.
_RECENT_MARGIN_SECONDS = 300

_LINES_PER_PROGRESS = 5000

READY_TIMEOUT_SECONDS = 15.0
READY_POLL_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1

#: File systems limit names to 255 bytes: a longer one is cut, and a hash keeps it unique.
MAX_NAME_CHARACTERS = 100


def state_dir_for(state_dir: Path, simulate: str) -> Path:
    """The state directory; each simulated fleet has its own, so that simulated and real data never mix."""
    if not simulate:
        return state_dir
    name = re.sub(r"[^\w.-]+", "_", simulate, flags=re.ASCII)
    if len(name) > MAX_NAME_CHARACTERS:
        name = f"{name[:MAX_NAME_CHARACTERS]}-{hashlib.sha256(simulate.encode()).hexdigest()[:16]}"
    return state_dir / "simulated" / name


@contextmanager
def run_exporter(address: str, simulate: str, state_dir: Path, jobs: Path) -> Iterator[subprocess.Popen[str]]:
    """Run gpu-exporter as a child process until the block ends. Training jobs report to the directory `jobs`.

    Yields when the exporter can be scraped. Raises StartupError.
    """
    check_can_listen(address, "--exporter-address")  # another exporter there would pass the readiness check
    command = [sys.executable, "-m", "gpu_exporter", "--web.listen-address", address, "--log.level", "warning"]
    command += ["--simulate", simulate] if simulate else ["--state.directory", str(state_dir)]
    try:
        make_private_folder(jobs.parent)
        jobs.mkdir(exist_ok=True)
    except OSError as error:
        raise StartupError(f"cannot create {jobs} ({error.strerror}): choose another --state-dir") from error
    command += ["--collector.textfile.directory", str(jobs)]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=_end_with_parent)
    try:
        _wait_until_ready(child, address)
        # A full pipe would block the child.
        threading.Thread(target=shutil.copyfileobj, args=(child.stderr, sys.stderr), daemon=True).start()
        yield child
    finally:
        child.terminate()
        try:
            child.wait(timeout=3)
        except subprocess.TimeoutExpired:
            child.kill()


def _end_with_parent() -> None:
    """Have the kernel end the child whenever the advisor dies (Linux), so that no exporter keeps the address."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_until_ready(child: subprocess.Popen[str], address: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    with closing(DeadlineClient()) as client:
        while time.monotonic() < deadline:
            if child.poll() is not None:
                stderr_text = child.stderr.read().strip() if child.stderr else ""
                message = f"gpu-exporter exited with code {child.returncode}: run it alone to see why"
                raise StartupError(_translate_error(stderr_text) or message)
            with suppress(requests.RequestException, DeadlineExceededError, BodyTooLargeError, OSError):
                if client.fetch("GET", f"http://{address}/-/healthy", seconds=1, max_bytes=1024).status == 200:
                    return
            time.sleep(READY_POLL_SECONDS)
    raise StartupError(
        f"gpu-exporter was not ready at {address} within {READY_TIMEOUT_SECONDS:g} s: run it alone to see why"
    )


def _translate_error(stderr_text: str) -> str:
    """The last line on the exporter's stderr, with its flag named as in `gpu-advisor up`."""
    line = stderr_text.splitlines()[-1] if stderr_text else ""
    return line.removeprefix("gpu-exporter: ").replace("--web.listen-address", "--exporter-address")


def import_simulated_history(
    history: History,
    address: str,
    simulate: str,
    interval: float,
    window_seconds: float,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Fill the history with the simulated fleet's past, generated by the exporter. Returns the number of samples.

    The longest window (`window_seconds`) has a sample every `interval` seconds, as the scrapes that follow; what is
    older has fewer. `progress` gets the number of samples read so far, now and then: none until the exporter has
    generated all.
    """
    begun = time.time()
    recent_seconds = window_seconds + _RECENT_MARGIN_SECONDS
    step = simulated_step(gpu_count(simulate))
    old = _generated(simulate, SIMULATED_HISTORY_SECONDS, step, progress)
    count = _import(history, address, _lines_until(old, begun - recent_seconds))
    seconds = round(recent_seconds + step + time.time() - begun)
    recent = _generated(simulate, seconds, interval, lambda read: progress(count + read))
    return count + _import(history, address, recent)


def _import(history: History, address: str, lines: Iterator[str]) -> int:
    """Only where the history has nothing yet."""
    return import_openmetrics(history, lines_outside(lines, history.span()), address)


def _generated(simulate: str, seconds: int, step: float, progress: Callable[[int], None]) -> Iterator[str]:
    """The last `seconds` of the simulated fleet as OpenMetrics text, read every `step` seconds."""
    command = [sys.executable, "-m", "gpu_exporter", "--simulate", simulate]
    command += ["--simulate.history", f"{seconds}s", "--simulate.step", f"{step:g}s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        if child.stdout is None:
            raise StartupError("cannot read the simulated history from gpu-exporter")
        yield from _counted(child.stdout, progress)


def gpu_count(simulate: str) -> int:
    """How many GPUs a fleet has, such as `8xH100-80GB:training,2xL40S-48GB:lost`."""
    return sum(int(count) for count in re.findall(r"(?:^|,)\s*(\d+)x", simulate))


def simulated_step(gpus: int) -> int:
    """Seconds between the readings of a fleet's history, a multiple of the shortest step."""
    steps = -(-gpus * SIMULATED_HISTORY_SECONDS // (SIMULATED_READINGS * MIN_SIMULATED_STEP_SECONDS))
    return min(max(1, steps) * MIN_SIMULATED_STEP_SECONDS, MAX_SIMULATED_STEP_SECONDS)


def simulated_interval(gpus: int, configured: float, window_seconds: float) -> float:
    """Seconds between scrapes of a simulated fleet: as configured for a few GPUs, longer for many.

    The longest window then has at most half of SIMULATED_READINGS, unless the fleet is very large.
    """
    longer = (each for each in (configured, *SIMULATED_INTERVALS_SECONDS) if each >= configured)
    longest = max(configured, SIMULATED_INTERVALS_SECONDS[-1])
    return next((each for each in longer if gpus * window_seconds / each <= SIMULATED_READINGS / 2), longest)


def _counted(lines: Iterable[str], progress: Callable[[int], None]) -> Iterator[str]:
    for number, line in enumerate(lines):
        if number % _LINES_PER_PROGRESS == 0:
            progress(number)
        yield line


def _lines_until(lines: Iterable[str], end: float) -> Iterator[str]:
    """The lines of OpenMetrics text without a timestamp, or with one before `end` (Unix time)."""
    return (line for line in lines if line.startswith("#") or float(line.rsplit(None, 1)[-1]) < end)


def lines_outside(lines: Iterable[str], span: tuple[float, float] | None) -> Iterator[str]:
    """The lines of OpenMetrics text with a timestamp outside `span` (Unix times).

    Scraped samples lag a little behind generated ones: interleaved, they would look like counter resets.
    """
    for line in lines:
        if span is None or line.startswith("#") or not span[0] <= float(line.rsplit(None, 1)[-1]) <= span[1]:
            yield line
