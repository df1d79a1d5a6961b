"""Isolates right-to-left names in text, so that they do not reorder the words around them.

By the bidirectional class of a character (Unicode Standard Annex #9, https://unicode.org/reports/tr9/).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from markupsafe import Markup, escape

from gpu_advisor.state.view import View

#: Right-to-left letters, and marks that embed, override or isolate.
_BIDI_CLASSES = frozenset({"R", "AL", "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def external_names(view: View) -> Iterator[str]:
    """All names from exporters and settings, as they appear in the page's text."""
    evaluation = view.evaluation
    for gpu in evaluation.facts.gpus if evaluation else ():
        yield from (gpu.uuid, gpu.name, gpu.node, str(gpu.scope))
    for state in evaluation.pools if evaluation else ():
        yield state.pool.settings.name
    for issued in view.issued:
        yield str(issued.recommendation.scope)


def right_to_left_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names that change the reading direction, longest first: one may be part of another."""
    found = {name for name in names if not name.isascii() and any(map(_changes_direction, name))}
    return tuple(sorted(found, key=lambda name: (-len(name), name)))


def _changes_direction(character: str) -> bool:
    return unicodedata.bidirectional(character) in _BIDI_CLASSES


def isolate(text: str, names: tuple[str, ...]) -> Markup:
    """The escaped text, with each of these names in a <bdi> element."""
    if not names:
        return escape(text)
    parts = re.split(f"({'|'.join(map(re.escape, names))})", text)
    return Markup("").join(
        Markup("<bdi>{}</bdi>").format(part) if index % 2 else escape(part) for index, part in enumerate(parts)
    )
