"""Answers rendered once a view: a view never changes, so neither does what is made of it.

What many ask for is rendered anew in the background when there is a new view; until that is done, they are given what
was right a moment ago, and says of when it is. So no evaluation makes a hundred clients wait.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from gpu_advisor.state.view import View

log = logging.getLogger(__name__)

#: Renderings of one view are kept up to this many bytes; what is beyond is rendered each time it is asked for.
MOST_BYTES = 64 * 2**20

#: What was asked for so often of one view is rendered of the next before anybody asks.
MANY = 10


@dataclass(frozen=True, slots=True)
class Rendering:
    """An answer's body and header fields. `link` is empty where there are no pages."""

    body: bytes
    media: str
    etag: str
    link: str = ""


def rendering(body: bytes, media: str, link: str = "") -> Rendering:
    return Rendering(body, media, hashlib.sha256(body).hexdigest()[:16], link)


Render = Callable[[View], Rendering]


@dataclass
class _Entry:
    rendering: Rendering
    render: Render
    asked: int = 0


@dataclass
class _Kept:
    """Renderings of one view, and what stands in until it is rendered. One lock a key: of many, one renders."""

    view: View
    standing_in: dict[str, Rendering] = field(default_factory=dict)
    found: dict[str, _Entry] = field(default_factory=dict)
    locks: dict[str, threading.Lock] = field(default_factory=dict)
    size: int = 0


class Renderings:
    def __init__(self) -> None:
        self._kept: _Kept | None = None
        self._changing = threading.Lock()

    def get(self, view: View, key: str, render: Render) -> Rendering:
        """The rendering of this view under a key: whatever decides what `render` makes of a view."""
        kept = self._of(view)
        entry = kept.found.get(key)
        if entry is not None:
            entry.asked += 1  # two threads may count as one: it is only about many or few
            return entry.rendering
        return kept.standing_in.get(key) or _rendered(kept, key, render)

    def _of(self, view: View) -> _Kept:
        kept = self._kept
        if kept is None or kept.view is not view:
            with self._changing:
                kept = self._kept
                if kept is None or kept.view is not view:
                    kept = self._kept = self._after(kept, view)
        return kept

    def _after(self, before: _Kept | None, view: View) -> _Kept:
        after = _Kept(view)
        if before and _only_evaluated(before.view, view):
            wanted = {key: entry for key, entry in before.found.items() if entry.asked >= MANY}
            after.standing_in = {key: entry.rendering for key, entry in wanted.items()}
            if wanted:
                threading.Thread(target=_renew, args=(after, wanted), name="render", daemon=True).start()
        return after


def _renew(kept: _Kept, wanted: dict[str, _Entry]) -> None:
    for key, entry in wanted.items():
        try:
            _rendered(kept, key, entry.render)
        except Exception:  # the edge of a thread: who asks for it is told of the defect
            log.exception("%s could not be rendered in advance", key)
        kept.standing_in.pop(key, None)  # whatever happens: nothing old stands in for ever


def _rendered(kept: _Kept, key: str, render: Render) -> Rendering:
    with kept.locks.setdefault(key, threading.Lock()):
        entry = kept.found.get(key)
        if entry is None:
            entry = _Entry(render(kept.view), render)
            if kept.size + len(entry.rendering.body) <= MOST_BYTES:
                kept.size += len(entry.rendering.body)
                kept.found[key] = entry
    return entry.rendering


def _only_evaluated(before: View, after: View) -> bool:
    """Whether a new evaluation is all that is new. What somebody just did, or that the source fails, is never late."""
    return (
        before.source.up
        and after.source.up
        and [each.snoozed for each in before.issued if each.snoozed]
        == [each.snoozed for each in after.issued if each.snoozed]
    )
