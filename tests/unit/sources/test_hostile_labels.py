"""Labels that no text can have, in what a data source answers."""

from __future__ import annotations

import json

import pytest
from gpu_advisor.sources.prometheus.response_parser import parse_labels


@pytest.mark.parametrize(
    ("escaped", "expected"),
    [
        (r"a\ud800b", "a?b"), (r"\udfff", "?"), (r"\udc00\ud800", "??"), (r"\ud83d\ude00", "\U0001f600"),
        (r"\u00e9\ud800", "é?"), ("GPU-0", "GPU-0"), (r"\u0000", "\0"),
    ],
)  # fmt: skip
def test_half_of_a_surrogate_pair_is_replaced(escaped: str, expected: str) -> None:
    labels = parse_labels(json.loads(f'{{"uuid": "{escaped}", "__name__": "x", "empty": "", "b{escaped}": "y"}}'))
    assert dict(labels) == {"uuid": expected, f"b{expected}": "y"}
    assert json.dumps(labels, ensure_ascii=False).encode()
