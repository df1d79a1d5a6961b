"""Source: a server with the Prometheus HTTP API."""
