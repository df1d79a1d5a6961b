"""Answers rendered once a view: a view never changes, so neither does what is made of it.

A hundred clients that ask for the same page between two evaluations cost one rendering.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from gpu_advisor.view import View

#: Renderings are kept up to this many bytes in all; what is beyond is rendered each time it is asked for.
MOST_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Rendering:
    """An answer's body and header fields. `link` is empty where there are no pages."""

    body: bytes
    media: str
    etag: str
    link: str = ""


def rendering(body: bytes, media: str, link: str = "") -> Rendering:
    return Rendering(body, media, hashlib.sha256(body).hexdigest()[:16], link)


@dataclass
class _Kept:
    """Renderings of one view. One lock a key, so that of many who ask at once one renders and the others wait."""

    view: View
    found: dict[str, Rendering] = field(default_factory=dict)
    locks: dict[str, threading.Lock] = field(default_factory=dict)
    size: int = 0


class Renderings:
    def __init__(self) -> None:
        self._kept: _Kept | None = None

    def get(self, view: View, key: str, render: Callable[[], Rendering]) -> Rendering:
        """The rendering of this view under a key: whatever decides what `render` returns, beside the view."""
        kept = self._kept
        if kept is None or kept.view is not view:
            kept = self._kept = _Kept(view)
        found = kept.found.get(key)
        if found is not None:
            return found
        with kept.locks.setdefault(key, threading.Lock()):
            found = kept.found.get(key)
            if found is None:
                found = render()
                if kept.size + len(found.body) <= MOST_BYTES:
                    kept.size += len(found.body)
                    kept.found[key] = found
        return found
