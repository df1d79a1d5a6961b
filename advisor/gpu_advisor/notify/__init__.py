"""Alerts pushed to Alertmanager, and the advisor's own metrics for Prometheus."""
