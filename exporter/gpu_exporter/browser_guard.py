"""Keeps pages of other sites from using a browser inside the network to trigger actions.

Sec-Fetch-Site and Origin say which site a request comes from; without both the client is no browser. A page that
rebinds its own name to this address (DNS rebinding) has a Host that is not ours.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection, Mapping

_OWN_SITES = ("same-origin", "none")
_ORIGIN = re.compile(r"(https?)://([^/?#@\s]+)")
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::([0-9]{0,5}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def refusal(fields: Mapping[str, str], names: Collection[str]) -> str:
    """Why an action must not run; empty if it may. `fields` have names in lower case, `names` are this server's."""
    host, _ = _split(fields.get("host", ""), "http")
    if not _is_own(host, names):
        return "unknown Host; use the IP address or the configured name of this server"
    site, origin = fields.get("sec-fetch-site"), fields.get("origin")
    if site is not None:
        cross_site = site.strip().lower() not in _OWN_SITES
    elif origin is not None:
        parts = _ORIGIN.fullmatch(origin.strip().lower())
        cross_site = not parts or _split(parts[2], parts[1]) != _split(fields.get("host", ""), parts[1])
    else:
        return ""
    return "a page of another site sent this request" if cross_site else ""


def _is_own(host: str, names: Collection[str]) -> bool:
    name = host.rstrip(".")
    return (
        name in ("", "localhost")  # no Host: HTTP/1.0, which browsers do not speak
        or name.endswith(".localhost")
        or name in {each.lower() for each in names}
        or _is_address(name)
    )


def _is_address(name: str) -> bool:
    """Whether it is a whole IP address."""
    plain = name.partition("%")[0]
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, plain)
        except (OSError, ValueError):  # ValueError: a null byte
            continue
        return True
    return False


def _split(host: str, scheme: str) -> tuple[str, str]:
    """Host and port of `HOST[:PORT]`, in lower case, without brackets."""
    found = _HOST.fullmatch(host.strip().lower())
    return (found[1].strip("[]"), found[2] or _DEFAULT_PORTS[scheme]) if found else (host.lower() or "?", "?")
