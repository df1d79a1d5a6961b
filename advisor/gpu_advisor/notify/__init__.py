"""What is pushed to or scraped by others: alerts for Alertmanager, metrics for Prometheus."""
