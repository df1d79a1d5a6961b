"""A strict parser of the Prometheus text format 0.0.4.

The exporter exposes what it accepts, so it rejects everything that would make Prometheus reject the whole scrape, such
as duplicate series, which the Go parser of the format accepts.
Specification: "Exposition formats" in the Prometheus documentation. prometheus_client's parser would cost 8 MiB on each
node instead of 1, and accepts duplicates and values that overflow.
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
    """The text is not valid. `reason` is a label value of gpu_exporter_textfile_error; the message names the line."""

    def __init__(self, reason: str, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.reason = reason


@dataclass(slots=True)
class ParsedFamily:
    """A family as parsed: `help` is escaped text or None; `series` maps name and labels to the value, both as text."""

    name: str
    type: str
    help: str | None = None
    series: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """All sample names of the family."""
        return frozenset((self.name, *(self.name + part for part in _SAMPLE_SUFFIXES.get(self.type, ()))))


def parse_exposition(text: str) -> dict[str, ParsedFamily]:
    """The families that have samples, by name. Raises ExpositionError."""
    if text and not text.endswith("\n"):
        # Also detects a file that is still being written.
        raise ExpositionError("truncated", text.count("\n") + 1, "the last line does not end with a newline")
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
            return  # an ordinary comment
        kind, name, rest = found[1], found[2], found[3] or ""
        if kind == "HELP":
            if name in self._help:
                raise _ParseError("syntax", "second HELP line for this metric")
            if not _HELP.fullmatch(rest):
                raise _ParseError("syntax", "invalid escape sequence in HELP")
            self._help[name] = rest
            return
        if rest not in TYPES:
            raise _ParseError("wrong_type", "TYPE must be one of " + ", ".join(TYPES))
        if name in self._families:
            raise _ParseError("wrong_type", "second TYPE line, or TYPE after the samples")
        self._families[name] = ParsedFamily(name, rest)
        self._typed.add(name)

    def sample(self, line: str) -> None:
        found = _SAMPLE.fullmatch(line)
        if not found:
            raise _ParseError("syntax", 'expected NAME{LABEL="VALUE",...} NUMBER')
        name, label_text, value, rest = found.groups()
        if rest:
            raise _ParseError(
                "timestamp" if _NUMBER.fullmatch(rest) else "syntax",
                "unexpected text after the value; timestamps are not supported",
            )
        _parse_value(value)
        labels = _parse_labels(label_text) if label_text else {}
        family = self._family(name, labels)
        # As in Prometheus, an empty label equals a missing one, and label order does not matter.
        pairs = ",".join(f'{key}="{text}"' for key, text in sorted(labels.items()) if text)
        series = f"{name}{{{pairs}}}" if pairs else name
        if series in family.series:
            raise _ParseError("duplicate_series", "duplicate series")
        family.series[series] = value

    def _family(self, name: str, labels: dict[str, str]) -> ParsedFamily:
        family = self._families.get(name)
        if family:
            if family.type == "histogram":
                raise _ParseError("wrong_type", "a histogram has only _bucket, _sum and _count samples")
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
                raise ExpositionError("wrong_type", 0, f"sample names of {name} collide with those of another family")
            taken |= family.names
        return found


def _parse_labels(text: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    position = 0
    while position < len(text):
        pair = _LABEL_PAIR.match(text, position)
        if not pair:
            if text[position:].strip(" \t") or not labels:
                raise _ParseError("syntax", 'expected labels as NAME="VALUE"')
            break
        name, value = pair[1], pair[2]
        if name in labels:
            raise _ParseError("syntax", "duplicate label")
        if name.startswith("__"):
            raise _ParseError("syntax", "label names that start with __ are reserved")
        labels[name] = value
        position = pair.end()
    return labels


def _parse_value(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise _ParseError("syntax", "value is not a number")
    value = float(text)
    if math.isinf(value) and "n" not in text.lower():
        raise _ParseError("syntax", "value overflows a 64-bit float")
    return value


def _require_bound(labels: dict[str, str], name: str) -> None:
    if name not in labels:
        raise _ParseError("wrong_type", f"missing label {name}")
    _parse_value(labels[name])
