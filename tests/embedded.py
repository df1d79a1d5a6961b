"""The embedded source next to a real server."""

from __future__ import annotations

from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.source import EmbeddedSource
from gpu_advisor.sources.prometheus.source import PrometheusClientConfig, PrometheusSource
from gpu_advisor.sources.reductions import PROMETHEUS_2, PROMETHEUS_3

from tests.servers import Prometheus


def embedded_source(history: History, server: Prometheus) -> EmbeddedSource:
    """The history as a source, by the rules of the server's release."""
    source = PrometheusSource(PrometheusClientConfig(server.url))
    left_closed = source.engine().behavior.left_closed
    source.close()
    return EmbeddedSource(history, PROMETHEUS_2 if left_closed else PROMETHEUS_3)
