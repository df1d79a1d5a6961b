"""The order that people expect of names with numbers."""

from __future__ import annotations

import re


def natural(text: str) -> str:
    """A key that orders node-2 before node-10."""
    return re.sub("[0-9]+", lambda number: number[0].zfill(18), text.casefold())
