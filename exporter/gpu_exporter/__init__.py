"""Per-node exporter of GPU and host metrics for Prometheus."""

__version__ = "0.1.0"
