"""The sections of the web configuration file other than TLS."""

from __future__ import annotations

import importlib
import re
from typing import Any

import yaml

from gpu_exporter.config import parse_duration
from gpu_exporter.webconfig.document import WebConfigError, YamlDocument

#: The header fields that may be set, and their allowed values; None allows any.
_HEADERS: dict[str, tuple[str, ...] | None] = {
    "Content-Security-Policy": None,
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-Content-Type-Options": ("nosniff",),
    "X-XSS-Protection": None,
    "Strict-Transport-Security": None,
}
_BCRYPT = re.compile(r"\$2[aby]\$(?:0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")


def parse_headers(document: YamlDocument, node: yaml.Node | None) -> tuple[tuple[str, str], ...]:
    """The header fields in http_server_config. Raises WebConfigError."""
    http = document.mapping(node, "http_server_config", ("http2", "headers"))
    if "http2" in http:
        document.boolean(http["http2"], "http_server_config.http2")
    fields: list[tuple[str, str]] = []
    for name, value_node in document.mapping(
        http.get("headers"), "http_server_config.headers", tuple(_HEADERS)
    ).items():
        key, value = f"http_server_config.headers.{name}", document.string(value_node, f"headers.{name}")
        if known := _HEADERS[name]:
            document.require_one_of(value_node, key, value.lower(), (*known, ""))
        if not value.isprintable() or not value.isascii():
            raise document.make_error(
                value_node, key, "contains characters that are not allowed in a header field; use printable ASCII"
            )
        if value:
            fields.append((name, value))
    return tuple(fields)


def parse_users(document: YamlDocument, node: yaml.Node | None) -> dict[bytes, bytes]:
    """User -> bcrypt hash. Raises WebConfigError."""
    users: dict[bytes, bytes] = {}
    for name, value in document.mapping(node, "basic_auth_users", None).items():
        password_hash = document.string(value, f"basic_auth_users.{name}")
        if not _BCRYPT.fullmatch(password_hash):
            raise document.make_error(
                value, f"basic_auth_users.{name}", "not a bcrypt hash; create one with: htpasswd -nBC 10 ''"
            )
        if not name or ":" in name:
            raise document.make_error(
                value, f"basic_auth_users.{name}", "invalid user name; it must not be empty or contain a colon"
            )
        users[name.encode()] = password_hash.encode()
    return users


def import_bcrypt(document: YamlDocument) -> Any:
    """The package bcrypt, an optional dependency. Raises WebConfigError."""
    try:
        return importlib.import_module("bcrypt")
    except ImportError as error:
        raise WebConfigError(
            f"{document.path}: basic_auth_users: needs the package bcrypt: pip install '.[web]' in a checkout, or "
            "pip install 'gpu-advisor[web] @ git+https://github.com/gpu-advisor/gpu-advisor'"
        ) from error


def parse_rate_limit(document: YamlDocument, node: yaml.Node | None) -> tuple[float, int]:
    """(seconds per request, 0 for no limit; burst size). Raises WebConfigError."""
    entries = document.mapping(node, "rate_limit", ("interval", "burst"))
    interval = 0.0
    if "interval" in entries:
        text = document.string(entries["interval"], "rate_limit.interval")
        try:
            interval = 0.0 if text in ("", "0") else parse_duration(text)
        except ValueError as error:
            raise document.make_error(entries["interval"], "rate_limit.interval", str(error)) from error
    burst = document.string(entries["burst"], "rate_limit.burst") if "burst" in entries else "0"
    if not burst.isdecimal():
        raise document.make_error(entries["burst"], "rate_limit.burst", "not an integer")
    if interval and not int(burst):
        place = entries.get("burst", entries["interval"])
        raise document.make_error(place, "rate_limit.burst", "allows no request; set it to at least 1, for example 20")
    return interval, int(burst)
