"""Where GPU-hours went, as one bar for each pool: areas differ by hatching, so that they need no colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from gpu_advisor.report import formatting
from gpu_advisor.report.schema import GpuHours
from gpu_advisor.report.svg import WIDTH, format_coordinate, label

#: What a bar is made of, from left to right: class in the style, words.
BAR_SEGMENTS = (
    ("busy", "busy"),
    ("unused", "unused"),
    ("waste", "idle, memory held"),
    ("unseen", "not seen"),
)
_BAR, _BAR_GAP, _BAR_LEFT, _BAR_RIGHT = 18.0, 12.0, 190.0, 70.0


def bar_chart(title: str, groups: Sequence[tuple[str, GpuHours]]) -> Markup:
    """GPU-hours of each group as one bar of busy, unused, idle and unseen time."""
    longest = max((hours["there"] for _, hours in groups), default=0.0) or 1.0
    height = len(groups) * (_BAR + _BAR_GAP) + 26
    elements = [Markup('<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
                    'patternTransform="rotate(45)"><rect class="waste" width="6" height="6"/>'
                    '<line class="hatch" x1="0" y1="0" x2="0" y2="6"/></pattern></defs>')]  # fmt: skip
    descriptions = []
    for number, (name, hours) in enumerate(groups):
        top = number * (_BAR + _BAR_GAP) + 4
        elements.append(label(_BAR_LEFT - 8, top + 13, _truncate(name), "end"))
        left = _BAR_LEFT
        for (kind, _), value in zip(BAR_SEGMENTS, _segment_hours(hours), strict=True):
            width = (WIDTH - _BAR_LEFT - _BAR_RIGHT) * value / longest
            fill = Markup(' fill="url(#hatch)"') if kind == "waste" else Markup("")
            elements.append(
                Markup('<rect class="bar {}"{} x="{}" y="{}" width="{}" height="{}"/>').format(
                    "" if kind == "waste" else kind,
                    fill,
                    format_coordinate(left),
                    format_coordinate(top),
                    format_coordinate(width),
                    format_coordinate(_BAR),
                )
            )
            left += width
        elements.append(label(left + 6, top + 13, f"{hours['there']:,.0f} h", ""))
        parts = zip(BAR_SEGMENTS, _segment_hours(hours), strict=True)
        descriptions.append(
            f"{name}: " + ", ".join(f"{words} {formatting.hours(value)}" for (_, words), value in parts)
        )
    elements += _legend(height - 16)
    return Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        format_coordinate(WIDTH),
        format_coordinate(height),
        f"{title}. {'; '.join(descriptions)}",
        Markup("").join(elements),
    )


def _segment_hours(hours: GpuHours) -> tuple[float, float, float, float]:
    idle = min(hours["idle_holding"] or 0.0, hours["unused"])
    return hours["busy"], hours["unused"] - idle, idle, max(0.0, hours["there"] - hours["seen"])


def _legend(top: float) -> Iterator[Markup]:
    left = _BAR_LEFT
    for kind, words in BAR_SEGMENTS:
        fill = Markup(' fill="url(#hatch)"') if kind == "waste" else Markup("")
        yield Markup('<rect class="bar {}"{} x="{}" y="{}" width="12" height="12"/>').format(
            "" if kind == "waste" else kind, fill, format_coordinate(left), format_coordinate(top)
        )
        yield label(left + 18, top + 11, words, "")
        left += 34 + 7.2 * len(words)


def _truncate(name: str) -> str:
    return name if len(name) <= 27 else name[:26] + "…"
