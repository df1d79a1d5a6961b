"""The diagnosis grid: each simulated scenario on each GPU model, as each exporter publishes it."""
