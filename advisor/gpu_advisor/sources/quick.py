"""The answer to a pack, read in one pass over its text, where it is as plain as Prometheus writes it.

Reading a fleet's answers is much of what an evaluation adds to its queries. One regular expression over all of the text
needs a third of the time of json.loads and a label set at a time. Any other answer is left to the careful way: one with
escaped characters, with warnings, or of another shape.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from gpu_advisor.expressions import Labels
from gpu_advisor.sources.packs import PART

#: A metric's name with its label, a tag, all other labels, a value.
_Found = tuple[str, str, str, str]

_HEAD = '{"status":"success","data":{"resultType":"vector","result":['
_TAIL = "]}}"
_RESULT = re.compile(
    rf'{{"metric":{{((?:"__name__":"[^"]*",)?)"{PART}":"([0-9]+)"(?:,((?:"[a-zA-Z_][a-zA-Z0-9_]*":"[^"]+",?)+))?}},'
    r'"value":\[[0-9.e+]+,"([^"]+)"\]},'
)


def quick_parts(body: bytes, known: dict[str, Labels]) -> dict[str, dict[Labels, float]] | None:
    """The results by their tag, as `parted(vector_of(data_of(...)))` has them; None if the answer is not plain.

    Equal labels are one object: a fleet's answers name each GPU some fifty times. `known` has those of other answers.
    """
    try:
        text = body.decode().rstrip("\n")
    except UnicodeDecodeError:
        return None
    # Without backslashes, a quote is the begin or the end of a string.
    if "\\" in text or not (text.startswith(_HEAD) and text.endswith(_TAIL)):
        return None
    text = text[len(_HEAD) : -len(_TAIL)] + ","
    first = _RESULT.match(text)
    if first is None:
        return None
    results: list[_Found] = _RESULT.findall(text)
    if _length(first, results) != len(text) or text.count(_time(first)) != len(results):
        return None  # there is something between them
    parts: dict[str, dict[Labels, float]] = {}
    try:
        for _, tag, whose, reading in results:
            labels = known.get(whose)
            if labels is None:
                labels = known[whose] = _labels(whose)
            if tag not in parts:
                parts[tag] = {}
            parts[tag][labels] = float(reading)
    except ValueError:  # not a number, or labels that are not in order
        return None
    return parts if sum(map(len, parts.values())) == len(results) else None


def _length(first: re.Match[str], results: list[_Found]) -> int:
    """That of all results: they differ in what was found in them, for they are of one time."""
    same = len(first[0]) - _found_length(first.groups(""))
    return sum(map(_found_length, results)) + len(results) * same


def _found_length(found: Sequence[str]) -> int:
    name, tag, whose, reading = found
    return len(name) + len(tag) + (len(whose) + 1 if whose else 0) + len(reading)


def _time(first: re.Match[str]) -> str:
    return first[0][first[0].index('"value":[') : first[0].rindex(',"')]


def _labels(whose: str) -> Labels:
    """Of `"name":"value","name":"value"`. Raises ValueError if that is not what it is."""
    pairs = tuple(_pair(each) for each in whose[1:-1].split('","')) if whose else ()
    names = [name for name, _ in pairs]
    if whose.endswith(",") or names != sorted({*names}) or {PART, "__name__"} & {*names}:
        raise ValueError(whose)
    return pairs


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition('":"')
    if '"' in value or not value:
        raise ValueError(text)
    return name, value
