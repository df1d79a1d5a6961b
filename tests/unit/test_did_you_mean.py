"""The nearest known name: among ten thousand as well, and at a price that anybody may cause."""

from __future__ import annotations

import difflib
import random

import pytest
from gpu_advisor.rendering.did_you_mean import MAX_COMPARED, MAX_LENGTH, hint

CHANCE = random.Random(1)
MANY = ["".join(CHANCE.choices("abcdefghijklmnop", k=14)) for _ in range(10_000)]


@pytest.mark.parametrize("place", range(14))
def test_a_wrong_letter_is_found_among_many(place: int) -> None:
    name = MANY[place * 700]
    assert hint(f"{name[:place]}Z{name[place + 1 :]}", MANY) == f"; did you mean {name}?"


def test_a_hint_compares_few_names_and_no_long_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []

    def get_close_matches(name: str, names: list[str], n: int) -> list[str]:
        compared.append(len(names))
        assert all(len(each) <= MAX_LENGTH for each in (name, *names))
        return []

    monkeypatch.setattr(difflib, "get_close_matches", get_close_matches)
    long = "x" * 10**6
    assert len(hint("abc", [*MANY, long])) < 30 * MAX_LENGTH
    hint("abc", MANY[: MAX_COMPARED + 1])
    hint("abc", MANY[:MAX_COMPARED])
    assert len(hint(long, [long])) < 2 * MAX_LENGTH
    assert max(compared) <= MAX_COMPARED
    assert compared[2] == MAX_COMPARED
    assert len(compared) == 3
