"""Names that turn the direction of reading: kept whole, and held within themselves, so that the words behind stay.

What decides is the bidirectional class of a character (Unicode Standard Annex #9, https://unicode.org/reports/tr9/).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from markupsafe import Markup, escape

from gpu_advisor.state.view import View

#: Letters from right to left, and marks that embed, override or isolate.
_BIDI_CLASSES = frozenset({"R", "AL", "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def external_names(view: View) -> Iterator[str]:
    """All names that exporters or settings gave, as texts about them have them."""
    evaluation = view.evaluation
    for gpu in evaluation.facts.gpus if evaluation else ():
        yield from (gpu.uuid, gpu.name, gpu.node, str(gpu.scope))
    for state in evaluation.pools if evaluation else ():
        yield state.pool.settings.name
    for issued in view.issued:
        yield str(issued.recommendation.scope)


def right_to_left_names(names: Iterable[str]) -> tuple[str, ...]:
    """Those of the names that turn the direction, the longest first: one may be part of another."""
    found = {name for name in names if not name.isascii() and any(map(_changes_direction, name))}
    return tuple(sorted(found, key=lambda name: (-len(name), name)))


def _changes_direction(character: str) -> bool:
    return unicodedata.bidirectional(character) in _BIDI_CLASSES


def isolate(text: str, names: tuple[str, ...]) -> Markup:
    """The text with each of these names in an element that a browser sets by itself."""
    if not names:
        return escape(text)
    parts = re.split(f"({'|'.join(map(re.escape, names))})", text)
    return Markup("").join(
        Markup("<bdi>{}</bdi>").format(part) if index % 2 else escape(part) for index, part in enumerate(parts)
    )
