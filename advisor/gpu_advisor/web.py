"""The advisor's HTTP server: a production WSGI server around the application."""

from __future__ import annotations

import threading

from cheroot import wsgi

from gpu_advisor import __version__
from gpu_advisor.publish.api import create_app
from gpu_advisor.service import Service
from gpu_advisor.wiring import StartError


class WebServer:
    """Serves the service's view at HOST:PORT until stopped. Raises StartError if the address cannot be had."""

    def __init__(self, service: Service, address: str) -> None:
        host, _, port = address.rpartition(":")
        app = create_app(lambda: service.view, lambda: service.alertmanagers.states)
        self._server = wsgi.Server(
            (host.strip("[]"), int(port)),
            app,
            numthreads=8,
            server_name=f"gpu-advisor/{__version__}",
            request_queue_size=128,
        )
        try:
            self._server.prepare()
        except OSError as error:
            raise StartError(
                f"cannot listen on {address}: {error.strerror or error}; "
                "stop what listens there, or choose another address (--advisor-address, or web.listen_address)"
            ) from error
        self.address = "{}:{}".format(*self._server.bind_addr[:2])

    def start(self) -> None:
        threading.Thread(target=self._server.serve, name="web", daemon=True).start()

    def stop(self) -> None:
        self._server.stop()
