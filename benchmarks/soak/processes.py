"""Programs that are killed and started again on one port and one folder of data."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

READY_SECONDS = 60.0
STOP_SECONDS = 10.0


class NotReadyError(Exception):
    """A program did not answer in time; the message has the end of its log."""


class Program:
    """A program that answers HTTP on a port of 127.0.0.1. Its log is appended to `log`."""

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        ready_path: str,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.address = ("127.0.0.1", port)
        self.log = log
        self._command = list(command)
        self._ready_path = ready_path
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, and wait until it answers. Raises NotReadyError."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self._environment
            )
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self.runs:
            try:
                if self.request("GET", self._ready_path)[0] == http.client.OK:
                    return
            except OSError:
                time.sleep(0.1)
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
        raise NotReadyError(f"{self._command[0]} does not answer on {self.address}\n{tail}")

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)

    def stop(self) -> None:
        if not self.runs or self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def request(self, method: str, path: str, document: Any = None) -> tuple[int, bytes]:
        """Send a document as JSON, if any; status and body. Raises OSError."""
        connection = http.client.HTTPConnection(*self.address, timeout=10)
        try:
            if document is None:
                connection.request(method, path)
            else:
                connection.request(method, path, json.dumps(document), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    def document(self, path: str) -> Any:
        """The JSON document there. Raises OSError if there is none."""
        status, body = self.request("GET", path)
        if status != http.client.OK:
            raise OSError(f"{path} answered {status}")
        return json.loads(body)
