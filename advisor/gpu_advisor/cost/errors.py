"""Errors in the inputs of a cost query, or in a catalogue."""

from __future__ import annotations


class CostError(ValueError):
    """The inputs are invalid; the message says what to change."""
