"""Fast path: parse the response to a combined query in one pass over its text.

Parsing a fleet's responses takes much of an evaluation's own time. One regular expression over the text takes a third
of the time of json.loads and single label sets. Responses with escaped characters, incomplete ones and those of another
shape go to response_parser.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gpu_advisor.promql.expressions import Labels
from gpu_advisor.sources.base import SourceError
from gpu_advisor.sources.prometheus.combined_queries import INDEX_LABEL
from gpu_advisor.sources.prometheus.http_client import HttpResponse
from gpu_advisor.sources.prometheus.response_parser import response_data

#: Metric name, index, all other labels, value.
_Result = tuple[str, str, str, str]

_HEAD = '{"status":"success","data":{"resultType":"vector","result":['
_LAST = '"]}'  # the end of the last result
_TAIL = "]}}"
_BEGIN = '{"metric":{'
MAX_FAST_BYTES = 16 << 20
_CHUNK_CHARACTERS = 200_000  # takes milliseconds
_RESULT = re.compile(
    rf'{{"metric":{{((?:"__name__":"[^"]*",)?)"{INDEX_LABEL}":"([0-9]+)"(?:,((?:"[a-zA-Z_][a-zA-Z0-9_]*":"[^"]+",?)+))?}},'
    r'"value":\[[0-9.e+]+,"([^"]+)"\]}[,\]]'
)


def parse_combined_response(body: bytes, label_cache: dict[str, Labels]) -> dict[str, dict[Labels, float]] | None:
    """Results by index label, as split_results(parse_vector(response_data(...))) gives; None if not supported.

    Equal labels are one object, also across responses by `label_cache`: each GPU is named some fifty times.
    """
    if len(body) > MAX_FAST_BYTES:
        return None  # the whole text is held twice here
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    start, end = len(_HEAD), text.rfind(f"{_LAST}]") + len(_LAST)
    # Without backslashes, every quote starts or ends a string.
    if not text.startswith(_HEAD) or end < start or text.find("\\", 0, end) >= 0:
        return None
    if text.find(f"{_LAST}]", start, end) >= 0 or not _is_complete(text[end:].rstrip("\n")):
        return None
    end += 1  # each result with the comma or bracket after it
    first = _RESULT.match(text, start)
    if first is None:
        return None
    parts: dict[str, dict[Labels, float]] = {}
    count, length = 0, 0
    same = len(first[0]) - len("".join(first.groups(""))) - bool(first[3])
    try:
        for results in _chunks(text, start, end):
            count += len(results)
            length += len(results) * same
            for name, index, labels_text, value_text in results:
                labels = label_cache.get(labels_text)
                if labels is None:
                    labels = label_cache[labels_text] = _labels(labels_text)
                if index not in parts:
                    parts[index] = {}
                parts[index][labels] = float(value_text)
                length += len(name) + len(index) + len(labels_text) + len(value_text) + (labels_text != "")
    except ValueError:  # not a number, or labels out of order
        return None
    # All results have the same time; the length shows that nothing lies between them.
    complete = length == end - start and text.count(_time(first), start, end) == count
    return parts if complete and sum(map(len, parts.values())) == count else None


def _is_complete(tail: str) -> bool:
    """Whether what follows the results says nothing of missing ones; VictoriaMetrics has statistics there."""
    if tail == _TAIL:
        return True
    try:
        response_data(HttpResponse(200, {}, f"{_HEAD}{tail}".encode()), "")
    except SourceError:
        return False
    return True


def _chunks(text: str, start: int, end: int) -> Iterator[list[_Result]]:
    """Results, some thousand at a time: the GIL is held meanwhile, and the next query is not sent."""
    while start < end:
        found = text.find(_BEGIN, start + _CHUNK_CHARACTERS, end)
        stop = found if found >= 0 else end
        yield _RESULT.findall(text, start, stop)
        start = stop


def _time(first: re.Match[str]) -> str:
    return first[0][first[0].index('"value":[') : first[0].rindex(',"')]


def _labels(labels_text: str) -> Labels:
    """Parse `"name":"value","name":"value"`. Raises ValueError for any other text."""
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
