"""Each claim on speed or quality as one command: `python -m benchmarks.NAME`, figures in `benchmarks/results/`."""
