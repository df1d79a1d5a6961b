"""Scrapes exporters and keeps their history itself, where there is no Prometheus."""
