"""YAML of the user: what is wrong with it is said with its line, and never with a value, which may be a secret."""

from __future__ import annotations

import pytest
from gpu_advisor.yaml_text import YamlError, parse_yaml

SECRET = "s3cr3t"
#: Text -> how its messages begin, one line each.
WRONG = {
    "a: 1\na: 2\n": ["f:2: a: duplicate key: remove one"],
    "a: {b: 1}\na: {b: 2}\nc: [{d: 1, d: 1}]\n": ["f:2: a: duplicate key", "f:3: c.0.d: duplicate key"],
    "a:\n  - b: 2026-99-99\n": ["f:2: not YAML: this is no timestamp"],
    f"a:\n  password: !!int {SECRET}\n": ["f:2: not YAML: this is no int"],
    f"a:\n  password: !!timestamp {SECRET}\n": ["f:2: not YAML: this is no timestamp"],
    f"password: !!bool {SECRET}\n": ["f:1: not YAML: this is no bool"],
    "a: !!int ''\n": ["f:1: not YAML: this is no int"],
    f"a: 1\npassword: '{SECRET}\n": ["f:3: not YAML"],
    f"a: 1\n? [{SECRET}]\n: 1\n": ["f:2: not YAML: found unhashable key"],
    "a: &x [*x]\n": ["f:1: recursive alias"],
    "[" * 2000: ["f:1: recursive alias or too deeply nested"],
    "a: 1\n\x00": ["f:1: not YAML"],
    "a: 1\n---\nb: 1\n": ["f:2: not YAML"],
}


@pytest.mark.parametrize("text", WRONG, ids=[lines[0][:24] for lines in WRONG.values()])
def test_what_is_wrong(text: str) -> None:
    with pytest.raises(YamlError) as raised:
        parse_yaml(text, "f")
    messages = str(raised.value).splitlines()
    assert [found[: len(begin)] for found, begin in zip(messages, WRONG[text], strict=False)] == WRONG[text]
    assert SECRET not in str(raised.value)


def test_lines_of_keys_and_of_what_is_missing() -> None:
    document = parse_yaml("# about\na:\n  - b: 1\n    c:\n      2\n", "f")
    assert document.values == {"a": [{"b": 1, "c": 2}]}
    assert [document.line(path) for path in ((), ("a",), ("a", 0), ("a", 0, "c"), ("a", 0, "x"), ("z",))] == [
        2, 2, 3, 4, 3, 2,
    ]  # fmt: skip
    assert parse_yaml("", "f").values is None
    assert parse_yaml("", "f").line(("a",)) == 1
