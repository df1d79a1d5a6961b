"""Compile an expression to PromQL text: the query for Prometheus, and for a person who checks a number."""

from __future__ import annotations

import math

from gpu_advisor.promql.expressions import (
    Affine,
    Aggregate,
    ConstantLabel,
    Expression,
    Filter,
    Function,
    LabelJoin,
    LabelReplace,
    Matcher,
    Ratio,
    Selector,
    Sum,
    Union,
)

_RANGE_FUNCTIONS: dict[Function, str] = {
    "mean": "avg_over_time",
    "min": "min_over_time",
    "max": "max_over_time",
    "quantile": "quantile_over_time",
    "sum": "sum_over_time",
    "rate": "rate",
    "increase": "increase",
    "count": "count_over_time",
}
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


def to_promql(expression: Expression, at: float | None = None) -> str:
    """The query text, the same for equal expressions.

    With `at` (Unix time), every selector is pinned to that time, so that the query always returns the same number.
    Raises ValueError for numbers or characters that PromQL cannot express.
    """
    if isinstance(expression, Selector):
        return _select(expression, at)
    if isinstance(expression, Aggregate):
        by = f" by ({', '.join(expression.by)}) " if expression.by else ""
        return f"{expression.op}{by}({to_promql(expression.operand, at)})"
    if isinstance(expression, Ratio):
        # The filter drops a division by zero here, before it turns an enclosing aggregation into NaN.
        return f"{_parenthesize(expression.numerator, at)} / ({_parenthesize(expression.denominator, at)} != 0)"
    if isinstance(expression, Sum):
        return " + ".join(_parenthesize(term, at) for term in expression.terms)
    if isinstance(expression, Union):
        return " or ".join(to_promql(part, at) for part in expression.parts)
    if isinstance(expression, LabelReplace):
        # (?s): a label value may contain a newline. $1 in the prefix would be a reference, $$ is a dollar.
        text = f"{expression.prefix.replace('$', '$$')}$1"
        return _label_replace(to_promql(expression.operand, at), expression.to, text, expression.source, "(?s)(.+)")
    if isinstance(expression, ConstantLabel):
        value = expression.value.replace("$", "$$")
        return _label_replace(to_promql(expression.operand, at), expression.label, value, "", "")
    if isinstance(expression, LabelJoin):
        names = ", ".join(map(quote_string, (expression.to, expression.separator, *expression.sources)))
        return f"label_join({to_promql(expression.operand, at)}, {names})"
    if isinstance(expression, Filter):
        return f"{_parenthesize(expression.operand, at)} {expression.op} {_number(expression.limit)}"
    return _affine(expression, at)


def range_selector(selector: Selector) -> str:
    """The query text for the raw samples in the selector's window: a range selector without its function.

    Raises ValueError for a selector without a window, or characters that PromQL cannot express.
    """
    if selector.window_seconds is None:
        raise ValueError(f"raw samples of {selector.metric} need a window")
    return _series_selector(selector)


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


def _select(selector: Selector, at: float | None) -> str:
    text = _series_selector(selector)
    if at is not None:
        text += f" @ {at:.3f}"
    if selector.function == "last":
        return text
    arguments = text if selector.q is None else f"{_number(selector.q)}, {text}"
    return f"{_RANGE_FUNCTIONS[selector.function]}({arguments})"


def _series_selector(selector: Selector) -> str:
    text = selector.metric
    if selector.matchers:
        text += "{" + ",".join(_matcher(matcher) for matcher in selector.matchers) + "}"
    return text if selector.window_seconds is None else f"{text}[{format_duration(selector.window_seconds)}]"


def _matcher(matcher: Matcher) -> str:
    return f"{matcher.label}{matcher.op}{quote_string(matcher.value)}"


def _affine(expression: Affine, at: float | None) -> str:
    text = _parenthesize(expression.operand, at)
    if expression.scale != 1:
        text = f"{_number(expression.scale)} * {text}"
    if expression.offset != 0:
        sign = "-" if expression.offset < 0 else "+"
        text = f"{text} {sign} {_number(abs(expression.offset))}"
    return text if expression.upper is None else f"clamp_max({text}, {_number(expression.upper)})"


def _label_replace(text: str, to: str, value: str, source: str, regex: str) -> str:
    arguments = ", ".join(map(quote_string, (to, value, source, regex)))
    return f"label_replace({text}, {arguments})"


def _parenthesize(expression: Expression, at: float | None) -> str:
    text = to_promql(expression, at)
    return f"({text})" if isinstance(expression, Ratio | Affine | Sum | Union | Filter) else text


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError(f"a number in an expression must be finite, not {value}")
    return repr(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
