"""What is wrong with a setting, and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SettingsError(Exception):
    """A setting is invalid. The message says where it is, what is wrong and how to fix it."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """How to fix an unknown name."""
    matches = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {matches[0]}?" if matches else "see gpu-exporter --help"
