"""Whether a node_exporter serves this machine's host metrics already."""

from __future__ import annotations

import socket

TIMEOUT_SECONDS = 1.0
MAX_PAGE_BYTES = 8 * 1024 * 1024
#: A family that every page of node_exporter has.
SIGN = b"node_exporter_build_info"


def is_node_exporter(host: str, port: int, timeout_seconds: float = TIMEOUT_SECONDS) -> bool:
    """Whether a node_exporter answers at this address; one that wants TLS or a password is not recognized.

    Without http.client, which would cost memory on every node.
    """
    request = f"GET /metrics HTTP/1.0\r\nHost: {host}:{port}\r\nAccept: text/plain\r\n\r\n".encode()
    received = b""
    total = 0
    try:
        with socket.create_connection((host, port), timeout_seconds) as connection:
            connection.sendall(request)
            while total < MAX_PAGE_BYTES and (data := connection.recv(65536)):
                total += len(data)
                received = received[-len(SIGN) :] + data
                if SIGN in received:
                    return True
    except OSError:
        return False
    return False
