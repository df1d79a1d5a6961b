"""Authentication: basic auth with bcrypt hashes, as in Prometheus' web configuration, or a bearer token."""

from __future__ import annotations

import hmac
import threading
from base64 import b64decode
from collections.abc import Mapping
from http import HTTPStatus

from flask import Flask, Response, request

from gpu_advisor.web.api import problem_details

#: Probes need no credentials.
PUBLIC_PATHS = frozenset({"/-/healthy", "/-/ready"})

AUTHENTICATION_REQUIRED = "authentication required: use a user of web.users or the bearer token"


class Authenticator:
    """bcrypt is slow on purpose, so verified Authorization headers are cached: one per user."""

    def __init__(self, users: Mapping[str, str], token: str) -> None:
        self._users = dict(users)
        self._token = token
        self._verified_headers: set[str] = set()
        self._bcrypt_lock = threading.Lock()  # brute force costs at most one core

    @property
    def login_required(self) -> bool:
        return bool(self._users or self._token)

    def authenticate(self, authorization: str) -> bool:
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() == "bearer" and self._token:
            return hmac.compare_digest(value.strip().encode(), self._token.encode())
        if scheme.lower() == "basic":
            return authorization in self._verified_headers or self._check_password(authorization, value)
        return False

    def _check_password(self, authorization: str, value: str) -> bool:
        import bcrypt

        try:
            name, _, password = b64decode(value, validate=True).decode().partition(":")
        except ValueError:  # not ASCII, not base64, or not UTF-8
            return False
        hashed = self._users.get(name)
        # An unknown user takes as long as a known one.
        hash_ = hashed or next(iter(self._users.values()), "")
        if not hash_ or len(password.encode()) > 72:  # bcrypt's limit
            return False
        with self._bcrypt_lock:
            right = bcrypt.checkpw(password.encode(), hash_.encode()) and hashed is not None
        if right:
            self._verified_headers.add(authorization)
        return right


def register(app: Flask, access: Authenticator) -> None:
    if not access.login_required:
        return

    @app.before_request
    def refuse() -> Response | None:
        if request.path in PUBLIC_PATHS or access.authenticate(request.headers.get("Authorization", "")):
            return None
        response = problem_details.problem_response(HTTPStatus.UNAUTHORIZED, AUTHENTICATION_REQUIRED)
        response.headers["WWW-Authenticate"] = 'Basic realm="gpu-advisor", Bearer'
        return response
