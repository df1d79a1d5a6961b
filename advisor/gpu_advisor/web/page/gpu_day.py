"""The GPU page's data: which ranges of the last day are read, and how they become charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from gpu_advisor.evaluation import signals
from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.evaluation.signals import Signal, select_or_average
from gpu_advisor.observation.owners import owners_from_info
from gpu_advisor.observation.queries import source_matchers
from gpu_advisor.promql.expressions import Labels, Selector, with_matchers
from gpu_advisor.settings import Settings
from gpu_advisor.web.page import day_charts
from gpu_advisor.web.page.day_charts import Curve
from gpu_advisor.web.page.evidence_history import EvidenceHistory, Points, RangeRequest, RangeResult
from gpu_advisor.web.page.gpu_list import THROTTLE_REASONS

DAY_SECONDS = 86400.0
STEP_SECONDS = 300.0
POINTS = round(DAY_SECONDS / STEP_SECONDS)

#: An hour is drawn however short the history is.
MIN_SHOWN_STEPS = 12


@dataclass(frozen=True, slots=True)
class ChartKind:
    """A chart and its lines: names and signals of one unit. The scale reaches the present value of `limit`."""

    title: str
    lines: tuple[tuple[str, Signal], ...]
    limit: Signal | None = None

    @property
    def unit(self) -> str:
        return self.lines[0][1].unit


CHARTS = (
    ChartKind("Utilization", (("GPU utilization", signals.UTILIZATION), ("SM activity", signals.SM_ACTIVITY))),
    ChartKind("Memory used", (("memory used", signals.MEMORY_USED),)),
    ChartKind("Power draw", (("power", signals.POWER),), signals.POWER_LIMIT),
    ChartKind("SM clock", (("SM clock", signals.SM_CLOCK),), signals.SM_CLOCK_MAX),
    ChartKind("Temperature", (("temperature", signals.TEMPERATURE),)),
    ChartKind("Throttled: share of time", THROTTLE_REASONS),
)


@dataclass(frozen=True, slots=True)
class DayChart:
    """`drawing` is empty if there is no data; then `why` is the reason."""

    title: str
    drawing: Markup
    why: str = ""


def read_day(history: EvidenceHistory, facts: Facts, gpu: Gpu, settings: Settings, up: bool) -> list[DayChart]:
    """The charts of the day before the evaluation: one range query for each signal that the exporter has."""
    supported = [
        (chart, name, signal) for chart in CHARTS for name, signal in chart.lines if facts.supports(signal, gpu)
    ]
    requests = [owner_request(facts, gpu, settings), *(_request(facts, gpu, signal) for _, _, signal in supported)]
    owners, *results = history.read(requests, up)
    lines: dict[ChartKind, list[tuple[str, RangeResult]]] = {}
    for (chart, name, _), result in zip(supported, results, strict=True):
        if result is not None:
            lines.setdefault(chart, []).append((name, result))
    known = [owners, *(result for found in lines.values() for _, result in found)]
    unknown = steps_before_data([result for result in known if result is not None])
    charts = [_chart(chart, found, unknown, facts, gpu) for chart, found in lines.items()]
    return [*charts, *([_owners(owners, unknown)] if owners and owners.series else [])]


def steps_before_data(results: Sequence[RangeResult]) -> int:
    """How many steps of the day are before the first data, but for the last hour, which is always drawn."""
    firsts = (
        next((step for step, value in enumerate(points) if value is not None), POINTS)
        for result in results
        for points in result.series.values()
    )
    return min(min(firsts, default=0), POINTS - MIN_SHOWN_STEPS)


def _request(facts: Facts, gpu: Gpu, signal: Signal) -> RangeRequest | None:
    evidence = facts.evidence(signal, (gpu.uuid,))
    if evidence.expression is None or evidence.things is None:
        return None
    expression = select_or_average(evidence.expression, *evidence.things)
    return RangeRequest(expression, facts.at - DAY_SECONDS, facts.at, POINTS)


def owner_request(facts: Facts, gpu: Gpu, settings: Settings) -> RangeRequest | None:
    """Owners are only known over time where gpu-exporter publishes them."""
    things = facts.evidence(signals.UTILIZATION, (gpu.uuid,)).things
    if things is None:
        return None
    selected = with_matchers(Selector("gpu_owner_info"), source_matchers(settings))
    expression = select_or_average(selected, things.label, things.values, False, things.matchers)
    return RangeRequest(expression, facts.at - DAY_SECONDS, facts.at, POINTS)


def _chart(
    chart: ChartKind, found: Sequence[tuple[str, RangeResult]], unknown: int, facts: Facts, gpu: Gpu
) -> DayChart:
    curves = [Curve(name, result.first().points[unknown:]) for name, result in found if result.series]
    request = found[0][1].request
    limit = facts.value(chart.limit, gpu.uuid) if chart.limit else None
    start = request.start + unknown * request.step
    drawing = day_charts.day_chart(curves, start, request.end, chart.unit, chart.title, limit)
    return DayChart(chart.title, drawing, "" if curves else found[0][1].why)


def _owners(result: RangeResult, unknown: int) -> DayChart:
    lanes = owner_lanes({labels: points[unknown:] for labels, points in result.series.items()})
    shown = lanes[: day_charts.MAX_OWNERS]
    start = result.request.start + unknown * result.request.step
    drawing = day_charts.owner_band(shown, start, result.request.end)
    more = f"The {len(shown)} longest of {len(lanes)} owners." if len(lanes) > len(shown) else ""
    return DayChart("Owners", drawing, more)


def owner_lanes(series: Mapping[Labels, Points]) -> list[tuple[str, list[bool]]]:
    """When each owner used the GPU, at equal steps; the longest first. A restart begins another series."""
    lanes: dict[str, list[bool]] = {}
    for labels, points in series.items():
        name = next((str(owner) for owners in owners_from_info({labels: 1.0}, {}, (), ()).values()
                     for owner in owners), "an unknown owner")  # fmt: skip
        before = lanes.get(name, [False] * len(points))
        lanes[name] = [there or value is not None for there, value in zip(before, points, strict=True)]
    return sorted(lanes.items(), key=lambda lane: (-sum(lane[1]), lane[0]))
