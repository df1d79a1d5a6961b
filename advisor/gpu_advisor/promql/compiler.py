"""Compile an expression to PromQL text: the query for Prometheus, and for a person who checks a number."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from gpu_advisor.promql.expressions import (
    Affine,
    Aggregate,
    ConstantLabel,
    Expression,
    Filter,
    HistogramQuantile,
    LabelJoin,
    LabelReplace,
    Matcher,
    Ratio,
    Selector,
    Sum,
    Union,
    selectors_of,
)
from gpu_advisor.promql.query_language import PROMQL, QueryLanguage

#: A dot that no backslash precedes.
_DOT = re.compile(r"(?:[^\\.]|\\.)*\.", re.DOTALL)
_UNITS = ((604800, "w"), (86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_ESCAPES = str.maketrans(
    {
        **{chr(code): f"\\x{code:02x}" for code in (*range(0x20), 0x7F)},
        "\\": "\\\\",
        '"': '\\"',
        "\n": "\\n",
        "\r": "\\r",
        "\t": "\\t",
        "\ufffd": "\\ufffd",  # PromQL's scanner takes this character for invalid UTF-8
    }
)


def to_promql(expression: Expression, at: float | None = None, language: QueryLanguage = PROMQL) -> str:
    """The query text, the same for equal expressions.

    With `at` (Unix time), every selector is pinned to that time, so that the query always returns the same number.
    Raises ValueError for numbers or characters that PromQL cannot express.
    """
    text = _Compiler(at, language).compile(expression)
    if any(selector.function in language.defined for selector in selectors_of(expression)):
        return language.definitions + text
    return text


def range_selector(selector: Selector, language: QueryLanguage = PROMQL) -> str:
    """The query text for the raw samples in the selector's window: a range selector without its function.

    Raises ValueError for a selector without a window, or characters that PromQL cannot express.
    """
    if selector.window_seconds is None:
        raise ValueError(f"raw samples of {selector.metric} need a window")
    return _series_selector(selector, language)


def quote_string(text: str) -> str:
    """A PromQL string literal. Raises ValueError for text that is not Unicode (lone surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"label value {text!r} is not valid Unicode") from error
    return f'"{text.translate(_ESCAPES)}"'


def format_duration(seconds: int) -> str:
    """The shortest exact PromQL duration in one unit: 30m, 90s. Raises ValueError if not positive."""
    if seconds <= 0:
        raise ValueError(f"a window must be greater than 0 s, not {seconds} s")
    size, unit = next((size, unit) for size, unit in _UNITS if seconds % size == 0)
    return f"{seconds // size}{unit}"


@dataclass(frozen=True, slots=True)
class _Compiler:
    at: float | None
    language: QueryLanguage

    def compile(self, expression: Expression) -> str:
        if isinstance(expression, Selector):
            return self._select(expression)
        if isinstance(expression, Aggregate):
            by = f" by ({', '.join(expression.by)}) " if expression.by else ""
            return f"{expression.op}{by}({self.compile(expression.operand)})"
        if isinstance(expression, Ratio):
            # The filter drops a division by zero here, before it turns an enclosing aggregation into NaN.
            return f"{self._parenthesize(expression.numerator)} / ({self._parenthesize(expression.denominator)} != 0)"
        if isinstance(expression, Sum):
            return " + ".join(self._parenthesize(term) for term in expression.terms)
        if isinstance(expression, Union):
            return " or ".join(self.compile(part) for part in expression.parts)
        if isinstance(expression, LabelReplace):
            # (?s): a label value may contain a newline. $1 in the prefix would be a reference, $$ is a dollar.
            text = f"{expression.prefix.replace('$', '$$')}$1"
            return _label_replace(self.compile(expression.operand), expression.to, text, expression.source, "(?s)(.+)")
        if isinstance(expression, ConstantLabel):
            value = expression.value.replace("$", "$$")
            return _label_replace(self.compile(expression.operand), expression.label, value, "", "")
        if isinstance(expression, LabelJoin):
            names = ", ".join(map(quote_string, (expression.to, expression.separator, *expression.sources)))
            return f"label_join({self.compile(expression.operand)}, {names})"
        if isinstance(expression, Filter):
            return f"{self._parenthesize(expression.operand)} {expression.op} {_number(expression.limit)}"
        if isinstance(expression, HistogramQuantile):
            return f"histogram_quantile({_number(expression.q)}, {self.compile(expression.operand)})"
        return self._affine(expression)

    def _select(self, selector: Selector) -> str:
        text = _series_selector(selector, self.language)
        if selector.function == "last":
            text += self.language.window_of_last
        if self.at is not None:
            text += f" @ {self.at:.3f}{self.language.time_digits}"
        return self.language.calls[selector.function].format(
            series=text,
            q=None if selector.q is None else _number(selector.q),
            seconds=selector.window_seconds,
            at="time()" if self.at is None else f"{self.at:.3f}",
        )

    def _affine(self, expression: Affine) -> str:
        text = self._parenthesize(expression.operand)
        if expression.scale != 1:
            text = f"{_number(expression.scale)} * {text}"
        if expression.offset != 0:
            sign = "-" if expression.offset < 0 else "+"
            text = f"{text} {sign} {_number(abs(expression.offset))}"
        return text if expression.upper is None else f"clamp_max({text}, {_number(expression.upper)})"

    def _parenthesize(self, expression: Expression) -> str:
        text = self.compile(expression)
        return f"({text})" if isinstance(expression, Ratio | Affine | Sum | Union | Filter) else text


def _series_selector(selector: Selector, language: QueryLanguage) -> str:
    text = selector.metric
    if selector.matchers:
        text += "{" + ",".join(_matcher(matcher, language) for matcher in selector.matchers) + "}"
    return text if selector.window_seconds is None else f"{text}[{format_duration(selector.window_seconds)}]"


def _matcher(matcher: Matcher, language: QueryLanguage) -> str:
    value = matcher.value
    if matcher.op in ("=~", "!~") and not language.dot_matches_newline and _DOT.match(value):
        value = f"(?s:{value})"
    return f"{matcher.label}{matcher.op}{quote_string(value)}"


def _label_replace(text: str, to: str, value: str, source: str, regex: str) -> str:
    arguments = ", ".join(map(quote_string, (to, value, source, regex)))
    return f"label_replace({text}, {arguments})"


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError(f"a number in an expression must be finite, not {value}")
    return repr(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
