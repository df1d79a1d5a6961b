"""The embedded source next to a real server."""

from __future__ import annotations

from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.source import EmbeddedSource
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.engine import EngineKind
from gpu_advisor.sources.prometheus.source import PrometheusSource
from gpu_advisor.sources.reductions import PROMETHEUS_2, PROMETHEUS_2_51, PROMETHEUS_3

from tests.servers import Prometheus


def embedded_source(history: History, server: Prometheus) -> EmbeddedSource:
    """The history as a source, by the rules of the server's release."""
    source = PrometheusSource(PrometheusClientConfig(server.url))
    engine = source.engine()
    source.close()
    if engine.kind is not EngineKind.PROMETHEUS_2:
        return EmbeddedSource(history, PROMETHEUS_3)
    _, minor, *_ = (engine.version or "2.0").split(".")
    return EmbeddedSource(history, PROMETHEUS_2 if int(minor) < 51 else PROMETHEUS_2_51)
