"""Calibration of batch sizes by measurement: probe, fit, profile, finder, estimate."""
