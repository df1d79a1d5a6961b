"""Renderings kept a view: what is asked by many is made once, and what is old never stays."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

import pytest
from gpu_advisor.state.active import Snooze
from gpu_advisor.state.feedback import Feedback
from gpu_advisor.state.view import PublishedRecommendation, SourceStatus, View
from gpu_advisor.web.api import response_cache as rendered
from gpu_advisor.web.api.response_cache import MIN_HITS_TO_PRERENDER, RenderedResponse, ResponseCache, render_response

from tests.polling import wait_until
from tests.unit.advisor.builders import AT, GpuSpec, concluded

ADVICE = concluded([GpuSpec("GPU-0", 0.0), GpuSpec("GPU-1", 0.7)]).recommendations[0]
UP = View(
    "c",
    SourceStatus("fake", "memory", True, last_success=AT),
    issued=(PublishedRecommendation("1", AT, ADVICE),),
    evaluations=1,
)


def next_view(view: View) -> View:
    return dataclasses.replace(view, evaluations=view.evaluations + 1)


def count(view: View) -> RenderedResponse:
    return render_response(str(view.evaluations).encode(), "text/plain")


class CountingRenderer:
    """Renders how many evaluations there were, and counts how often it is asked to. In the background it waits until
    it is released, so that what is served meanwhile does not depend on timing."""

    def __init__(self) -> None:
        self.made = 0
        self.go = threading.Event()

    def __call__(self, view: View) -> RenderedResponse:
        if threading.current_thread().name == "render":
            self.go.wait(5)
        self.made += 1
        return count(view)


def request_concurrently(renderings: ResponseCache, view: View, render: Callable[[View], RenderedResponse]) -> None:
    for _ in range(MIN_HITS_TO_PRERENDER + 1):
        renderings.get(view, "k", render)


def test_one_view_one_rendering() -> None:
    renderings, render = ResponseCache(), CountingRenderer()
    threads = [threading.Thread(target=renderings.get, args=(UP, "k", render)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert render.made == 1
    assert renderings.get(UP, "other", render).body == b"1"
    assert render.made == 2


def test_what_few_ask_for_is_of_the_newest_view_at_once() -> None:
    renderings, render = ResponseCache(), CountingRenderer()
    renderings.get(UP, "k", render)
    assert renderings.get(next_view(UP), "k", render).body == b"2"


def test_a_popular_rendering_is_served_until_the_new_one_is_ready() -> None:
    renderings, render = ResponseCache(), CountingRenderer()
    request_concurrently(renderings, UP, render)
    after = next_view(UP)
    assert renderings.get(after, "k", render).body == b"1"  # nobody waits
    render.go.set()
    wait_until(lambda: renderings.get(after, "k", render).body == b"2", "the new view's body")
    assert render.made == 2


def snoozed(view: View) -> View:
    issued = tuple(dataclasses.replace(each, snoozed=Snooze("x", AT, AT + 1)) for each in view.issued)
    return dataclasses.replace(next_view(view), issued=issued)


def source_down(view: View) -> View:
    return dataclasses.replace(next_view(view), source=dataclasses.replace(view.source, up=False))


def with_feedback(view: View) -> View:
    given = Feedback("1", "idle_reclaim", "dismissed", "too early", "ada", AT)
    issued = tuple(dataclasses.replace(each, feedback=given) for each in view.issued)
    return dataclasses.replace(next_view(view), issued=issued, feedback=(given,))


def overdue(view: View) -> View:
    return dataclasses.replace(next_view(view), overdue=True)


@pytest.mark.parametrize("change", [snoozed, with_feedback, source_down, overdue])
def test_what_somebody_just_did_and_what_is_stale_are_never_late(change: Callable[[View], View]) -> None:
    for before, after in ((UP, change(UP)), (change(UP), dataclasses.replace(UP, evaluations=3))):  # and its end
        renderings, render = ResponseCache(), CountingRenderer()
        request_concurrently(renderings, before, render)
        assert renderings.get(after, "k", render).body == str(after.evaluations).encode()


def test_a_rendering_that_fails_lets_nothing_old_stay() -> None:
    renderings = ResponseCache()

    def fails(view: View) -> RenderedResponse:
        if view.evaluations > 1:
            raise ZeroDivisionError
        return count(view)

    for key in ("k", "l"):
        for _ in range(MIN_HITS_TO_PRERENDER + 1):
            renderings.get(UP, key, fails)
    after = next_view(UP)
    for key in ("k", "l"):
        with pytest.raises(ZeroDivisionError):
            wait_until(lambda key=key: renderings.get(after, key, fails).body != b"1", "the old body is dropped")  # type: ignore[misc]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendered, "MAX_CACHE_BYTES", 3 * (rendered.ENTRY_BYTES + 1 + 4))
    renderings, render = ResponseCache(), CountingRenderer()
    for key in range(10):
        renderings.get(UP, str(key), render)
    for key in range(10):
        renderings.get(UP, str(key), render)
    assert render.made == 3 + 2 * 7


def test_queries_that_nobody_repeats_are_bounded_with_their_keys() -> None:
    renderings = ResponseCache()
    long = "?job=" + "x" * rendered.MAX_KEY_LENGTH
    for number in range(100):
        renderings.get(UP, f"{long}{number}", count)
    cache = renderings._cache
    assert cache is not None
    assert not cache.entries
    assert not cache.size
    for number in range(100):
        renderings.get(UP, f"?job={number}", count)
    assert len(cache.entries) == 100
    assert cache.size > 100 * rendered.ENTRY_BYTES
    assert len(cache.locks) == rendered.LOCKS
