"""Which of an exporter's labels identify a GPU or node, where some have no value. Pure.

An exporter publishes a serial number, but not every card has one: `N/A`, `Unknown` and zeros are placeholders, and GPUs
that share one must not become one GPU. A mapping therefore lists candidates, best first: single labels, and groups of
labels whose values are joined (`node~index`). Per series, the first candidate without a placeholder is the identity.

The same choice is made here for rows that have been read (`identify`), and in queries (`identity_expression`), as a
union of selectors that are disjoint by their matchers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from gpu_advisor.promql.expressions import Expression, LabelJoin, LabelReplace, Matcher, Selector, union
from gpu_advisor.text_cache import cache_texts

#: One label, or several whose values are joined.
Candidate = tuple[str, ...]

#: Between joined values: no name, address or number has it, nor does it mean anything in a URL.
SEPARATOR = "~"

#: Words for "no value", and a UUID of zeros, in syntax common to RE2 and Python.
PLACEHOLDER = r"(?i)\[?(n/?a|none|unknown( error)?|not .*)?\]?|localhost|(gpu-|mig-)?0{8}[0-]{20,}"
#: Other zeros as well, where the label alone identifies: an index may be 0, a serial number is not.
LONE_PLACEHOLDER = rf"{PLACEHOLDER}|(0x)?(0{{1,3}}|0{{9,}})"

#: Set by Prometheus: present, or not.
_TARGET_LABELS = frozenset({"job", "instance"})

_placeholder = re.compile(PLACEHOLDER)
_lone_placeholder = re.compile(LONE_PLACEHOLDER)

#: A label, whether it identifies alone, and whether it has a value rather than a placeholder.
_Condition = tuple[str, bool, bool]


@cache_texts(1 << 16)  # each value of a fleet stands in many rows
def is_placeholder(value: str) -> bool:
    """Whether a label value stands for none."""
    return _placeholder.fullmatch(value) is not None


@cache_texts(1 << 16)
def is_lone_placeholder(value: str) -> bool:
    """The same for a label that identifies alone."""
    return _lone_placeholder.fullmatch(value) is not None


def identify(labels: Mapping[str, str], candidates: Sequence[Candidate], prefix: str = "") -> tuple[str, int] | None:
    """The identity and the index of its candidate; None if all candidates have placeholders.

    `prefix` is put before the value of a label that identifies alone.
    """
    for index, candidate in enumerate(candidates):
        if len(candidate) == 1:
            value = labels.get(candidate[0], "")
            if value and not is_lone_placeholder(value):
                return _prefix(candidate, prefix) + value, index
        else:
            values = [labels.get(label, "") for label in candidate]
            if not any(map(is_placeholder, values)):
                return SEPARATOR.join(values), index
    return None


def identity_expression(
    selector: Selector, label: str, candidates: Sequence[Candidate], prefix: str = "", *, checked: bool = False
) -> Expression:
    """The selector with the identity as label `label`; series with placeholders only are left out.

    `checked`: the first candidate is known to have no placeholders.
    """
    if checked or list(candidates) == [(label,)]:
        return _named(selector, label, candidates[0], prefix)
    parts = [
        _named(replace(selector, matchers=(*selector.matchers, *map(_matcher, conditions))), label, candidate, prefix)
        for candidate, conditions in _branches(tuple(candidates), ())
    ]
    return union(*parts)


def _named(selector: Selector, label: str, candidate: Candidate, prefix: str) -> Expression:
    if len(candidate) > 1:
        return LabelJoin(selector, label, candidate, SEPARATOR)
    source, prefix = candidate[0], _prefix(candidate, prefix)
    return selector if source == label and not prefix else LabelReplace(selector, label, source, prefix)


def _prefix(candidate: Candidate, prefix: str) -> str:
    """The prefix completes an exporter's own identifier; others have none."""
    return prefix if len(candidate) == 1 and candidate[0] not in _TARGET_LABELS else ""


def _branches(
    candidates: tuple[Candidate, ...], conditions: tuple[_Condition, ...]
) -> Iterator[tuple[Candidate, tuple[_Condition, ...]]]:
    """Each candidate with the conditions under which it is the first without placeholders; all are disjoint."""
    if not candidates:
        return
    first, *rest = candidates
    lone = len(first) == 1
    known = {(label, alone): has_value for label, alone, has_value in conditions}
    if any(known.get((label, lone)) is False for label in first):
        yield from _branches(tuple(rest), conditions)
        return
    open_label = next((label for label in first if (label, lone) not in known), None)
    if open_label is None:
        yield first, conditions
        return
    yield from _branches(candidates, (*conditions, (open_label, lone, True)))
    yield from _branches(tuple(rest), (*conditions, (open_label, lone, False)))


def _matcher(condition: _Condition) -> Matcher:
    label, lone, has_value = condition
    if label in _TARGET_LABELS:
        return Matcher(label, "!=" if has_value else "=", "")
    return Matcher(label, "!~" if has_value else "=~", LONE_PLACEHOLDER if lone else PLACEHOLDER)
