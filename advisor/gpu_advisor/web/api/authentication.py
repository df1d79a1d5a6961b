"""Authentication: basic auth with bcrypt hashes, as in Prometheus' web configuration, or a bearer token.

Two rights: to read, which a login gives, and to change state (snooze, allocate, renew, release), which a login or the
write token gives. Without a login anybody may read; without both anybody may do both.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import secrets
import threading
from base64 import b64decode
from collections.abc import Callable, Mapping
from http import HTTPStatus

from flask import Flask, Response, request

from gpu_advisor.storage.secret_file import Secret, reveal
from gpu_advisor.web.api import problem_details
from gpu_advisor.web.api.guessing import GuessLimit

#: Probes need no credentials.
PUBLIC_PATHS = frozenset({"/-/healthy", "/-/ready"})

AUTHENTICATION_REQUIRED = (
    "authentication required: try again and enter a user name and password (web.users in the settings). Scripts: send "
    "`Authorization: Bearer TOKEN`"
)
WRITE_TOKEN_REQUIRED = (
    "this changes state and needs the token of web.write_token_file: send it as `Authorization: Bearer TOKEN`"
)
TOO_MANY_GUESSES = "too many wrong passwords: retry in a minute"
RETRY_SECONDS = 60

#: Where the HTTP server leaves the outcome of a password check that it ran in a worker of its own.
LOGIN_KEY = "gpu_advisor.login"

#: bcrypt uses no more; newer versions of the package refuse longer ones.
MAX_PASSWORD_BYTES = 72
MAX_VERIFIED_HEADERS = 1000


class Login(enum.Enum):
    """What a request's Authorization header is worth."""

    NONE = "no or wrong credentials"
    WRITE_TOKEN = "the write token"
    FULL = "a user or the bearer token"
    LIMITED = "not checked: too many wrong passwords from this address"


class Authenticator:
    """bcrypt is slow on purpose, so verified Authorization headers are remembered, as keyed hashes."""

    def __init__(
        self, users: Mapping[str, str], token: Secret, write_token: Secret = "", guesses: GuessLimit | None = None
    ) -> None:
        self._users = {name: hash_.encode() for name, hash_ in users.items()}
        self._token = token
        self._write_token = write_token
        self._guesses = guesses or GuessLimit()
        self._key = secrets.token_bytes(32)
        self._verified: dict[bytes, None] = {}
        self._lock = threading.Lock()
        self._highest_cost = max(map(_cost, self._users.values()), default=0)
        self._dummy = next((each for each in self._users.values() if _cost(each) == self._highest_cost), b"")

    @property
    def login_required(self) -> bool:
        return bool(self._users or self._token)

    @property
    def protects_writes(self) -> bool:
        """Whether changing state needs a login or the write token."""
        return self.login_required or bool(self._write_token)

    def needs_password_check(self, authorization: str) -> bool:
        """Whether `check` takes as long as a password hash."""
        scheme, _, _ = authorization.partition(" ")
        return scheme.lower() == "basic" and bool(self._users) and self._digest(authorization) not in self._verified

    def check(self, authorization: str, address: str) -> Login:
        """What the header is worth. `address`: the client's, to limit its guesses."""
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() == "bearer":
            given = value.strip().encode("utf-8", "replace")
            full, write = _is_token(given, self._token), _is_token(given, self._write_token)
            return Login.FULL if full else Login.WRITE_TOKEN if write else Login.NONE
        if scheme.lower() != "basic" or not self._users:
            return Login.NONE
        if self._digest(authorization) in self._verified:
            return Login.FULL
        if not self._guesses.allows(address):
            return Login.LIMITED
        if not self._is_right(value):
            self._guesses.record_wrong(address)
            return Login.NONE
        with self._lock:
            if len(self._verified) >= MAX_VERIFIED_HEADERS:
                self._verified.clear()
            self._verified[self._digest(authorization)] = None
        return Login.FULL

    def _is_right(self, value: str) -> bool:
        import bcrypt

        try:
            name, _, password = b64decode(value, validate=True).decode().partition(":")
        except ValueError:  # not ASCII, not base64, or not UTF-8
            return False
        given, known = password.encode(), self._users.get(name)
        if len(given) > MAX_PASSWORD_BYTES or b"\0" in given:
            return False
        hash_ = known or self._dummy
        right = bcrypt.checkpw(given, hash_) and known is not None
        # Whoever the user is, and whatever the cost of its hash, the work is 2 ** highest cost: time names no users.
        for cost in range(_cost(hash_), self._highest_cost):
            bcrypt.hashpw(given, bcrypt.gensalt(cost))
        return right

    def _digest(self, authorization: str) -> bytes:
        return hmac.digest(self._key, authorization.encode("utf-8", "replace"), hashlib.sha256)


def _is_token(given: bytes, token: Secret) -> bool:
    """Whether this is the token; nothing is the empty one."""
    return bool(token) and hmac.compare_digest(given, reveal(token).encode())


def _cost(hash_: bytes) -> int:
    return int(hash_[4:6])


def register(app: Flask, access: Authenticator, changes_state: Callable[[str | None], bool]) -> None:
    """Refuse requests without the right they need. `changes_state`: whether an endpoint does."""
    if not access.protects_writes:
        return

    @app.before_request
    def refuse() -> Response | None:
        writes = changes_state(request.endpoint)
        if request.path in PUBLIC_PATHS or not (access.login_required or writes):
            return None
        login = request.environ.get(LOGIN_KEY)
        if not isinstance(login, Login):
            login = access.check(request.headers.get("Authorization", ""), request.remote_addr or "")
        if login is Login.FULL or (login is Login.WRITE_TOKEN and writes):
            return None
        if login is Login.LIMITED:
            response = problem_details.problem_response(HTTPStatus.TOO_MANY_REQUESTS, TOO_MANY_GUESSES)
            response.headers["Retry-After"] = str(RETRY_SECONDS)
            return response
        required = AUTHENTICATION_REQUIRED if access.login_required else WRITE_TOKEN_REQUIRED
        response = problem_details.problem_response(HTTPStatus.UNAUTHORIZED, required)
        schemes = 'Basic realm="gpu-advisor", Bearer' if access.login_required else 'Bearer realm="gpu-advisor"'
        response.headers["WWW-Authenticate"] = schemes
        return response
