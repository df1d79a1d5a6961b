"""Keeps pages of other sites from using a browser inside the network to trigger actions.

Sec-Fetch-Site and Origin say which site a request comes from; without both the client is no browser. A page that
rebinds its own name to this address (DNS rebinding) has a Host that is not ours.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

_OWN_SITES = ("same-origin", "none")
_ORIGIN = re.compile(r"(https?)://([^/?#@\s]+)")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:]*)(?::([0-9]{0,5}))?")
_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])(?:\.(?!$)|$)){4}")
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
        host.startswith("[")
        or bool(_IPV4.fullmatch(name))
        or name in ("", "localhost")  # no Host: HTTP/1.0, which browsers do not speak
        or name.endswith(".localhost")
        or name in {each.lower() for each in names}
    )


def _split(host: str, scheme: str) -> tuple[str, str]:
    """Host and port of `HOST[:PORT]`, in lower case."""
    found = _HOST.fullmatch(host.strip().lower())
    return (found[1], found[2] or _DEFAULT_PORTS[scheme]) if found else (host.lower() or "?", "?")
