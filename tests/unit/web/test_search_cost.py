"""Searches that anybody may send: each of their words is looked for once, and a long text is cut."""

from __future__ import annotations

import pytest
from gpu_advisor.state.view import SourceStatus, View
from gpu_advisor.web.page.gpu_list import GpuList, parse
from gpu_advisor.web.page.text_index import Mask

from tests.unit.advisor.builders import AT, GpuSpec, concluded


@pytest.mark.parametrize(
    ("search", "most"), [("0 " * 100, 1), ("a A " * 50, 1), ("gpu 0 gpu", 2), ("x" * 10_000, 1), (" \t\n", 0)]
)
def test_a_word_is_looked_for_once(search: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = concluded([GpuSpec("GPU-0", 0.0), GpuSpec("GPU-1", 0.7)])
    gpus = GpuList(View("c", SourceStatus("fake", "memory", True, last_success=AT), evaluation=evaluation))
    searched: list[str] = []
    find = gpus._texts.containing

    def containing(word: str) -> Mask:
        searched.append(word)
        return find(word)

    monkeypatch.setattr(gpus._texts, "containing", containing)
    gpus.page(parse({"q": search}))
    assert len(searched) == most
    assert all(len(word) <= 200 for word in searched)
