"""Where GPU-hours went, as one bar for each pool: areas differ by hatching, so that they need no colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from gpu_advisor.report import figures
from gpu_advisor.report.drawing import WIDTH, label, units
from gpu_advisor.report.shapes import GpuHours

#: What a bar is made of, from left to right: class in the style, words.
SHARES = (
    ("busy", "busy"),
    ("unused", "unused"),
    ("waste", "idle, memory held"),
    ("unseen", "not seen"),
)
_BAR, _BAR_GAP, _BAR_LEFT, _BAR_RIGHT = 18.0, 12.0, 190.0, 70.0


def bars(title: str, groups: Sequence[tuple[str, GpuHours]]) -> Markup:
    """GPU-hours of each group as one bar of busy, unused, idle and unseen time."""
    longest = max((hours["there"] for _, hours in groups), default=0.0) or 1.0
    height = len(groups) * (_BAR + _BAR_GAP) + 26
    drawn = [Markup('<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
                    'patternTransform="rotate(45)"><rect class="waste" width="6" height="6"/>'
                    '<line class="hatch" x1="0" y1="0" x2="0" y2="6"/></pattern></defs>')]  # fmt: skip
    said = []
    for number, (name, hours) in enumerate(groups):
        top = number * (_BAR + _BAR_GAP) + 4
        drawn.append(label(_BAR_LEFT - 8, top + 13, _short(name), "end"))
        left = _BAR_LEFT
        for (kind, _), value in zip(SHARES, _shares(hours), strict=True):
            width = (WIDTH - _BAR_LEFT - _BAR_RIGHT) * value / longest
            fill = Markup(' fill="url(#hatch)"') if kind == "waste" else Markup("")
            drawn.append(
                Markup('<rect class="bar {}"{} x="{}" y="{}" width="{}" height="{}"/>').format(
                    "" if kind == "waste" else kind, fill, units(left), units(top), units(width), units(_BAR)
                )
            )
            left += width
        drawn.append(label(left + 6, top + 13, f"{hours['there']:,.0f} h", ""))
        parts = zip(SHARES, _shares(hours), strict=True)
        said.append(f"{name}: " + ", ".join(f"{words} {figures.hours(value)}" for (_, words), value in parts))
    drawn += _legend(height - 16)
    return Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        units(WIDTH), units(height), f"{title}. {'; '.join(said)}", Markup("").join(drawn)
    )


def _shares(hours: GpuHours) -> tuple[float, float, float, float]:
    idle = min(hours["idle_holding"] or 0.0, hours["unused"])
    return hours["busy"], hours["unused"] - idle, idle, max(0.0, hours["there"] - hours["seen"])


def _legend(top: float) -> Iterator[Markup]:
    left = _BAR_LEFT
    for kind, words in SHARES:
        fill = Markup(' fill="url(#hatch)"') if kind == "waste" else Markup("")
        yield Markup('<rect class="bar {}"{} x="{}" y="{}" width="12" height="12"/>').format(
            "" if kind == "waste" else kind, fill, units(left), units(top)
        )
        yield label(left + 18, top + 11, words, "")
        left += 34 + 7.2 * len(words)


def _short(name: str) -> str:
    return name if len(name) <= 27 else name[:26] + "…"
