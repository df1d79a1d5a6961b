"""Names of the documents in words."""

from __future__ import annotations

import pytest
from gpu_advisor.evaluation.diagnosis.decision_table import DIAGNOSES
from gpu_advisor.rendering.names import humanize


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("idle_holding_memory", "idle, memory allocated"),
        ("lost_gpu", "lost GPU"),
        ("healthy", "healthy"),
        ("kv_cache_bound", "KV-cache-bound"),
        ("", ""),
    ],
)
def test_a_name_is_in_the_fields_words(name: str, words: str) -> None:
    assert humanize(name) == words


def test_each_diagnosis_has_its_own_words() -> None:
    words = {humanize(name) for name in DIAGNOSES}
    assert len(words) == len(DIAGNOSES)
    assert not any("_" in each for each in words)
