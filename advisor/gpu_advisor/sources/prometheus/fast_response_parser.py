"""The answer to a pack, read in one pass over its text, where it is as plain as Prometheus writes it.

Reading a fleet's answers is much of what an evaluation adds to its queries. One regular expression over all of the text
needs a third of the time of json.loads and a label set at a time. Any other answer is left to the careful way: one with
escaped characters, with warnings, or of another shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gpu_advisor.promql.expressions import Labels
from gpu_advisor.sources.prometheus.combined_queries import INDEX_LABEL

#: A metric's name with its label, a tag, all other labels, a value.
_Result = tuple[str, str, str, str]

_HEAD = '{"status":"success","data":{"resultType":"vector","result":['
_TAIL = "]}}"
_BEGIN = '{"metric":{'
_CHUNK_CHARACTERS = 200_000  # milliseconds
_RESULT = re.compile(
    rf'{{"metric":{{((?:"__name__":"[^"]*",)?)"{INDEX_LABEL}":"([0-9]+)"(?:,((?:"[a-zA-Z_][a-zA-Z0-9_]*":"[^"]+",?)+))?}},'
    r'"value":\[[0-9.e+]+,"([^"]+)"\]},'
)


def parse_combined_response(body: bytes, label_cache: dict[str, Labels]) -> dict[str, dict[Labels, float]] | None:
    """The results by their tag, as `parted(vector_of(data_of(...)))` has them; None if the answer is not plain.

    Equal labels are one object: a fleet's answers name each GPU some fifty times. `label_cache` has those of other answers.
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
    parts: dict[str, dict[Labels, float]] = {}
    count, length = 0, 0
    same = len(first[0]) - len("".join(first.groups(""))) - bool(first[3])
    try:
        for results in _chunks(text):
            count += len(results)
            length += len(results) * same
            for name, tag, labels_text, value_text in results:
                labels = label_cache.get(labels_text)
                if labels is None:
                    labels = label_cache[labels_text] = _labels(labels_text)
                if tag not in parts:
                    parts[tag] = {}
                parts[tag][labels] = float(value_text)
                length += len(name) + len(tag) + len(labels_text) + len(value_text) + (labels_text != "")
    except ValueError:  # not a number, or labels that are not in order
        return None
    # All of one time, they differ in what was found in them: so nothing is between them.
    whole = length == len(text) and text.count(_time(first)) == count
    return parts if whole and sum(map(len, parts.values())) == count else None


def _chunks(text: str) -> Iterator[list[_Result]]:
    """The results, some thousand at a time: meanwhile no other thread runs, and the next query is not sent."""
    start = 0
    while start < len(text):
        found = text.find(_BEGIN, start + _CHUNK_CHARACTERS)
        end = found if found >= 0 else len(text)
        yield _RESULT.findall(text, start, end)
        start = end


def _time(first: re.Match[str]) -> str:
    return first[0][first[0].index('"value":[') : first[0].rindex(',"')]


def _labels(labels_text: str) -> Labels:
    """Of `"name":"value","name":"value"`. Raises ValueError if that is not what it is."""
    pairs = tuple(_pair(each) for each in labels_text[1:-1].split('","')) if labels_text else ()
    names = [name for name, _ in pairs]
    if labels_text.endswith(",") or names != sorted({*names}) or {INDEX_LABEL, "__name__"} & {*names}:
        raise ValueError(labels_text)
    return pairs


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition('":"')
    if '"' in value or not value:
        raise ValueError(text)
    return name, value
