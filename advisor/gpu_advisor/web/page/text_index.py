"""Which texts contain a word: an exact index of substrings. Pure.

The places of each pair of neighbouring bytes in all texts are sorted once. A search then looks only at the places of
the word's rarest pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.intp]
Mask = NDArray[np.bool_]

#: Around the texts. No text has it: it is no byte of UTF-8.
_SEPARATOR = b"\xff"


class TextIndex:
    """Texts by their number."""

    def __init__(self, texts: Sequence[str]) -> None:
        encoded = [_bytes(text) for text in texts]
        self._all = np.frombuffer(_SEPARATOR + b"".join(each + _SEPARATOR for each in encoded), np.uint8)
        self._ends = np.cumsum([len(each) + len(_SEPARATOR) for each in encoded], dtype=np.intp)
        self._pairs = self._all[:-1] * np.uint16(256) + self._all[1:]
        self._places = np.argsort(self._pairs, kind="stable")
        self._begins = np.concatenate([[0], np.cumsum(np.bincount(self._pairs, minlength=1 << 16))]).tolist()

    def containing(self, word: str) -> Mask:
        """For each text, whether it contains a word."""
        found = np.full(len(self._ends), not word, np.bool_)
        if word:
            found[np.searchsorted(self._ends, self._places_of(_bytes(word)))] = True
        return found

    def _places_of(self, wanted: bytes) -> Numbers:
        """Where these bytes, at least one, begin."""
        if len(wanted) == 1:
            return np.flatnonzero(self._all == wanted[0])
        pairs = [first << 8 | second for first, second in pairwise(wanted)]
        counts = [self._begins[pair + 1] - self._begins[pair] for pair in pairs]
        rarest = counts.index(min(counts))
        found = self._places[self._begins[pairs[rarest]] : self._begins[pairs[rarest] + 1]] - rarest
        found = found[(found >= 0) & (found <= len(self._pairs) - len(pairs))]
        others = {*range(0, len(pairs), 2), len(pairs) - 1} - {rarest}
        for offset in sorted(others, key=counts.__getitem__):  # rare ones first: they leave the fewest places
            if not len(found):
                break
            found = found[self._pairs[found + offset] == pairs[offset]]
        return found


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
