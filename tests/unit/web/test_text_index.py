"""The index of substrings against a search in each text."""

from __future__ import annotations

from gpu_advisor.web.page.text_index import TextIndex
from hypothesis import given
from hypothesis import strategies as st

#: Few characters, so that words occur; of one to four bytes, and bytes that others contain.
ALPHABET = "ab-\0é\u0169\u20ac\u20ad\U0001f600\ud800"


@given(st.lists(st.text(ALPHABET, max_size=9), max_size=9), st.text(ALPHABET, max_size=5))
def test_texts_that_contain_a_word(texts: list[str], word: str) -> None:
    assert TextIndex(texts).containing(word).tolist() == [word in text for text in texts]


@given(st.lists(st.text(ALPHABET, min_size=1, max_size=9), min_size=1, max_size=9), st.data())
def test_every_part_of_a_text_is_found(texts: list[str], data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(texts))
    begin = data.draw(st.integers(0, len(text)))
    word = text[begin : data.draw(st.integers(begin, len(text)))]
    assert TextIndex(texts).containing(word).tolist() == [word in each for each in texts]
