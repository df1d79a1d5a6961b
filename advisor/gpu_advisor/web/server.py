"""The advisor's HTTP server: cheroot around the WSGI application, with TLS and authentication if configured."""

from __future__ import annotations

import ssl
import threading
from importlib.util import find_spec
from pathlib import Path

from cheroot import wsgi
from cheroot.ssl.builtin import BuiltinSSLAdapter

from gpu_advisor import __version__
from gpu_advisor.allocation.desk import AllocationService
from gpu_advisor.extras import install_hint
from gpu_advisor.runtime.service import AdvisorService
from gpu_advisor.settings import ConfigError, WebSettings
from gpu_advisor.settings.addresses import check_can_listen, split_host_port
from gpu_advisor.web.api.app import MAX_BODY_BYTES, ApiContext, create_app
from gpu_advisor.web.api.authentication import Authenticator


class WebServer:
    """Serves the service's view at HOST:PORT until stopped.

    Raises AddressError if the address is not available, ConfigError for the certificate or the authentication.
    """

    def __init__(self, service: AdvisorService, address: str, allocation: AllocationService | None = None) -> None:
        check_can_listen(address, "--advisor-address (or web.listen_address)")
        web = service.settings.web
        context = ApiContext(
            lambda: service.view,
            lambda: service.alertmanagers.states,
            service.snooze,
            service.settings,
            build_authenticator(web),
            query_range=service.query_range,
            allocation=allocation,
        )
        self._server = wsgi.Server(
            split_host_port(address),
            create_app(context),
            numthreads=8,
            server_name=f"gpu-advisor/{__version__}",
            request_queue_size=128,
        )
        # Above the application's own limit, which answers with a problem document.
        self._server.max_request_body_size = 2 * MAX_BODY_BYTES
        self._server.max_request_header_size = 64 * 1024
        if web.cert_file:
            self._server.ssl_adapter = _tls(web)
        self._server.prepare()
        scheme = "https" if web.cert_file else "http"
        self.address = "{}:{}".format(*self._server.bind_addr[:2])
        self.url = f"{scheme}://{self.address}"

    def start(self) -> None:
        threading.Thread(target=self._server.serve, name="web", daemon=True).start()

    def stop(self) -> None:
        self._server.stop()


def build_authenticator(web: WebSettings) -> Authenticator:
    """Raises ConfigError."""
    if web.users and find_spec("bcrypt") is None:
        raise ConfigError(f"web.users needs bcrypt: {install_hint('web')}")
    try:
        token = Path(web.bearer_token_file).read_text(encoding="utf-8").strip() if web.bearer_token_file else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"web.bearer_token_file: {error}; set the path of a readable file") from error
    if web.bearer_token_file and not token:
        raise ConfigError(f"web.bearer_token_file: {web.bearer_token_file} is empty: write the token into it")
    return Authenticator({name: hash_.get_secret_value() for name, hash_ in web.users.items()}, token)


def _tls(web: WebSettings) -> BuiltinSSLAdapter:
    try:
        adapter = BuiltinSSLAdapter(web.cert_file, web.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"web.cert_file, web.key_file: {error}; set readable PEM files, a certificate and its private key"
        ) from error
    adapter.context.minimum_version = ssl.TLSVersion.TLSv1_2
    return adapter
