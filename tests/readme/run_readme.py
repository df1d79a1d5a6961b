"""Inside the minimal Debian: run the README's commands and check their effects. Standard library only.

Each command must be in the README verbatim.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

SET_UP_WITHIN_SECONDS = 600.0
STOPS_WITHIN_SECONDS = 20.0
ADVISOR = "http://127.0.0.1:9817"
EXPORTER = "http://127.0.0.1:9816"


def require_in_readme(command: str) -> str:
    """Return the command, or exit if the README does not contain it."""
    in_a_block = any(line.strip() == command and line.startswith("    ") for line in README.splitlines())
    if not in_a_block and f"`{command}`" not in README:
        sys.exit(f"not in the README: {command}")
    return command


def fetch(url: str) -> str | None:
    """The text at a URL, or None while nothing responds."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return str(response.read().decode())
    except (urllib.error.URLError, OSError):
        return None


@contextmanager
def run_until_ready(command: str) -> Iterator[None]:
    """Run the command in a shell until it is ready; then the block, then Ctrl-C."""
    print(f"$ {command}", flush=True)
    if fetch(f"{ADVISOR}/-/healthy") or fetch(f"{EXPORTER}/-/healthy"):
        sys.exit(f"{ADVISOR} or {EXPORTER} is in use: stop what listens there")
    started = time.monotonic()
    process = subprocess.Popen(["sh", "-c", command], cwd=ROOT, start_new_session=True)
    try:
        while not fetch(f"{ADVISOR}/-/ready"):
            if process.poll() is not None:
                sys.exit(f"{command}: exited with {process.returncode}")
            if time.monotonic() - started > SET_UP_WITHIN_SECONDS:
                sys.exit(f"{command}: not ready after {SET_UP_WITHIN_SECONDS:g} s")
            time.sleep(0.5)
        print(f"ready after {time.monotonic() - started:.0f} s", flush=True)
        yield
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        process.wait(STOPS_WITHIN_SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + STOPS_WITHIN_SECONDS
    while fetch(f"{EXPORTER}/-/healthy") or fetch(f"{ADVISOR}/-/healthy"):
        if time.monotonic() > deadline:
            sys.exit(f"{command}: still serving after Ctrl-C")
        time.sleep(0.5)
    print("stopped by Ctrl-C", flush=True)


def kinds() -> list[str]:
    """Kinds of the present recommendations."""
    return sorted(each["kind"] for each in json.loads(fetch(f"{ADVISOR}/recommendations") or "{}")["recommendations"])


def check_advisor(advice: bool) -> None:
    """Check page, metrics and API, and that there are recommendations if `advice`."""
    page, metrics = fetch(f"{ADVISOR}/"), fetch(f"{EXPORTER}/metrics")
    if not page or "<html" not in page or not metrics or "node_cpu_seconds_total" not in metrics:
        sys.exit("page or metrics are not served")
    deadline = time.monotonic() + 60
    while advice and not kinds():
        if time.monotonic() > deadline:
            sys.exit("no recommendations after a minute")
        time.sleep(1)
    print(f"recommendations: {', '.join(kinds()) or 'none'}", flush=True)


def run(command: str, **environment: str) -> None:
    print(f"$ {command}", flush=True)
    code = subprocess.run(["sh", "-c", command], cwd=ROOT, env={**os.environ, **environment}, check=False).returncode
    if code:
        sys.exit(f"{command}: exited with {code}")


def main() -> None:
    with run_until_ready(require_in_readme("make up")):
        check_advisor(advice=False)
    simulated = next(line.strip() for line in README.splitlines() if line.startswith("    make up SIMULATE="))
    with run_until_ready(simulated):
        check_advisor(advice=True)
    # "Without make" needs a virtual environment: Debian's pip refuses to install system-wide.
    run("python3 -m venv /tmp/environment")
    inside = ". /tmp/environment/bin/activate && "
    run(inside + require_in_readme("pip install '.[advisor]'"))
    with run_until_ready(inside + require_in_readme("gpu-advisor up --simulate 8xH100-80GB:idle-hoarder")):
        check_advisor(advice=True)
    tests = os.environ.get("README_TESTS", "")
    print(f"make test runs {tests or 'everything'}", flush=True)
    run(require_in_readme("make test"), PYTEST_ADDOPTS=tests)
    print("all commands of the README work")


if __name__ == "__main__":
    main()
