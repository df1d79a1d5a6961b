"""A view of the tests' own behind a real server: states that no simulated fleet gets into."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cheroot import wsgi
from gpu_advisor.settings import Settings
from gpu_advisor.state.view import View
from gpu_advisor.web.api.app import ApiContext, create_app
from gpu_advisor.web.page.evidence_history import RangeQuery

from tests.servers import free_port


@contextmanager
def serve_view(view: View, settings: Settings | None = None, query_range: RangeQuery | None = None) -> Iterator[str]:
    """The URL at which this view is shown."""
    port = free_port()
    context = ApiContext(
        lambda: view, lambda: (), lambda _id, _snooze: None, settings or Settings(), query_range=query_range
    )
    server = wsgi.Server(("127.0.0.1", port), create_app(context), numthreads=4)
    server.prepare()
    threading.Thread(target=server.serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()
