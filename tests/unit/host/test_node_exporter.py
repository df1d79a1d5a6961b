"""Where a node_exporter runs already, host collectors are off."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from gpu_exporter.config import ExporterSettings, SettingsError, load_settings
from gpu_exporter.host import COLLECTORS
from gpu_exporter.host.node_exporter import is_node_exporter
from gpu_exporter.wiring import build_sampler

from tests.polling import wait_until
from tests.servers import free_port, require_binary

PAGE = b"HTTP/1.0 200 OK\r\n\r\n# TYPE node_exporter_build_info gauge\nnode_exporter_build_info 1\n"


@contextmanager
def server(answer: bytes, close: bool = True) -> Iterator[int]:
    """Sends this to each client, in two parts."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        kept: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                client.recv(4096)
                client.sendall(answer[:40])
                client.sendall(answer[40:])
                kept.append(client)
                if close:
                    client.close()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            for client in kept:
                client.close()


@pytest.mark.parametrize("cut", [0, 35, 45, 60])
def test_it_is_recognized_however_its_page_is_split(cut: int) -> None:
    with server(PAGE[:30] + b"#" * cut + PAGE[30:], close=False) as port:
        assert is_node_exporter("127.0.0.1", port)


def test_others_are_not() -> None:
    with server(b"HTTP/1.0 200 OK\r\n\r\nup 1\n") as port:
        assert not is_node_exporter("127.0.0.1", port)
    with server(b"", close=False) as port:
        assert not is_node_exporter("127.0.0.1", port, timeout_seconds=0.05)
    assert not is_node_exporter("127.0.0.1", free_port())
    assert not is_node_exporter("host.invalid", 9100, timeout_seconds=0.05)


@pytest.mark.servers
def test_the_real_one_is_recognized() -> None:
    port = free_port()
    command = [require_binary("prometheus-node-exporter"), f"--web.listen-address=127.0.0.1:{port}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: is_node_exporter("127.0.0.1", port), "node_exporter is recognized")
        finally:
            process.terminate()


def host_tasks(address: str) -> set[str]:
    settings = ExporterSettings(node_exporter=address, simulate="1xT4-16GB")
    return {task.name for task in build_sampler(settings, {}).tasks} & COLLECTORS.keys()


def test_host_collectors_are_off_beside_it_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert host_tasks("") == COLLECTORS.keys()
    with server(PAGE) as port, caplog.at_level(logging.INFO):
        assert host_tasks(f"127.0.0.1:{port}") == set()
    assert "host collectors are off" in caplog.text
    assert f"127.0.0.1:{port}" in caplog.text
    assert host_tasks(f"127.0.0.1:{free_port()}") == COLLECTORS.keys()


@pytest.mark.parametrize("address", ["9100", "localhost", "localhost:", "localhost:x", "localhost:70000", ":9100"])
def test_an_invalid_address_is_an_error(address: str) -> None:
    with pytest.raises(SettingsError, match=r"--collector\.host\.node-exporter: .* must be HOST:PORT"):
        load_settings([f"--collector.host.node-exporter={address}"], ("host",))


def test_network_statistics_are_those_of_process_1() -> None:
    """A container sees the host's traffic there, and its own in /proc/net."""
    from gpu_exporter.host.base import HostSettings

    settings = HostSettings()
    assert settings.net == ("/proc/1/net" if os.path.isdir("/proc/1/net") else "/proc/net")
