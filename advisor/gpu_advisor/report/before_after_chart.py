"""Outcomes of recommendations: utilization before and after, and as projected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from gpu_advisor.documents.schema import OutcomeDocument
from gpu_advisor.rendering import svg
from gpu_advisor.rendering.names import humanize
from gpu_advisor.report import formatting
from gpu_advisor.report.line_charts import WIDTH

#: Outcomes that are drawn; the table has all.
MAX_OUTCOMES_DRAWN = 20

LEFT, RIGHT, ROW, TOP = 300.0, 60.0, 26.0, 8.0


def complete_outcomes(outcomes: Sequence[OutcomeDocument]) -> list[OutcomeDocument]:
    """The first with utilization both before and after."""
    known = [
        each
        for each in outcomes
        if each["utilization_before_ratio"] is not None and each["utilization_after_ratio"] is not None
    ]
    return known[:MAX_OUTCOMES_DRAWN]


def before_after_chart(outcomes: Sequence[OutcomeDocument]) -> Markup:
    """A row for each outcome: a ring before, a dot after, and a mark at the projection."""
    area = svg.PlotArea(LEFT, WIDTH - RIGHT, TOP, TOP + ROW * len(outcomes))
    elements, descriptions = list(_axis(area)), []
    for number, each in enumerate(outcomes):
        y = TOP + ROW * (number + 0.5)
        name = f"{humanize(each['kind'])}, {each['scope']['label']}"
        elements.append(svg.label(LEFT - 10, y + 4, formatting.truncate(name, 42), "end"))
        ratios = (
            each["utilization_before_ratio"], each["utilization_after_ratio"], each["utilization_projected_ratio"],
        )  # fmt: skip
        elements += _row(area, y, *ratios)
        before, after, projected = map(formatting.percent, ratios)
        descriptions.append(f"{name}: from {before} to {after}, projected {projected}")
    height = area.bottom + 42
    elements += _legend(height - 10)
    description = f"GPU utilization before and after. {'; '.join(descriptions)}"
    return svg.drawing(WIDTH, height, description, elements)


def _row(
    area: svg.PlotArea, y: float, before: float | None, after: float | None, projected: float | None
) -> Iterator[Markup]:
    x = [None if ratio is None else area.x(min(max(ratio, 0.0), 1.0)) for ratio in (before, after, projected)]
    if x[0] is not None and x[1] is not None:
        yield svg.line(x[0], x[1], y, y, "line")
    if x[2] is not None:
        yield svg.line(x[2], x[2], y - 8, y + 8, "aim")
    if x[0] is not None:
        yield svg.circle(x[0], y, 5, "ring")
    if x[1] is not None:
        yield svg.circle(x[1], y, 5)


def _axis(area: svg.PlotArea) -> Iterator[Markup]:
    for tick in (0, 25, 50, 75, 100):
        x = area.x(tick / 100)
        yield svg.line(x, x, area.top, area.bottom, "grid")
        yield svg.label(x, area.bottom + 16, f"{tick} %", "middle")


def _legend(y: float) -> Iterator[Markup]:
    yield svg.circle(LEFT, y, 5, "ring")
    yield svg.label(LEFT + 12, y + 4, "before")
    yield svg.circle(LEFT + 84, y, 5)
    yield svg.label(LEFT + 96, y + 4, "after")
    yield svg.line(LEFT + 160, LEFT + 160, y - 7, y + 7, "aim")
    yield svg.label(LEFT + 170, y + 4, "projected")
