"""The advisor's application behind its own HTTP server and behind others that speak TLS."""

from __future__ import annotations

import signal
import socket
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

THREADS = 8


def application() -> Any:
    """The advisor's WSGI application over a fixed view of a thousand recommendations."""
    from gpu_advisor.web.api.app import ApiContext, create_app

    from benchmarks.api import view_of
    from tests.unit.advisor.builders import FakeClock

    view = view_of(1000)
    return create_app(ApiContext(lambda: view, lambda: (), lambda _id, _snooze: None, clock=FakeClock()))


def _serve_advisor(port: int, cert: str, key: str) -> None:
    from gpu_advisor.web.api.authentication import Authenticator
    from gpu_advisor.web.http.server import HttpServer
    from gpu_advisor.web.server import RequestLanes

    lanes = RequestLanes(Authenticator({}, ""))
    server = HttpServer(
        socket.create_server(("127.0.0.1", port), backlog=4096),
        application(),
        server_name="bench",
        lanes=lanes.lanes(),
        choose_lane=lanes.choose,
        tls=_server_context(cert, key) if cert else None,
    )
    server.start()
    signal.pause()


def _serve_cheroot(port: int, cert: str, key: str) -> None:
    from cheroot import wsgi
    from cheroot.ssl.builtin import BuiltinSSLAdapter

    server = wsgi.Server(("127.0.0.1", port), application(), numthreads=THREADS, request_queue_size=1024)
    if cert:
        server.ssl_adapter = BuiltinSSLAdapter(cert, key)
    server.start()


def _serve_gunicorn(port: int, cert: str, key: str) -> None:
    from gunicorn.app.base import BaseApplication

    class Application(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            options = {
                "bind": f"127.0.0.1:{port}", "workers": 1, "worker_class": "gthread", "threads": THREADS,
                "worker_connections": 2048, **({"certfile": cert, "keyfile": key} if cert else {}),
            }  # fmt: skip
            for option, value in options.items():
                self.cfg.set(option, value)

        def load(self) -> Any:
            return application()

    Application().run()


def _serve_uvicorn(port: int, cert: str, key: str) -> None:
    import uvicorn
    from a2wsgi import WSGIMiddleware

    secure = {"ssl_certfile": cert, "ssl_keyfile": key} if cert else {}
    uvicorn.run(
        WSGIMiddleware(application(), workers=THREADS), host="127.0.0.1", port=port, backlog=4096, http="h11",
        log_level="warning", **secure,
    )  # fmt: skip


def _serve_hypercorn(port: int, cert: str, key: str) -> None:
    import asyncio

    from hypercorn.asyncio import serve as run
    from hypercorn.config import Config

    config = Config()
    config.bind, config.backlog, config.read_timeout = [f"127.0.0.1:{port}"], 1024, 10
    if cert:
        config.certfile, config.keyfile = cert, key
    asyncio.run(run(application(), config, mode="wsgi"))


def _serve_granian(port: int, cert: str, key: str) -> None:
    from granian import Granian

    secure = {"ssl_cert": Path(cert), "ssl_key": Path(key)} if cert else {}
    Granian(
        "benchmarks.compared_servers:granian_application", address="127.0.0.1", port=port, interface="wsgi", workers=1,
        blocking_threads=THREADS, factory=True, backlog=4096, log_access=False, **secure,
    ).serve()  # fmt: skip


def granian_application() -> Any:
    return application()


def _server_context(cert: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


SERVERS: Mapping[str, Callable[[int, str, str], None]] = {
    "advisor": _serve_advisor,
    "cheroot": _serve_cheroot,
    "gunicorn": _serve_gunicorn,
    "uvicorn": _serve_uvicorn,
    "hypercorn": _serve_hypercorn,
    "granian": _serve_granian,
}


def serve(name: str, port: int, certificate: str) -> None:
    """Run one of the servers until a signal. `certificate`: folder of cert.pem and key.pem, or empty."""
    cert, key = (f"{certificate}/cert.pem", f"{certificate}/key.pem") if certificate else ("", "")
    SERVERS[name](port, cert, key)
