"""Label matchers as Prometheus understands them, evaluated here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from gpu_advisor.promql.expressions import Matcher
from gpu_advisor.sources.base import SourceError, SourceErrorKind

#: What Python's expressions have and RE2 has not, or read differently: refused rather than guessed at.
_NOT_RE2 = re.compile(
    r"""(?x) ^(?: [^\\] | \\. )*?          # not behind a backslash
        (?: \(\?(?:=|!|<[=!]|\(|\#|>|P=)     # look-around, conditions, comments, atomic groups, back-references
          | \\[1-9ZpPQECXz]                  # back-references; classes that only one of the two knows
          | \[\[:                            # POSIX classes
          | [*+?}]\+                         # possessive repetition
        )""",
    re.DOTALL,
)


def compile_matchers(matchers: Iterable[Matcher]) -> Callable[[Mapping[str, str]], bool]:
    """A test of labels against all matchers. A label that is not there counts as empty, as in Prometheus.

    Raises SourceError(QUERY_ERROR) for an expression that cannot be evaluated as RE2 would.
    """
    tests = [(matcher.label, _value_test(matcher)) for matcher in matchers]
    return lambda labels: all(test(labels.get(label, "")) for label, test in tests)


def _value_test(matcher: Matcher) -> Callable[[str], bool]:
    wanted = matcher.value
    if matcher.label == "__name__":
        raise SourceError(SourceErrorKind.QUERY_ERROR, "A matcher must not name __name__: the metric is named already.")
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
            expression, "look-around, back-references and character classes by name are not supported"
        )
    try:
        return re.compile(expression, re.ASCII)  # \d, \w and \b are ASCII in RE2
    except (re.error, RecursionError, OverflowError) as error:
        raise _unsupported_regex(expression, str(error)) from error


def _unsupported_regex(expression: str, why: str) -> SourceError:
    return SourceError(
        SourceErrorKind.QUERY_ERROR,
        f"The regular expression {expression!r} cannot be used: {why}. Write it in the part of RE2 that Python shares.",
    )
