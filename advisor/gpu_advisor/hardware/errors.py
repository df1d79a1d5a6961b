"""Errors in the inputs of a plan."""

from __future__ import annotations


class PlanError(ValueError):
    """The inputs are invalid; the message says what to change."""
