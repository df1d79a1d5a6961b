"""A real vLLM with the tiny model, and clients that keep it busy."""

from __future__ import annotations

import http.client
import json
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import requests

from tests.polling import wait_until
from tests.servers import free_port

START_WITHIN_SECONDS = 600.0
STOP_WITHIN_SECONDS = 60.0

#: Nothing is fetched, nothing is reported, one thread a process: the test's machine has two cores.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}


@dataclass
class Vllm:
    """A running server. `address` is host:port."""

    address: str
    log_path: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")[-4000:]

    def engine_seconds(self) -> float:
        """CPU time (seconds) that the engine, a process of its own, has used so far.

        What else the machine does changes the time on the wall many times more than this.
        """
        times = [each.cpu_times() for each in psutil.Process(self.process.pid).children(recursive=True)]
        return sum(each.user + each.system for each in times)

    def is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"vLLM exited with status {self.process.returncode}:\n{self.log()}")
        try:
            return requests.get(f"http://{self.address}/health", timeout=10).status_code == 200
        except requests.RequestException:
            return False  # not listening yet


def version(environment: Path) -> str:
    """The release of vLLM in an environment."""
    command = [
        str(environment / "bin/python"),
        "-c",
        "from importlib.metadata import version; print(version('vllm-cpu'))",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def vllm(environment: Path, folder: Path, arguments: Sequence[str]) -> Iterator[Vllm]:
    """Start vLLM of `environment` with `arguments` beside the model's, and stop it at the end of the block."""
    address = f"127.0.0.1:{free_port()}"
    log_path = folder / f"vllm-{address.rpartition(':')[2]}.log"
    command = [
        str(environment / "bin/python"), "-m", "vllm.entrypoints.openai.api_server", "--model",
        str(environment / "model"), "--served-model-name", "tiny", "--host", "127.0.0.1", "--port",
        address.rpartition(":")[2], "--max-model-len", "1024", "--dtype", "bfloat16", "--enforce-eager",
        "--no-enable-prefix-caching", *arguments,
    ]  # fmt: skip
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=folder,
            env={**os.environ, **ENVIRONMENT},
        )  # fmt: skip
    server = Vllm(address, log_path, process)
    try:
        wait_until(server.is_ready, "vLLM is ready", server, timeout_seconds=START_WITHIN_SECONDS, interval_seconds=0.5)
        yield server
    finally:
        process.terminate()  # the server stops its engine's process
        try:
            process.wait(STOP_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_WITHIN_SECONDS)


@contextmanager
def clients(server: Vllm, count: int, prompt_tokens: int, answer_tokens: int) -> Iterator[None]:
    """`count` clients, each of which sends its next request when it has the answer to the last one."""
    stop = threading.Event()
    threads = [
        threading.Thread(target=_ask_again, args=(server, number, prompt_tokens, answer_tokens, stop))
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def ask_all(server: Vllm, count: int, at_a_time: int, prompt_tokens: int, answer_tokens: int) -> None:
    """Send `count` requests, so many at a time, and wait for their answers. Raises HTTPError."""

    def ask(number: int) -> None:
        body = _body(random.Random(number), prompt_tokens, answer_tokens)
        requests.post(f"http://{server.address}/v1/completions", json=body, timeout=600).raise_for_status()

    with ThreadPoolExecutor(at_a_time) as clients_at_work:
        list(clients_at_work.map(ask, range(count)))


def _body(draw: random.Random, prompt_tokens: int, answer_tokens: int) -> dict[str, object]:
    return {
        "model": "tiny",
        "prompt": [draw.randrange(10, 2000) for _ in range(prompt_tokens)],
        "max_tokens": answer_tokens,
        "ignore_eos": True,
    }


def _ask_again(server: Vllm, seed: int, prompt_tokens: int, answer_tokens: int, stop: threading.Event) -> None:
    draw = random.Random(seed)
    connection = http.client.HTTPConnection(server.address, timeout=300)
    while not stop.is_set():
        body = _body(draw, prompt_tokens, answer_tokens)
        try:
            connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            connection.close()
            time.sleep(0.5)
    connection.close()
