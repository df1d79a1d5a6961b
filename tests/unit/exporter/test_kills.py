"""kill -9 of the exporter: the GPUs that it knew are still known, each once, also the lost one; no Xid is lost.

Five times; KILLS=20 in the environment for more.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.servers import free_port
from tests.simulated_nvml.build import CONTROL_VARIABLE, NoCompilerError, build
from tests.simulated_nvml.control import Control, SimulatedGpu

KILLS = int(os.environ.get("KILLS", "5"))
GPUS = 4


def known_gpus(page: str) -> list[str]:
    return sorted(re.findall(r'^gpu_up\{uuid="([^"]+)"\}', page, re.MULTILINE))


def fetch(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    except OSError:
        return ""
    finally:
        connection.close()


def xids(page: str) -> float:
    """The Xids 48 of all GPUs."""
    return sum(map(float, re.findall(r'^gpu_xid_errors_total\{uuid="[^"]+",xid="48"\} (\S+)$', page, re.MULTILINE)))


def test_kills_lose_no_gpu_and_no_xid_and_double_none(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    try:
        library = build(tmp_path)
    except NoCompilerError as error:
        pytest.skip(str(error))
    control = Control(tmp_path / "control")
    control.gpus = [SimulatedGpu(level=50.0) for _ in range(GPUS)]
    control.write()
    port = free_port()
    command = [
        sys.executable, "-m", "gpu_exporter", f"--web.listen-address=127.0.0.1:{port}", "--no-collector.host",
        f"--state.directory={tmp_path / 'state'}",
    ]  # fmt: skip
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library.parent), CONTROL_VARIABLE: str(control.path)}
    expected: list[str] = []
    for number in range(KILLS):
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                wait_until(lambda: len(known_gpus(fetch(port))) == GPUS, f"{GPUS} GPUs after kill {number}")
                found = known_gpus(fetch(port))
                expected = expected or found
                assert found == expected
                wait_until(lambda: xids(fetch(port)) == number, f"{number} Xids, each from before a kill")  # noqa: B023
                control.xids.append((number % (GPUS - 1), 48))
                control.write()
                wait_until(lambda: xids(fetch(port)) == number + 1, f"Xid {number + 1}")  # noqa: B023
                if number == KILLS // 2:  # one leaves the bus, and is only in the file from now on
                    del control.gpus[-1]
                    control.write()
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait(30)
    record_property("seen", f"{KILLS} kills, {len(expected)} GPUs and {KILLS} Xids")
    state = tmp_path / "state"
    assert state.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in state.iterdir() if path.is_file()} == {0o600}
