"""The advisor's HTTP server: the WSGI application behind web/http, with TLS and authentication if configured."""

from __future__ import annotations

import secrets
import socket
import ssl
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from gpu_advisor import __version__
from gpu_advisor.allocation.allocation_service import AllocationService
from gpu_advisor.extras import install_hint
from gpu_advisor.runtime.service import AdvisorService
from gpu_advisor.settings import ConfigError, WebSettings
from gpu_advisor.settings.addresses import join_host_port, listen
from gpu_advisor.storage.output_file import write_output
from gpu_advisor.storage.private_files import FILE_MODE
from gpu_advisor.storage.secret_file import Secret, SecretFile
from gpu_advisor.web.api.app import ApiContext, create_app
from gpu_advisor.web.api.authentication import LOGIN_KEY, PUBLIC_PATHS, RETRY_SECONDS, TOO_MANY_GUESSES, Authenticator
from gpu_advisor.web.http.connection import text_response
from gpu_advisor.web.http.lanes import Lane
from gpu_advisor.web.http.server import HttpServer
from gpu_advisor.web.http.wsgi import Environ


class WebServer:
    """Serves the service's view at HOST:PORT until stopped.

    Raises AddressError if the address is not available, ConfigError for the certificate or the authentication.
    """

    def __init__(
        self,
        service: AdvisorService,
        address: str,
        allocation: AllocationService | None = None,
        *,
        listener: socket.socket | None = None,
        reload: Callable[[], None] | None = None,
    ) -> None:
        """`listener`: a socket that listens on the address, if there is one; it is closed with the server.

        `reload` reads the settings again, and raises ConfigError.
        """
        web = service.settings.web
        access = build_authenticator(web)
        tls = _tls(web) if web.cert_file else None
        listener = listener or open_listener(address)
        context = ApiContext(
            lambda: service.view,
            lambda: service.alertmanagers.states,
            service.snooze,
            service.settings,
            access,
            query_range=service.query_range,
            samples=service.samples,
            allocation=allocation,
            reload=reload if web.enable_lifecycle else None,
            give_feedback=service.give_feedback,
        )
        self.address = join_host_port(*listener.getsockname()[:2])
        self.url = f"{'https' if tls else 'http'}://{self.address}"
        lanes = RequestLanes(access)
        self._server = HttpServer(
            listener,
            create_app(context),
            server_name=f"gpu-advisor/{__version__}",
            lanes=lanes.lanes(),
            choose_lane=lanes.choose,
            tls=tls,
        )

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()


def open_listener(address: str) -> socket.socket:
    """Raises AddressError."""
    return listen(address, "--advisor-address (or web.listen_address)")


class RequestLanes:
    """Which requests wait for each other.

    Health and metrics wait for nothing slow, and nothing but a password check waits for password checks.
    """

    def __init__(self, access: Authenticator) -> None:
        self._access = access

    def lanes(self) -> dict[str, Lane]:
        limited = text_response(429, TOO_MANY_GUESSES, [("Retry-After", str(RETRY_SECONDS))])
        return {
            "health": Lane(threads=1, waiting=1000, urgent=True),
            "metrics": Lane(threads=1, waiting=100, urgent=True),
            "api": Lane(threads=8, waiting=1000),
            "passwords": Lane(threads=1, waiting=20, refusal=limited, prepare=self._check_password),
        }

    def choose(self, environ: Environ) -> str:
        """The lane of a request."""
        if environ["PATH_INFO"] in PUBLIC_PATHS:
            return "health"
        if self._access.needs_password_check(environ.get("HTTP_AUTHORIZATION", "")):
            return "passwords"
        return _lane_of_path(environ)

    def _check_password(self, environ: Environ) -> str:
        environ[LOGIN_KEY] = self._access.check(environ.get("HTTP_AUTHORIZATION", ""), environ["REMOTE_ADDR"])
        return _lane_of_path(environ)


def _lane_of_path(environ: Environ) -> str:
    return "metrics" if environ["PATH_INFO"] == "/metrics" else "api"


def build_authenticator(web: WebSettings) -> Authenticator:
    """Raises ConfigError."""
    if web.users and find_spec("bcrypt") is None:
        raise ConfigError(f"web.users needs bcrypt: {install_hint('web')}")
    token = _token_file("web.bearer_token_file", web.bearer_token_file)
    if web.write_token_file:
        _create_token(Path(web.write_token_file))
    return Authenticator(
        {name: hash_.get_secret_value() for name, hash_ in web.users.items()},
        token,
        _token_file("web.write_token_file", web.write_token_file),
    )


def _token_file(key: str, path: str) -> Secret:
    """The token in a file; empty without a file. Raises ConfigError."""
    try:
        return SecretFile(Path(path)) if path else ""
    except OSError as error:
        raise ConfigError(f"{key}: {error}; set the path of a readable file") from error
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error


def _create_token(path: Path) -> None:
    """Write a random token, readable for this user only, unless the file exists. Raises ConfigError.

    The file appears with its token, whatever happens on the way: an empty one would keep the service from starting.
    """
    if path.exists():
        return
    try:
        write_output(path, secrets.token_urlsafe(32) + "\n", new_mode=FILE_MODE)
    except OSError as error:
        raise ConfigError(
            f"web.write_token_file: {path}: {error.strerror}; set a path that can be written, on a disk with room"
        ) from error


def _tls(web: WebSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(web.cert_file, web.key_file, password=_refuse_password)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"web.cert_file, web.key_file: {error}; set readable PEM files, a certificate and its private key"
        ) from error
    return context


def _refuse_password() -> str:
    raise ValueError("the key is encrypted: remove its passphrase")
