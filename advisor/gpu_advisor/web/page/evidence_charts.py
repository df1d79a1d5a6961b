"""Evidence as small inline charts: a measured curve against its threshold, and a ratio as a bar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from markupsafe import Markup

from gpu_advisor.evaluation.recommendation import Evidence
from gpu_advisor.promql.expressions import Expression, HistogramQuantile, Selector, subexpressions
from gpu_advisor.rendering import svg
from gpu_advisor.rendering.durations import duration
from gpu_advisor.web.page.evidence_history import EvidenceSeries
from gpu_advisor.web.page.template_filters import time_of_day, value_text

WIDTH, HEIGHT = 320.0, 104.0
AREA = svg.PlotArea(left=2.0, right=WIDTH - 62.0, top=16.0, bottom=HEIGHT - 16.0)


def evidence_chart(curve: EvidenceSeries, threshold: float | None, unit: str, name: str) -> Markup:
    """The curve with a text alternative. A gap in the data is a gap in the line."""
    known = [value for value in curve.points if value is not None]
    if not known:
        return Markup('<p class="calm">{}</p>').format(curve.why)
    low, high = _scale(known, threshold, unit)

    def y(value: float) -> float:
        return AREA.y((value - low) / (high - low))

    last = max(1, len(curve.points) - 1)
    elements = [AREA.across(AREA.bottom, "axis"), AREA.across(AREA.y(1.0), "axis")]
    elements.append(svg.label(AREA.left, AREA.top - 3, value_text(high, unit), "scale"))
    for part in svg.segments(curve.points):
        elements.append(svg.curve([(AREA.x(index / last), y(value)) for index, value in part], "line", 1.5))
    labels = [(known[-1], "now")]
    if threshold is not None:
        elements.append(AREA.across(y(threshold), "limit"))
        labels.append((threshold, "limit"))
    heights = svg.spread_labels([y(value) + 4 for value, _ in labels], 13, AREA.top + 4, AREA.bottom + 4)
    elements += [
        svg.label(AREA.right + 5, at, value_text(value, unit), kind)
        for at, (value, kind) in zip(heights, labels, strict=True)
    ]
    elements.append(svg.label(AREA.left, HEIGHT - 4, f"{time_of_day(curve.start)} UTC", "time"))
    elements.append(svg.label(AREA.right, HEIGHT - 4, time_of_day(curve.end), "time end"))
    return svg.drawing(WIDTH, HEIGHT, describe_chart(curve, threshold, unit, name), elements, "chart")


def describe_chart(curve: EvidenceSeries, threshold: float | None, unit: str, name: str) -> str:
    """The text alternative."""
    last = next((value for value in reversed(curve.points) if value is not None), None)
    against = "" if threshold is None else f", threshold {value_text(threshold, unit)}"
    extent = svg.describe_range(curve.points, lambda value: value_text(value, unit))
    return f"{name} over {duration(curve.end - curve.start)}: {value_text(last, unit)} at the end{against}, {extent}"


def statistic(evidence: Evidence) -> str:
    """`mean`, `p95`: a quantile by its percentile."""
    if evidence.statistic != "quantile" or evidence.expression is None:
        return evidence.statistic
    quantiles = set(_quantiles(evidence.expression))
    if len(quantiles) != 1:
        return evidence.statistic
    return f"p{100 * quantiles.pop():g}"


def _quantiles(expression: Expression) -> Iterator[float]:
    """Of an expression and all its parts."""
    if isinstance(expression, Selector | HistogramQuantile) and expression.q is not None:
        yield expression.q
    for part in subexpressions(expression):
        yield from _quantiles(part)


def distinct_titles(evidence: Sequence[Evidence], names: Mapping[str, str]) -> list[str]:
    """A title for each piece of evidence: what it is about, and what distinguishes it from others of the same name.

    `names` are those of GPUs, by uuid.
    """
    titles = [each.about for each in evidence]
    for detail in (_window, partial(_subject, names)):
        details = [detail(each) for each in evidence]
        differing: dict[str, set[str]] = {}
        for title, words in zip(titles, details, strict=True):
            differing.setdefault(title, set()).add(words)
        titles = [
            f"{title}{words}" if len(differing[title]) > 1 else title
            for title, words in zip(titles, details, strict=True)
        ]
    counts, seen = Counter(titles), Counter[str]()
    for number, title in enumerate(titles):
        seen[title] += 1
        titles[number] = title if counts[title] == 1 else f"{title} ({seen[title]})"
    return titles


def _window(evidence: Evidence) -> str:
    window = f" over {duration(evidence.window_seconds)}" if evidence.window_seconds else ""
    return f", {statistic(evidence)}{window}"


def _subject(names: Mapping[str, str], evidence: Evidence) -> str:
    values = evidence.things.values if evidence.things else ()
    if len(values) == 1:
        return f", {names.get(values[0], values[0])}"
    return f", all {len(values)}" if values else ""


def meter(value: float | None, low: float | None, high: float | None, kind: str) -> Markup:
    """A ratio as a bar, with marks at the edges of its target. Decoration: the number stands beside it."""
    if value is None:
        return Markup("")
    parts = [svg.rect(0, 0, 100, 10, "room"), svg.rect(0, 0, 100 * min(max(value, 0.0), 1.0), 10, "fill")]
    parts += [svg.rect(edge * 99, 0, 1, 10, "mark") for edge in (low, high) if edge is not None and 0 < edge < 1]
    return svg.element("svg", f"meter {kind}", Markup("").join(parts), viewBox="0 0 100 10",
                       preserveAspectRatio="none", aria_hidden="true")  # fmt: skip


def _scale(known: Sequence[float], threshold: float | None, unit: str) -> tuple[float, float]:
    """Ratios are drawn on 0 to 1, so that charts side by side compare; everything starts at zero."""
    values = [*known, *([] if threshold is None else [threshold])]
    low, high = min(0.0, *values), max(0.0, *values)
    if unit == "ratio" and high <= 1:
        return low, 1.0
    return (low, low + 1.0) if high == low else (low, high + 0.05 * (high - low))
