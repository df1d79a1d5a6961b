"""Evaluate label matchers as Prometheus does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from gpu_advisor.promql.expressions import Matcher
from gpu_advisor.sources.base import SourceError, SourceErrorKind

#: Syntax that RE2 lacks or interprets differently from Python: rejected rather than guessed.
_NOT_RE2 = re.compile(
    r"""(?x) ^(?: [^\\] | \\. )*?          # not after a backslash
        (?: \(\?(?:=|!|<[=!]|\(|\#|>|P=)     # look-around, conditions, comments, atomic groups, back-references
          | \\[1-9ZpPQECXz]                  # back-references; classes that only one of the two supports
          | \[\[:                            # POSIX classes
          | [*+?}]\+                         # possessive repetition
        )""",
    re.DOTALL,
)


def compile_matchers(matchers: Iterable[Matcher]) -> Callable[[Mapping[str, str]], bool]:
    """A predicate that tests labels against all matchers. A missing label counts as empty, as in Prometheus.

    Raises SourceError(QUERY_ERROR) for a regular expression that cannot be evaluated as RE2 would.
    """
    tests = [(matcher.label, _value_test(matcher)) for matcher in matchers]
    return lambda labels: all(test(labels.get(label, "")) for label, test in tests)


def _value_test(matcher: Matcher) -> Callable[[str], bool]:
    wanted = matcher.value
    if matcher.label == "__name__":
        raise SourceError(
            SourceErrorKind.QUERY_ERROR, "A matcher must not use __name__: the selector names the metric."
        )
    if matcher.op == "=":
        return lambda value: value == wanted
    if matcher.op == "!=":
        return lambda value: value != wanted
    whole = _compile_regex(wanted).fullmatch  # Prometheus anchors at both ends
    if matcher.op == "=~":
        return lambda value: whole(value) is not None
    return lambda value: whole(value) is None


def _compile_regex(expression: str) -> re.Pattern[str]:
    if _NOT_RE2.search(expression):
        raise _unsupported_regex(
            expression, "look-around, back-references and named character classes are not supported"
        )
    try:
        # \d, \w and \b are ASCII in RE2; a dot matches a newline, as in Prometheus 3.
        return re.compile(expression, re.ASCII | re.DOTALL)
    except (re.error, RecursionError, OverflowError) as error:
        raise _unsupported_regex(expression, str(error)) from error


def _unsupported_regex(expression: str, why: str) -> SourceError:
    return SourceError(
        SourceErrorKind.QUERY_ERROR,
        f"The regular expression {expression!r} is not supported: {why}. Use syntax common to RE2 and Python.",
    )
