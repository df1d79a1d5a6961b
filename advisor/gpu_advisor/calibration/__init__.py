"""Batch sizes that are measured: probe, fit, profile, finder, estimate."""
