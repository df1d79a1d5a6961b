"""How an error helps with a name that is not known. Pure."""

from __future__ import annotations

import difflib
from bisect import bisect
from collections.abc import Iterable, Sequence

#: More names than this are not listed in a message.
MAX_LISTED = 20

#: A name is compared with this many at most, and none that is longer: a comparison takes 50 microseconds, and anybody
#: may ask for a name that is not there among those of 10,000 GPUs.
MAX_COMPARED, MAX_LENGTH = 200, 256


def hint(name: str, known: Iterable[str]) -> str:
    """The nearest known name, or all names; to append to a message."""
    names = sorted(known)
    near = difflib.get_close_matches(name, _comparable(name, names), n=1) if len(name) <= MAX_LENGTH else []
    if near:
        return f"; did you mean {near[0]}?"
    shown = ", ".join(each[:MAX_LENGTH] for each in names[:MAX_LISTED]) + (", ..." if len(names) > MAX_LISTED else "")
    return f"; there are {shown}" if names else ""


def _comparable(name: str, names: Sequence[str]) -> list[str]:
    """All names where they are few; of many, those that begin or end most like this one. `names` is sorted."""
    short = [each for each in names if len(each) <= MAX_LENGTH]
    if len(short) <= MAX_COMPARED:
        return short
    mirrored = sorted(each[::-1] for each in short)
    alike = [*_neighbours(name, short), *(each[::-1] for each in _neighbours(name[::-1], mirrored))]
    return list(dict.fromkeys(alike))


def _neighbours(name: str, names: Sequence[str]) -> Sequence[str]:
    place = bisect(names, name)
    return names[max(0, place - MAX_COMPARED // 4) : place + MAX_COMPARED // 4]
