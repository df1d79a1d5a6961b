"""The file of `--web.config.file` that Prometheus' own exporters share: TLS, users, rate limit, header fields.

Format: prometheus/exporter-toolkit, docs/web-configuration.md. What of it cannot be done here is refused and not
ignored: a `client_auth_type` that does not verify (Python's ssl has none), several `curve_preferences` before Python
3.15. Only `http2` may stand there and change nothing: this server speaks HTTP/1.1.

ssl and bcrypt are imported where the file asks for them and not before: both cost memory.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_exporter.webconfig import sections, tls
from gpu_exporter.webconfig.document import WebConfigError, YamlDocument

if TYPE_CHECKING:
    import ssl

__all__ = ["WebConfig", "WebConfigError", "WebConfigReloader"]

log = logging.getLogger(__name__)

_SECTION_NAMES = ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit")
#: bcrypt looks no further, and its package refuses what is longer.
_MAX_PASSWORD_BYTES = 72
_MAX_VERIFIED_CREDENTIALS = 100


@dataclass
class WebConfig:
    """One reading of the file and of the certificates that it names; it does not change. Use it from any thread."""

    path: Path
    #: Fields to add to every answer.
    headers: tuple[tuple[str, str], ...] = ()
    _context: ssl.SSLContext | None = None
    _users: dict[bytes, bytes] = field(default_factory=dict)
    _bcrypt: Any = None
    _interval: float = 0.0
    _burst: int = 0
    _signatures: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._salt = secrets.token_bytes(32)
        self._verified_credentials: dict[bytes, None] = {}
        self._lock = threading.Lock()
        self._tokens, self._refilled_at = float(self._burst), time.monotonic()

    @classmethod
    def load(cls, path: Path) -> WebConfig:
        """Read the file and what it names. Raises WebConfigError."""
        path = Path(path)
        signatures = {str(path): _file_signature(str(path))}  # before reading: a change while we read shows then
        document = YamlDocument(path)
        parts = document.mapping(document.compose(), "", _SECTION_NAMES)
        users = sections.users(document, parts.get("basic_auth_users"))
        settings = tls.parse_tls(document, parts.get("tls_server_config"))
        if settings:
            signatures.update((name, _file_signature(name)) for name in settings.files)
        interval, burst = sections.parse_rate_limit(document, parts.get("rate_limit"))
        return cls(
            path,
            headers=sections.headers(document, parts.get("http_server_config")),
            _context=tls.create_ssl_context(settings) if settings else None,
            _users=users,
            _bcrypt=sections.import_bcrypt(document) if users else None,
            _interval=interval,
            _burst=burst,
            _signatures=signatures,
        )

    @property
    def users(self) -> bool:
        """Whether a request needs a user: one that `authorize` refuses is answered 401 with WWW-Authenticate: Basic."""
        return bool(self._users)

    def ssl_context(self) -> ssl.SSLContext | None:
        """For `wrap_socket(..., server_side=True)`; None without tls_server_config. The same one each time."""
        return self._context

    def has_changed(self) -> bool:
        """Whether the file or one that it names is another than was read."""
        return any(_file_signature(path) != signature for path, signature in self._signatures.items())

    def authorize(self, header: str | None) -> bool:
        """Whether a request with this Authorization field may pass; always if the file names no users.

        The first time, a right password takes as long as its hash wants (0.07 s at a cost of 10); later it is known.
        A user who does not exist takes as long as the one with the costliest hash.
        """
        if not self._users:
            return True
        credentials = _parse_basic_auth(header)
        if credentials is None:
            return False
        user, password = credentials
        password_hash = self._users.get(user)
        parts = (user, password_hash or b"", password)
        key = hmac.digest(self._salt, b"".join(b"%d:%s" % (len(part), part) for part in parts), hashlib.sha256)
        if key in self._verified_credentials:
            return True
        # One at a time: guessing passwords must not take all of the node's CPUs.
        with self._lock:
            try:
                is_valid = self._bcrypt.checkpw(
                    password[:_MAX_PASSWORD_BYTES], password_hash or max(self._users.values(), key=_bcrypt_cost)
                )
            except ValueError:  # a NUL, in some versions of the package
                is_valid = False
            if not (is_valid and password_hash):
                return False
            if len(self._verified_credentials) >= _MAX_VERIFIED_CREDENTIALS:
                self._verified_credentials.clear()
            self._verified_credentials[key] = None
        return True

    def allow_request(self) -> bool:
        """Whether the rate limit lets one more request pass; who is not let pass is answered 429."""
        if not self._interval:
            return True
        with self._lock:
            now = time.monotonic()
            self._tokens = min(float(self._burst), self._tokens + (now - self._refilled_at) / self._interval)
            self._refilled_at = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


class WebConfigReloader:
    """Keeps the last good reading of the file: a mistake in an edit costs a line in the log, never the service."""

    def __init__(self, path: Path, interval_seconds: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises WebConfigError: at the start the file has to be good."""
        self._config = WebConfig.load(path)
        self._interval = interval_seconds
        self._clock = clock
        self._checked_at = clock()
        self._lock = threading.Lock()
        self._last_error = ""

    def current(self) -> WebConfig:
        """The reading that is in force. Looks for changes at most once in `interval_seconds`.

        Ask for each connection and each request; connections that are open keep their context.
        """
        if self._clock() - self._checked_at >= self._interval and self._lock.acquire(blocking=False):
            try:
                self._checked_at = self._clock()
                if self._config.has_changed():
                    self._reload()
            finally:
                self._lock.release()
        return self._config

    def _reload(self) -> None:
        try:
            config = WebConfig.load(self._config.path)
        except WebConfigError as error:
            self._log_rejected(str(error))
            return
        if bool(config.ssl_context()) != bool(self._config.ssl_context()):
            self._log_rejected(f"{config.path}: TLS is switched on and off by a restart only")
            return
        log.info("%s was read again", config.path)
        self._last_error = ""
        self._config = config

    def _log_rejected(self, why: str) -> None:
        if why != self._last_error:
            log.error("%s; what was read before stays in force", why)
        self._last_error = why


def _parse_basic_auth(header: str | None) -> tuple[bytes, bytes] | None:
    """User and password of `Basic ...` (RFC 7617); None for anything else."""
    scheme, _, token = (header or "").strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(token.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon else None


def _bcrypt_cost(password_hash: bytes) -> bytes:
    return password_hash[4:6]


def _file_signature(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
