"""Keeps pages of other sites from using a browser inside the network: cross-site requests, and DNS rebinding.

A browser says which site a request comes from (Sec-Fetch-Site; over plain HTTP only Origin), and cannot be made to lie
about Host. A page that rebinds its own name to this address (https://en.wikipedia.org/wiki/DNS_rebinding) is the same
origin as this server to the browser, but its requests have a Host that is not ours.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

from flask import Flask, Response, request

from gpu_advisor.settings import WebSettings
from gpu_advisor.settings.addresses import split_host_port
from gpu_advisor.web.api import problem_details
from gpu_advisor.web.api.authentication import PUBLIC_PATHS

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: `same-site` is another origin: a sibling domain may be somebody else's.
_OWN_SITES = frozenset({"same-origin", "none"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_cross_site(method: str, headers: Mapping[str, str], origins: Collection[str] = ()) -> bool:
    """Whether a request that may change something comes from a page of another origin, as far as a browser says.

    `origins`: where the page is reached through a proxy that rewrites Host. Without Origin and Sec-Fetch-Site the
    client is no browser.
    """
    if method in SAFE_METHODS:
        return False
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site.strip().lower() not in _OWN_SITES
    origin = headers.get("Origin")
    if origin is None:
        return False
    parts = _split_origin(origin)
    return parts is None or not (parts[1:] == _split_host(headers.get("Host", ""), parts[0]) or origin in origins)


def is_known_host(host: str, names: Collection[str]) -> bool:
    """Whether a Host field is an IP address, localhost or one of these names (lower case)."""
    name = _split_host(host, "http")[0].rstrip(".")
    if name == "localhost" or name.endswith(".localhost") or name in names:
        return True
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def known_names(web: WebSettings) -> frozenset[str]:
    """The names that the settings give this server."""
    names = {*web.allowed_hosts, split_host_port(web.listen_address)[0], urlsplit(web.external_url).hostname or ""}
    return frozenset(name.lower().rstrip(".") for name in names if name)


def register(app: Flask, web: WebSettings, login_required: bool) -> None:
    names = known_names(web)
    external = urlsplit(web.external_url)
    origins = (f"{external.scheme}://{external.netloc}",) if external.netloc else ()

    @app.before_request
    def refuse() -> Response | None:
        if request.path in PUBLIC_PATHS:
            return None
        host = request.headers.get("Host", "")
        if not login_required and not is_known_host(host, names):
            return problem_details.problem_response(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"Host {host[:100]!r} is not a name of this server: use its IP address, or add the name to "
                "web.allowed_hosts",
            )
        if is_cross_site(request.method, dict(request.headers), origins):
            return problem_details.problem_response(
                HTTPStatus.FORBIDDEN, "refused: a page of another site sent this request"
            )
        return None


def _split_origin(origin: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None for `null` and what is no origin."""
    found = re.fullmatch(r"(https?)://([^/?#@\s]+)", origin.strip().lower())
    return (found[1], *_split_host(found[2], found[1])) if found else None


def _split_host(host: str, scheme: str) -> tuple[str, int]:
    """Host and port of `HOST[:PORT]`, in lower case, without brackets; port -1 if it is none."""
    found = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::([0-9]{0,5}))?", host.strip().lower())
    if found is None:
        return host.lower(), -1
    return found[1].strip("[]"), int(found[2]) if found[2] else _DEFAULT_PORTS[scheme]
