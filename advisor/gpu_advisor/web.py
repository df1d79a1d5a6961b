"""The advisor's HTTP server: a production WSGI server around the application."""

from __future__ import annotations

import threading

from cheroot import wsgi

from gpu_advisor import __version__
from gpu_advisor.addresses import check_free, split
from gpu_advisor.publish.api import create_app
from gpu_advisor.service import Service


class WebServer:
    """Serves the service's view at HOST:PORT until stopped. Raises AddressError if the address cannot be had."""

    def __init__(self, service: Service, address: str) -> None:
        check_free(address, "--advisor-address (or web.listen_address)")
        app = create_app(lambda: service.view, lambda: service.alertmanagers.states)
        self._server = wsgi.Server(
            split(address), app, numthreads=8, server_name=f"gpu-advisor/{__version__}", request_queue_size=128
        )
        self._server.prepare()
        self.address = "{}:{}".format(*self._server.bind_addr[:2])

    def start(self) -> None:
        threading.Thread(target=self._server.serve, name="web", daemon=True).start()

    def stop(self) -> None:
        self._server.stop()
