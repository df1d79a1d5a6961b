"""What advice changed, as a drawing: utilization before and after, and what was projected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from gpu_advisor.documents.schema import OutcomeDocument
from gpu_advisor.report import formatting
from gpu_advisor.report.svg import WIDTH, label, svg_line

#: Outcomes that are drawn; the table has all.
MAX_OUTCOMES_DRAWN = 20

LEFT, RIGHT, ROW, TOP = 300.0, 60.0, 26.0, 8.0


def complete_outcomes(outcomes: Sequence[OutcomeDocument]) -> list[OutcomeDocument]:
    """Those of which both ends are known."""
    known = [
        each
        for each in outcomes
        if each["utilization_before_ratio"] is not None and each["utilization_after_ratio"] is not None
    ]
    return known[:MAX_OUTCOMES_DRAWN]


def before_after_chart(outcomes: Sequence[OutcomeDocument]) -> Markup:
    """A row for each outcome: a ring where it was, a dot where it went, and a mark where it should have gone."""
    height = TOP + ROW * len(outcomes) + 42
    elements = list(_axis(TOP + ROW * len(outcomes)))
    descriptions = []
    for number, each in enumerate(outcomes):
        y = TOP + ROW * (number + 0.5)
        name = f"{formatting.humanize(each['kind'])}, {each['scope']['label']}"
        elements.append(label(LEFT - 10, y + 4, name if len(name) <= 42 else name[:41] + "…", "end"))
        elements += _row(each, y)
        before, after, projected = (
            formatting.percent(each[key])
            for key in ("utilization_before_ratio", "utilization_after_ratio", "utilization_projected_ratio")
        )
        descriptions.append(f"{name}: from {before} to {after}, projected {projected}")
    elements += _legend(height - 10)
    return Markup('<svg class="plot" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, f"GPU utilization before and after. {'; '.join(descriptions)}", Markup("").join(elements)
    )


def _row(each: OutcomeDocument, y: float) -> Iterator[Markup]:
    before, after = each["utilization_before_ratio"], each["utilization_after_ratio"]
    if before is None or after is None:  # cannot be: only those are drawn that have both
        return
    yield svg_line(_x(before), _x(after), y, y, "line")
    projected = each["utilization_projected_ratio"]
    if projected is not None:
        yield svg_line(_x(projected), _x(projected), y - 8, y + 8, "aim")
    yield _ring(_x(before), y)
    yield _dot(_x(after), y)


def _axis(bottom: float) -> Iterator[Markup]:
    for tick in (0, 25, 50, 75, 100):
        yield svg_line(_x(tick / 100), _x(tick / 100), TOP, bottom, "grid")
        yield label(_x(tick / 100), bottom + 16, f"{tick} %", "middle")


def _legend(y: float) -> Iterator[Markup]:
    yield _ring(LEFT, y)
    yield label(LEFT + 12, y + 4, "before", "")
    yield _dot(LEFT + 84, y)
    yield label(LEFT + 96, y + 4, "after", "")
    yield svg_line(LEFT + 160, LEFT + 160, y - 7, y + 7, "aim")
    yield label(LEFT + 170, y + 4, "projected", "")


def _x(ratio: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * min(max(ratio, 0.0), 1.0)


def _ring(x: float, y: float) -> Markup:
    return Markup('<circle class="ring" cx="{:.1f}" cy="{:.1f}" r="5"/>').format(x, y)


def _dot(x: float, y: float) -> Markup:
    return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="5"/>').format(x, y)
