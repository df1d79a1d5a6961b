"""Any server that speaks the Prometheus HTTP API."""
