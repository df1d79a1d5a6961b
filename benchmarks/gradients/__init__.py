"""Gradients of micro-batches, next to those of their batch: `python -m benchmarks.gradients`."""
