"""Metric names of other exporters, computed from our readings."""
