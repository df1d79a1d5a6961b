"""Pasts and reports that are made up: what the tests of the report are written with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gpu_advisor.evaluation.facts import Gpu
from gpu_advisor.evaluation.recommendation import Scope
from gpu_advisor.promql.expressions import Selector
from gpu_advisor.report import series
from gpu_advisor.report.build import build_report
from gpu_advisor.report.fleet_history import FleetHistory
from gpu_advisor.report.period import ReportPeriod
from gpu_advisor.report.schema import Report
from gpu_advisor.settings import Settings
from gpu_advisor.state.outcomes import ClosedRecommendation, Outcome, OutcomeResult, Outcomes, TrackedRecommendation
from gpu_advisor.state.view import SourceStatus, View
from hypothesis import strategies as st

END = 1_795_003_200.0
PERIOD = ReportPeriod(END, 1800, 8)


@dataclass(frozen=True)
class GpuHistorySpec:
    """A GPU of which `utilization`, `coverage` and `memory` are known in some of the steps; None: in no step."""

    uuid: str
    name: str = "NVIDIA H100"
    node: str = "node-a"
    utilization: dict[int, float] = field(default_factory=dict)
    coverage: dict[int, float] = field(default_factory=dict)
    memory: dict[int, float] = field(default_factory=dict)
    named: frozenset[int] = frozenset(range(PERIOD.points))


def history_of(cards: list[GpuHistorySpec], **changes: Any) -> FleetHistory:
    values = {
        series.UTILIZATION: {card.uuid: card.utilization for card in cards},
        series.COVERAGE: {card.uuid: card.coverage for card in cards},
        series.MEMORY: {card.uuid: card.memory for card in cards},
    }
    given: dict[str, Any] = {
        "gpus": tuple(Gpu(card.uuid, "0", card.name, "nvidia", card.node, True) for card in cards),
        "observed_spans": {card.uuid: (min(card.named), max(card.named)) for card in cards},
        "observed_steps": {card.uuid: card.named for card in cards},
        "values": values,
        "cpu": {card.node: {0: 0.4, 2: 0.6} for card in cards},
        "expressions": {part: Selector(f"gpu:{part}") for part in values},
    }
    return FleetHistory(PERIOD, **{**given, **changes})


def steady_gpu(uuid: str, utilization: float = 0.5, memory: float = 0.8, **changes: Any) -> GpuHistorySpec:
    """Seen all the time."""
    every = range(PERIOD.points)
    known = {"utilization": utilization, "coverage": 1.0, "memory": memory}
    parts: dict[str, Any] = {name: dict.fromkeys(every, value) for name, value in known.items()}
    return GpuHistorySpec(uuid, **parts, **changes)


def view_of(outcomes: Outcomes | None = None) -> View:
    """Of an advisor that has evaluated nothing."""
    source = SourceStatus("prometheus", "http://prometheus:9090", True, last_success=END)
    return View("test", source, outcomes=outcomes or Outcomes())


def report_of(
    cards: list[GpuHistorySpec], settings: Settings | None = None, outcomes: Outcomes | None = None
) -> Report:
    return build_report(history_of(cards), view_of(outcomes), settings or Settings())


def outcome(before: float | None, projected: float | None, after: float | None) -> Outcomes:
    tracked = TrackedRecommendation(
        "0" * 16, "idle_reclaim", "down", Scope("pool", "chat"), "GPUs", END - 9000, 8, 4, before, projected
    )
    error = None if after is None or projected is None else after - projected
    closed = ClosedRecommendation(tracked, END - 7200, 4)
    return Outcomes().with_added([Outcome(closed, END - 6000, OutcomeResult.APPLIED, after, True, error)])


def steps(low: float = 0.0, high: float = 1.0) -> st.SearchStrategy[dict[int, float]]:
    return st.dictionaries(st.integers(0, PERIOD.points - 1), st.floats(low, high), max_size=PERIOD.points)


@st.composite
def cards(draw: st.DrawFn) -> list[GpuHistorySpec]:
    """Any fleet, seen any part of the time."""
    found = []
    for number in range(draw(st.integers(0, 4))):
        utilization = draw(steps())
        named = draw(st.frozensets(st.integers(0, PERIOD.points - 1))) | utilization.keys()
        coverage = {index: draw(st.floats(0, 1.01)) for index in utilization}
        if named:
            found.append(
                GpuHistorySpec(
                    f"GPU-{number}", draw(st.sampled_from(["NVIDIA H100", "Tesla T4", "a|b`<i>"])),
                    draw(st.sampled_from(["a", "b"])), utilization, coverage, draw(steps()), frozenset(named),
                )
            )  # fmt: skip
    return found


PRICE_SETTINGS = Settings.model_validate(
    {
        "cost": {"gpu_price_per_hour": {"NVIDIA H100": 2.5}},
        "pools": [{"name": "chat", "kind": "serving", "match": {"node": "a"}, "gpu": {"min": 1, "max": 8}}],
    }
)
