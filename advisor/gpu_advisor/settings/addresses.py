"""Addresses to listen on."""

from __future__ import annotations

import re
import socket


class AddressError(Exception):
    """An address cannot be listened on. The message says how to fix it."""


def split_host_port(address: str) -> tuple[str, int]:
    """`HOST:PORT` or `[IPv6]:PORT`. Raises AddressError."""
    host, _, port = address.rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise AddressError(f"{address!r} is not HOST:PORT, as in 127.0.0.1:9817")
    return host.strip("[]"), int(port)


def check_can_listen(address: str, option: str) -> None:
    """Raises AddressError, naming `option`, if the address is in use or not one of this machine."""
    host, port = split_host_port(address)
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise AddressError(
            f"cannot listen on {address}: {error.strerror or error}; "
            f"stop the process that uses it, or choose another address with {option}"
        ) from error
