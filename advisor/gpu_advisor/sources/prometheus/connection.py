"""How to reach a Prometheus API: address and credentials, and what it means if nobody answers."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase, HTTPBasicAuth

from gpu_advisor.loopback import is_loopback
from gpu_advisor.rendering.error_causes import causes, system_messages
from gpu_advisor.sources.base import SourceError, SourceErrorKind
from gpu_advisor.sources.prometheus.http_client import DeadlineClient
from gpu_advisor.storage.secret_file import Secret, reveal


@dataclass(frozen=True)
class PrometheusClientConfig:
    """Address and credentials of the API. Raises ValueError, never with a secret in it."""

    url: str  # base URL, without /api/v1/query
    timeout_seconds: float = 30.0  # per query, including retries
    retries: int = 2
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    bearer_token: Secret | None = field(default=None, repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    insecure_skip_verify: bool = False

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise ValueError(problem)


def open_client(settings: PrometheusClientConfig) -> DeadlineClient:
    """With its headers and credentials."""
    client = DeadlineClient()
    headers = {"User-Agent": "gpu-advisor", "Accept": "application/json", **settings.headers}
    if is_loopback(urlsplit(settings.url).hostname or ""):
        headers["Accept-Encoding"] = "identity"  # compression costs both sides CPU, and saves no network here
    client.session.headers.update(headers)
    if settings.bearer_token is not None:
        client.session.auth = _BearerAuth(settings.bearer_token)
    elif settings.username is not None:
        client.session.auth = HTTPBasicAuth(settings.username.encode(), (settings.password or "").encode())
    if settings.cert_file is not None:
        client.session.cert = (settings.cert_file, settings.key_file) if settings.key_file else settings.cert_file
    return client


def unreachable_error(server: str, error: requests.ConnectionError) -> SourceError:
    """What stands in the way of a connection, and what to check."""
    found = list(causes(error))
    if isinstance(error, requests.exceptions.ProxyError):
        what = "cannot connect to the proxy. Check HTTP_PROXY and HTTPS_PROXY, or add the host to NO_PROXY"
    elif isinstance(error, requests.exceptions.SSLError):
        reason = next((cause.verify_message for cause in found if isinstance(cause, ssl.SSLCertVerificationError)), "")
        what = f"TLS failed{f' ({reason})' if reason else ''}. Set ca_file to the CA that signed its certificate"
        what += " (cert_file and key_file if it requires a client certificate), or use http:// if it does not use TLS"
    elif any(isinstance(cause, socket.gaierror) for cause in found):
        what = "unknown host name. Check url for a typo, and this machine's DNS"
    else:
        reason = next(system_messages(error), "")
        what = f"no connection{f' ({reason})' if reason else ''}. Check that it is running, that the port in its URL"
        what += " is right, and that no firewall blocks it"
    return SourceError(SourceErrorKind.UNREACHABLE, f"{server}: {what}.")


class _BearerAuth(AuthBase):
    def __init__(self, token: Secret) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {reveal(self._token).strip()}"
        return request


def _problems(settings: PrometheusClientConfig) -> Iterator[str]:
    parts = urlsplit(settings.url)
    if parts.username is not None or parts.password is not None:
        yield "url must not contain credentials: set username and password"
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        yield "url must look like http://host:9090 or https://host/prometheus, with nothing after the path"
    if not settings.timeout_seconds > 0 or settings.retries < 0:
        yield "timeout_seconds must be greater than 0, and retries at least 0"
    if settings.bearer_token is not None and settings.username is not None:
        yield "set bearer_token, or username and password, but not both"
    if settings.password is not None and settings.username is None:
        yield "password needs username"
    if settings.key_file is not None and settings.cert_file is None:
        yield "key_file needs cert_file"
    if not _is_header_text(reveal(settings.bearer_token or "").strip()):
        yield "bearer_token contains characters not allowed in an HTTP header: is it the right file?"
    for name, value in settings.headers.items():
        if not name or not _is_header_text(name) or not _is_header_text(value):
            yield f"name or value of header {name!r} contains characters not allowed in HTTP"


def _is_header_text(text: str) -> bool:
    return text.isascii() and all(character.isprintable() for character in text) and text == text.strip()
