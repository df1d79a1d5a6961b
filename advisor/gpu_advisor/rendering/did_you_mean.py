"""How an error helps with a name that is not known. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

#: More names than this are not listed in a message.
MAX_LISTED = 20


def hint(name: str, known: Iterable[str]) -> str:
    """The nearest known name, or what there is; to append to a message."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    shown = ", ".join(names[:MAX_LISTED]) + (", ..." if len(names) > MAX_LISTED else "")
    return f"; there are {shown}" if names else ""
