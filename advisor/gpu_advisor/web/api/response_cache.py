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
MAX_CACHE_BYTES = 64 * 2**20

#: What was asked for so often of one view is rendered of the next before anybody asks.
MIN_HITS_TO_PRERENDER = 10


@dataclass(frozen=True, slots=True)
class RenderedResponse:
    """An answer's body and header fields. `link` is empty where there are no pages."""

    body: bytes
    media: str
    etag: str
    link: str = ""


def render_response(body: bytes, media: str, link: str = "") -> RenderedResponse:
    return RenderedResponse(body, media, hashlib.sha256(body).hexdigest()[:16], link)


Render = Callable[[View], RenderedResponse]


@dataclass
class _Entry:
    rendering: RenderedResponse
    render: Render
    hits: int = 0


@dataclass
class _ViewCache:
    """Renderings of one view, and what stands in until it is rendered. One lock a key: of many, one renders."""

    view: View
    previous: dict[str, RenderedResponse] = field(default_factory=dict)
    entries: dict[str, _Entry] = field(default_factory=dict)
    locks: dict[str, threading.Lock] = field(default_factory=dict)
    size: int = 0


class ResponseCache:
    def __init__(self) -> None:
        self._cache: _ViewCache | None = None
        self._cache_lock = threading.Lock()

    def get(self, view: View, key: str, render: Render) -> RenderedResponse:
        """The rendering of this view under a key: whatever decides what `render` makes of a view."""
        cache = self._of(view)
        entry = cache.entries.get(key)
        if entry is not None:
            entry.hits += 1  # two threads may count as one: it is only about many or few
            return entry.rendering
        return cache.previous.get(key) or _render_once(cache, key, render)

    def _of(self, view: View) -> _ViewCache:
        cache = self._cache
        if cache is None or cache.view is not view:
            with self._cache_lock:
                cache = self._cache
                if cache is None or cache.view is not view:
                    cache = self._cache = self._after(cache, view)
        return cache

    def _after(self, before: _ViewCache | None, view: View) -> _ViewCache:
        after = _ViewCache(view)
        if before and _only_evaluation_changed(before.view, view):
            popular = {key: entry for key, entry in before.entries.items() if entry.hits >= MIN_HITS_TO_PRERENDER}
            after.previous = {key: entry.rendering for key, entry in popular.items()}
            if popular:
                threading.Thread(target=_render_in_advance, args=(after, popular), name="render", daemon=True).start()
        return after


def _render_in_advance(cache: _ViewCache, popular: dict[str, _Entry]) -> None:
    for key, entry in popular.items():
        try:
            _render_once(cache, key, entry.render)
        except Exception:  # the edge of a thread: who asks for it is told of the defect
            log.exception("%s could not be rendered in advance", key)
        cache.previous.pop(key, None)  # whatever happens: nothing old stands in for ever


def _render_once(cache: _ViewCache, key: str, render: Render) -> RenderedResponse:
    with cache.locks.setdefault(key, threading.Lock()):
        entry = cache.entries.get(key)
        if entry is None:
            entry = _Entry(render(cache.view), render)
            if cache.size + len(entry.rendering.body) <= MAX_CACHE_BYTES:
                cache.size += len(entry.rendering.body)
                cache.entries[key] = entry
    return entry.rendering


def _only_evaluation_changed(before: View, after: View) -> bool:
    """Whether a new evaluation is all that is new. What somebody just did, or that the source fails, is never late."""
    return (
        before.source.up
        and after.source.up
        and [each.snoozed for each in before.issued if each.snoozed]
        == [each.snoozed for each in after.issued if each.snoozed]
    )
