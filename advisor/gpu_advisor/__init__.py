"""The advisor: reads utilization from Prometheus, finds out why it is off target, and says what to do."""

__version__ = "0.1.0"
