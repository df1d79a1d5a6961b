"""A view of the tests' own behind a real server: states that no simulated fleet gets into."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gpu_advisor.settings import Settings
from gpu_advisor.state.view import View
from gpu_advisor.web.api.app import ApiContext, create_app
from gpu_advisor.web.http.lanes import Lane
from gpu_advisor.web.http.server import HttpServer
from gpu_advisor.web.page.evidence_history import RangeQuery


@contextmanager
def serve_view(
    view: View, settings: Settings | None = None, query_range: RangeQuery | None = None, **others: Any
) -> Iterator[str]:
    """The URL at which this view is shown. `others` of ApiContext: its clock, samples for reports."""
    context = ApiContext(
        lambda: view, lambda: (), lambda _id, _snooze: None, settings or Settings(), query_range=query_range, **others
    )
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    server = HttpServer(
        listener, create_app(context), server_name="views", lanes={"": Lane(4, 100)}, choose_lane=lambda _: ""
    )
    server.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.stop()
