"""A strict reader of the Prometheus text format 0.0.4.

What is read is served on, so nothing may pass that would make a scraper refuse the whole page: where the format's own
parser in Go is lenient and a scrape is not (the same series twice), this one is not lenient either.
Definition: "Exposition formats" in the Prometheus documentation. prometheus_client's parser costs 8 MiB on every
node against 1, and takes what a scrape does not (duplicates, values that overflow).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

TYPES = ("counter", "gauge", "histogram", "summary", "untyped")
_SAMPLE_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\\n]|\\[\\"n])*)"'
_SAMPLE = re.compile(rf"({_NAME})(?:[ \t]*\{{([^\n]*)\}}[ \t]*|[ \t]+)([^ \t{{}}]+)[ \t]*([^ \t]*)[ \t]*")
_LABEL_PAIR = re.compile(rf"[ \t]*{_LABEL}[ \t]*(,|$)")
_COMMENT = re.compile(rf"#[ \t]*(HELP|TYPE)[ \t]+({_NAME})(?:[ \t]+(.*))?")
_NUMBER = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?|(?i:inf(?:inity)?|nan))"
)
_HELP = re.compile(r"(?:[^\\]|\\[\\n])*")


class ExpositionError(Exception):
    """The text cannot be served. `reason` is one of a few words; the message tells the line."""

    def __init__(self, reason: str, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.reason = reason


@dataclass(slots=True)
class ParsedFamily:
    """A family as it came: `help` is escaped text or None, `series` maps the name with its labels to the value."""

    name: str
    type: str
    help: str | None = None
    series: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """All names that its samples may have."""
        return frozenset((self.name, *(self.name + part for part in _SAMPLE_SUFFIXES.get(self.type, ()))))


def parse_exposition(text: str) -> dict[str, ParsedFamily]:
    """The families that have samples, by name. Raises ExpositionError."""
    if text and not text.endswith("\n"):
        # Also what tells a file that is still being written from one that is whole.
        raise ExpositionError("truncated", text.count("\n") + 1, "the last line has no end")
    reader = _ExpositionParser()
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip(" \t")
        try:
            if line.startswith("#"):
                reader.comment(line)
            elif line:
                reader.sample(line)
        except _ParseError as error:
            raise ExpositionError(error.reason, number, str(error)) from None
    return reader.families()


class _ParseError(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _ExpositionParser:
    def __init__(self) -> None:
        self._families: dict[str, ParsedFamily] = {}
        self._typed: set[str] = set()
        self._help: dict[str, str] = {}

    def comment(self, line: str) -> None:
        found = _COMMENT.fullmatch(line)
        if not found:
            return  # a comment like any other
        kind, name, rest = found[1], found[2], found[3] or ""
        if kind == "HELP":
            if name in self._help:
                raise _ParseError("syntax", "a second HELP of the same family")
            if not _HELP.fullmatch(rest):
                raise _ParseError("syntax", "HELP has a backslash that begins nothing")
            self._help[name] = rest
            return
        if rest not in TYPES:
            raise _ParseError("wrong_type", "TYPE is none of " + ", ".join(TYPES))
        if name in self._families:
            raise _ParseError("wrong_type", "TYPE comes twice, or after the family's samples")
        self._families[name] = ParsedFamily(name, rest)
        self._typed.add(name)

    def sample(self, line: str) -> None:
        found = _SAMPLE.fullmatch(line)
        if not found:
            raise _ParseError("syntax", 'not NAME{LABEL="VALUE",...} NUMBER')
        name, label_text, value, rest = found.groups()
        if rest:
            raise _ParseError("timestamp" if _NUMBER.fullmatch(rest) else "syntax", "something follows the value")
        _parse_value(value)
        labels = _parse_labels(label_text) if label_text else {}
        family = self._family(name, labels)
        # An empty label is none, and the order does not matter: what is one series to Prometheus must be one here.
        pairs = ",".join(f'{key}="{text}"' for key, text in sorted(labels.items()) if text)
        series = f"{name}{{{pairs}}}" if pairs else name
        if series in family.series:
            raise _ParseError("duplicate_series", "this series was there before")
        family.series[series] = value

    def _family(self, name: str, labels: dict[str, str]) -> ParsedFamily:
        family = self._families.get(name)
        if family:
            if family.type == "histogram":
                raise _ParseError("wrong_type", "a histogram has _bucket, _sum and _count only")
            if family.type == "summary":
                _require_bound(labels, "quantile")
            return family
        for type_, parts in _SAMPLE_SUFFIXES.items():
            for part in parts:
                base = self._families.get(name.removesuffix(part)) if name.endswith(part) else None
                if base and base.type == type_:
                    if part == "_bucket":
                        _require_bound(labels, "le")
                    return base
        family = self._families[name] = ParsedFamily(name, "untyped")
        return family

    def families(self) -> dict[str, ParsedFamily]:
        found = {name: family for name, family in self._families.items() if family.series}
        taken: set[str] = set()
        for name, family in found.items():
            family.help = self._help.get(name)
            if family.names & taken:
                raise ExpositionError("wrong_type", 0, f"{name} has samples named as another family's are")
            taken |= family.names
        return found


def _parse_labels(text: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    position = 0
    while position < len(text):
        pair = _LABEL_PAIR.match(text, position)
        if not pair:
            if text[position:].strip(" \t") or not labels:
                raise _ParseError("syntax", 'a label is not NAME="VALUE"')
            break
        name, value = pair[1], pair[2]
        if name in labels:
            raise _ParseError("syntax", "a label comes twice")
        if name.startswith("__"):
            raise _ParseError("syntax", "labels that begin with __ are Prometheus' own")
        labels[name] = value
        position = pair.end()
    return labels


def _parse_value(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise _ParseError("syntax", "the value is not a number")
    value = float(text)
    if math.isinf(value) and "n" not in text.lower():
        raise _ParseError("syntax", "the value is larger than any number")
    return value


def _require_bound(labels: dict[str, str], name: str) -> None:
    if name not in labels:
        raise _ParseError("wrong_type", f"a sample of this type needs the label {name}")
    _parse_value(labels[name])
