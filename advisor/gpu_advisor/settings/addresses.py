"""Addresses to listen on."""

from __future__ import annotations

import os
import re
import socket

#: Connections that wait to be accepted; Linux limits it to net.core.somaxconn.
BACKLOG = 4096


class AddressError(Exception):
    """An address cannot be listened on. The message says how to fix it."""


def split_host_port(address: str) -> tuple[str, int]:
    """`HOST:PORT` or `[IPv6]:PORT`. Raises AddressError."""
    host, _, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if ":" in host and not bracketed:
        raise AddressError(f"{address!r} is not HOST:PORT: write an IPv6 address in brackets, as in [::1]:9817")
    if not host.strip("[]") or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise AddressError(f"{address!r} is not HOST:PORT, as in 127.0.0.1:9817")
    return host[1:-1] if bracketed else host, int(port)


def join_host_port(host: str, port: int) -> str:
    """`HOST:PORT`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen(address: str, option: str) -> socket.socket:
    """A socket that listens on the address. Raises AddressError, naming `option`, if it is not available."""
    host, port = split_host_port(address)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise AddressError(
            f"cannot listen on {address}: {os.strerror(error.errno) if error.errno else error}; "
            f"stop the process that uses it, or choose another address with {option}"
        ) from error


def check_can_listen(address: str, option: str) -> None:
    """Raises AddressError, naming `option`, if the address is in use or not one of this machine."""
    listen(address, option).close()
