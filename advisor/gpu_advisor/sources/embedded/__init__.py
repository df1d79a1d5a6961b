"""Source without Prometheus: scrape exporters and store their history."""
