"""IDs of recommendations as people type them: the shortest unambiguous prefix. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from gpu_advisor.commands.errors import CommandError

if TYPE_CHECKING:
    from gpu_advisor.documents import schema

#: As Git: fewer digits would soon mean another recommendation.
MIN_DIGITS = 6


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """The shortest beginning of each ID that no other one has, of at least MIN_DIGITS."""
    found = {id_: id_[:MIN_DIGITS] for id_ in ids}
    for digits in range(MIN_DIGITS + 1, max(map(len, found), default=0) + 1):
        counts = Counter(found.values())
        found = {id_: id_[:digits] if counts[short] > 1 else short for id_, short in found.items()}
    return found


def find_by_id(recommendations: Sequence[schema.RecommendationDocument], digits: str) -> schema.RecommendationDocument:
    """The recommendation whose ID begins with these digits. Raises CommandError if there is none, or several."""
    found = [each for each in recommendations if each["id"].startswith(digits)]
    if not digits or not found:
        raise CommandError(f"no active recommendation {digits!r}: `gpu-advisor recommend` lists them")
    if len(found) > 1:
        raise CommandError(f"{digits!r} is the beginning of {', '.join(each['id'] for each in found)}: give more of it")
    return found[0]
