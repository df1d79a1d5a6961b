"""Responses rendered once per view: a view is immutable, and so is its rendering.

Popular responses are rendered again in the background when a new view is published; until then clients get the previous
rendering, which names its time. So no evaluation makes a hundred clients wait.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from gpu_advisor.state.view import View

log = logging.getLogger(__name__)

#: Limit of cached renderings of one view, with their keys; further ones are rendered for each request.
MAX_CACHE_BYTES = 64 * 2**20

#: What an entry takes besides its body and its key: objects, and the query as the renderer keeps it.
ENTRY_BYTES = 2048

#: A longer key, which comes from a request, is not kept.
MAX_KEY_LENGTH = 2048

#: Requests with different keys may share a lock: then one waits for the other.
LOCKS = 64

#: A response requested this often from one view is rendered in advance from the next.
MIN_HITS_TO_PRERENDER = 10


@dataclass(frozen=True, slots=True)
class RenderedResponse:
    """A response's body and header fields. `link` is empty for responses without pagination."""

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
    """Renderings of one view, and the `previous` view's to serve meanwhile. One thread renders a key."""

    view: View
    previous: dict[str, RenderedResponse] = field(default_factory=dict)
    entries: dict[str, _Entry] = field(default_factory=dict)
    locks: tuple[threading.Lock, ...] = field(default_factory=lambda: tuple(threading.Lock() for _ in range(LOCKS)))
    size: int = 0

    def lock(self, key: str) -> threading.Lock:
        return self.locks[hash(key) % LOCKS]


class ResponseCache:
    def __init__(self) -> None:
        self._cache: _ViewCache | None = None
        self._cache_lock = threading.Lock()

    def get(self, view: View, key: str, render: Render) -> RenderedResponse:
        """The rendering of this view. `key` must identify what `render` does: path and query."""
        cache = self._of(view)
        entry = cache.entries.get(key)
        if entry is not None:
            entry.hits += 1  # not atomic: a rough count is enough
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
        except Exception:  # the next request for it renders again, and returns the error
            log.exception("rendering %s in advance failed", key)
        cache.previous.pop(key, None)


def _render_once(cache: _ViewCache, key: str, render: Render) -> RenderedResponse:
    with cache.lock(key):
        entry = cache.entries.get(key)
        if entry is None:
            entry = _Entry(render(cache.view), render)
            size = len(entry.rendering.body) + 4 * len(key) + ENTRY_BYTES
            if len(key) <= MAX_KEY_LENGTH and cache.size + size <= MAX_CACHE_BYTES:
                cache.size += size  # by threads of other locks, too: a rough sum is enough
                cache.entries[key] = entry
    return entry.rendering


def _only_evaluation_changed(before: View, after: View) -> bool:
    """Whether the views differ by their evaluation only: what people did, and what is stale, must show at once."""
    current = all(view.source.up and not view.overdue for view in (before, after))
    return current and _made_by_people(before) == _made_by_people(after)


def _made_by_people(view: View) -> tuple[object, ...]:
    return view.feedback, {each.id: each.snoozed for each in view.issued if each.snoozed}
