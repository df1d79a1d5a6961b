"""`--web.config.file`, in the format of the Prometheus exporter toolkit: TLS, basic auth, rate limit, headers.

Format: prometheus/exporter-toolkit, docs/web-configuration.md. Unsupported settings are rejected, not ignored: a
`client_auth_type` that does not verify (Python's ssl has none), several `curve_preferences` before Python 3.15. Only
`http2` is accepted without effect: this server speaks HTTP/1.1.

ssl and bcrypt are imported only if the file needs them: both cost memory.
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
from gpu_exporter.webconfig.guessing import GuessLimit

if TYPE_CHECKING:
    import ssl

__all__ = ["WebConfig", "WebConfigError", "WebConfigReloader"]

log = logging.getLogger(__name__)

_SECTION_NAMES = ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit")
#: bcrypt uses no more, and the package rejects longer passwords.
_MAX_PASSWORD_BYTES = 72
_MAX_VERIFIED_CREDENTIALS = 100
_MAX_WAITING_CHECKS = 8


@dataclass
class WebConfig:
    """The file and the certificates that it names, as loaded. Immutable, thread-safe."""

    path: Path
    #: Header fields added to every response.
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
        self._rate_lock = threading.Lock()  # not the one above: no request waits for somebody's password hash
        self._waiting = 0
        self.guesses = GuessLimit()
        self._tokens, self._refilled_at = float(self._burst), time.monotonic()

    @classmethod
    def load(cls, path: Path) -> WebConfig:
        """Load the file and the files that it names. Raises WebConfigError."""
        path = Path(path)
        signatures = {str(path): _file_signature(str(path))}  # before reading, to detect a change meanwhile
        document = YamlDocument(path)
        parts = document.mapping(document.compose(), "", _SECTION_NAMES)
        users = sections.parse_users(document, parts.get("basic_auth_users"))
        settings = tls.parse_tls(document, parts.get("tls_server_config"))
        if settings:
            signatures.update((name, _file_signature(name)) for name in settings.files)
        interval, burst = sections.parse_rate_limit(document, parts.get("rate_limit"))
        return cls(
            path,
            headers=sections.parse_headers(document, parts.get("http_server_config")),
            _context=tls.create_ssl_context(settings) if settings else None,
            _users=users,
            _bcrypt=sections.import_bcrypt(document) if users else None,
            _interval=interval,
            _burst=burst,
            _signatures=signatures,
        )

    @property
    def users(self) -> bool:
        """Whether requests need basic auth."""
        return bool(self._users)

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context of this configuration, the same at each call; None without tls_server_config."""
        return self._context

    def has_changed(self) -> bool:
        """Whether the file, or one that it names, has changed since it was loaded."""
        return any(_file_signature(path) != signature for path, signature in self._signatures.items())

    def authorize(self, header: str | None) -> bool:
        """Whether a request with this Authorization header is allowed; always if the file has no users.

        A correct password costs one bcrypt hash (0.07 s at cost 10) and is then cached. An unknown user takes as long
        as the user with the most expensive hash.
        """
        if not self._users:
            return True
        credentials = _parse_basic_auth(header)
        if credentials is None:
            return False
        user, password = credentials
        password_hash = self._users.get(user)
        key = self._digest(user, password)
        if key in self._verified_credentials:
            return True
        # Serialized: guessing passwords must not use all CPUs of the node.
        self._waiting += 1
        with self._lock:
            self._waiting -= 1
            try:
                hardest = max(self._users.values(), key=_bcrypt_cost)
                password = password[:_MAX_PASSWORD_BYTES]
                is_valid = self._bcrypt.checkpw(password, password_hash or hardest)
                # The same work for every user, whatever the cost of its hash, so that time names none.
                for cost in range(int(_bcrypt_cost(password_hash or hardest)), int(_bcrypt_cost(hardest))):
                    self._bcrypt.hashpw(password, self._bcrypt.gensalt(cost))
            except ValueError:  # a NUL byte, in some versions of the package
                is_valid = False
            if not (is_valid and password_hash):
                return False
            if len(self._verified_credentials) >= _MAX_VERIFIED_CREDENTIALS:
                self._verified_credentials.clear()
            self._verified_credentials[key] = None
        return True

    def must_wait(self, header: str | None, address: str) -> bool:
        """Whether the password is not checked now: wrong ones came from this address, or many checks are waiting."""
        credentials = _parse_basic_auth(header) if self._users else None
        if credentials is None or self._digest(*credentials) in self._verified_credentials:
            return False
        return self._waiting >= _MAX_WAITING_CHECKS or not self.guesses.allows(address)

    def record_wrong(self, header: str | None, address: str) -> None:
        """Count a wrong password against the address; a request without one is no guess."""
        if _parse_basic_auth(header) is not None:
            self.guesses.record_wrong(address)

    def _digest(self, user: bytes, password: bytes) -> bytes:
        parts = (user, self._users.get(user) or b"", password)
        return hmac.digest(self._salt, b"".join(b"%d:%s" % (len(part), part) for part in parts), hashlib.sha256)

    def allow_request(self) -> bool:
        """Take a token of the rate limit; False if there is none."""
        if not self._interval:
            return True
        with self._rate_lock:
            now = time.monotonic()
            self._tokens = min(float(self._burst), self._tokens + (now - self._refilled_at) / self._interval)
            self._refilled_at = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


class WebConfigReloader:
    """Reloads the file when it changes. An invalid file is logged and the last valid one stays in effect."""

    def __init__(self, path: Path, interval_seconds: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises WebConfigError if the file is invalid at startup."""
        self._config = WebConfig.load(path)
        self._interval = interval_seconds
        self._clock = clock
        self._checked_at = clock()
        self._lock = threading.Lock()
        self._last_error = ""

    def current(self) -> WebConfig:
        """The configuration in effect. Checks for changes at most every `interval_seconds`.

        Call it for each connection and request; open connections keep their TLS context.
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
            self._log_rejected(f"{config.path}: restart the exporter to enable or disable TLS")
            return
        config.guesses = self._config.guesses
        log.info("reloaded %s", config.path)
        self._last_error = ""
        self._config = config

    def _log_rejected(self, why: str) -> None:
        if why != self._last_error:
            log.error("%s; the previous configuration stays in effect", why)
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
