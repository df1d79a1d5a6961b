"""What is wrong with a question about cost, or with a catalogue."""

from __future__ import annotations


class CostError(ValueError):
    """Cannot be answered, or read, as it is; the message says what to change."""
