"""Addresses of this machine, and requests to them: no proxy of the network can reach those."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether it names this machine only: localhost, or an address as 127.0.0.1 or ::1."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def proxies_for(url: str) -> dict[str, str] | None:
    """`proxies` of a request of the package requests: none to this machine, else those of the environment.

    0.0.0.0, at which a server listens on all addresses, is this machine, too.
    As Go's programs have it (https://pkg.go.dev/net/http#ProxyFromEnvironment). requests asks a proxy for 127.0.0.1,
    unless NO_PROXY has it. Its own `no_proxy` would be set in the environment during each request, for all threads.
    """
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return None
    return {"http": "", "https": ""} if is_loopback(host) or host in ("0.0.0.0", "::") else None
