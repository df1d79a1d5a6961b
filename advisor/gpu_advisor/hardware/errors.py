"""What is wrong with a question for a plan."""

from __future__ import annotations


class PlanError(ValueError):
    """The question cannot be answered as it is put; the message says what to change."""
