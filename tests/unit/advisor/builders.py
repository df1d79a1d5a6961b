"""Fleets as tables, and a source that answers from one: what the advisor's unit tests are written with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from gpu_advisor.evaluation.engine import Evaluation as Outcome
from gpu_advisor.evaluation.engine import decide
from gpu_advisor.evaluation.facts import Facts, Gpu, Node
from gpu_advisor.evaluation.history import PoolSample
from gpu_advisor.evaluation.pools import assign_pools
from gpu_advisor.evaluation.signals import (
    GPU_UP_COVERAGE,
    GPU_UP_HIGHEST,
    IDLE_COVERAGE,
    IDLE_UTILIZATION,
    MEMORY_USED,
    SIGNALS,
    UTILIZATION,
    UTILIZATION_COVERAGE,
    Signal,
)
from gpu_advisor.notify.alertmanager import AlertDispatcher, AlertmanagerStatus
from gpu_advisor.notify.alerts import postable_alerts
from gpu_advisor.observation.activity import STEP_SECONDS as ACTIVITY_STEP_SECONDS
from gpu_advisor.observation.compile import compile_signals
from gpu_advisor.promql.expressions import Expression, Labels, Selector, TimeSeries, Vector
from gpu_advisor.runtime.service import AdvisorService
from gpu_advisor.settings import Settings
from gpu_advisor.sources import algebra
from gpu_advisor.sources.base import Samples, SamplesByLabels, SourceError, SourceErrorKind
from gpu_advisor.sources.exporters.dialect import ExporterDialect
from gpu_advisor.sources.exporters.identity_rows import Row
from gpu_advisor.sources.exporters.mapping_files import own_mappings
from gpu_advisor.sources.matchers import compile_matchers
from gpu_advisor.state.alert import Alert
from gpu_advisor.state.ledger import Ledger

DIALECTS = tuple(ExporterDialect(mapping, (), 15.0, successive=False) for mapping in own_mappings())
AT = 1_800_000_000.0
MODEL = "NVIDIA H100"


@dataclass(frozen=True)
class GpuSpec:
    """A GPU of a test. None is a missing value."""

    uuid: str
    utilization: float | None = 0.5
    coverage: float | None = 1.0
    idle: float | None = None  # over the idle window; as `utilization` if not given
    memory: float | None = 0.5
    up: bool | None = True
    node: str = "node-a"
    name: str = MODEL
    index: str = "0"
    trail: TimeSeries = ()

    @property
    def gpu(self) -> Gpu:
        return Gpu(self.uuid, self.index, self.name, "nvidia", self.node, self.up)


def facts(
    cards: Sequence[GpuSpec],
    settings: Settings | None = None,
    nodes: Mapping[str, Mapping[str, float]] | None = None,
    without: Sequence[str] = (),
    **more: object,
) -> Facts:
    """`nodes`: name -> signal -> value. `without`: names of signals that no exporter here can give."""
    chosen = settings or Settings()
    values: dict[str, dict[str, float]] = {signal.name: {} for signal in SIGNALS}
    for card in cards:
        for signal, value in (
            (UTILIZATION, card.utilization),
            (UTILIZATION_COVERAGE, card.coverage),
            (IDLE_UTILIZATION, card.utilization if card.idle is None else card.idle),
            (IDLE_COVERAGE, card.coverage),
            (MEMORY_USED, card.memory),
        ):
            if value is not None:
                values[signal.name][card.uuid] = value
    for name, found in (nodes or {}).items():
        for signal_name, value in found.items():
            values[signal_name][name] = value
    expressions = {k: v for k, v in compile_signals(DIALECTS, chosen).items() if k not in without}
    return Facts(
        at=AT,
        gpus=tuple(card.gpu for card in cards),
        nodes=tuple(Node(name, f"{name}:9816") for name in nodes or {}),
        values={k: v for k, v in values.items() if k not in without},
        expressions=expressions,
        evaluation=chosen.evaluation,
        pool_histories=pool_history(cards, chosen),
        **more,  # type: ignore[arg-type]
    )


def with_values(known: Facts, values: Mapping[Signal, Mapping[str, float]]) -> Facts:
    """The facts with these values as well: signal -> GPU -> value."""
    changed = {signal.name: {**known.values.get(signal.name, {}), **found} for signal, found in values.items()}
    return replace(known, values={**known.values, **changed})


def lost(known: Facts, uuids: Iterable[str], coverage: float = 1.0) -> Facts:
    """The facts with GPUs that were down, and never up, for this share of the window."""
    uuids = tuple(uuids)
    return with_values(
        known, {GPU_UP_HIGHEST: dict.fromkeys(uuids, 0.0), GPU_UP_COVERAGE: dict.fromkeys(uuids, coverage)}
    )


def pool_history(cards: Sequence[GpuSpec], settings: Settings) -> dict[str, tuple[PoolSample, ...]]:
    """What the source adds up of the cards' trails."""
    trails: dict[str, tuple[PoolSample, ...]] = {}
    by_uuid = {card.uuid: card.trail for card in cards}
    for pool in assign_pools([card.gpu for card in cards], settings.pools):
        at_time: dict[float, list[float]] = {}
        for uuid in pool.uuids:
            for at, value in by_uuid[uuid]:
                at_time.setdefault(at, []).append(value)
        trails[pool.settings.name] = tuple(PoolSample(at, len(v), sum(v)) for at, v in sorted(at_time.items()))
    return trails


def concluded(cards: Sequence[GpuSpec], settings: Settings | None = None) -> Outcome:
    chosen = settings or Settings()
    return decide(facts(cards, chosen), chosen)


def identity_row(**pairs: str) -> Row:
    """A row under canonical label names."""
    return pairs


def labels(**pairs: str) -> Labels:
    return tuple(sorted(pairs.items()))


@dataclass
class ExporterTarget:
    """One exporter: whether it answers, in what state its driver and its sources of owners are, and its GPUs."""

    instance: str
    cards: list[GpuSpec] = field(default_factory=list)
    up: bool = True
    driver: str = "ok"
    job: str = "gpu"
    owner_sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> dict[str, str]:
        return {"instance": self.instance, "job": self.job}


class FakeSource:
    """A Source over targets. Series of an exporter that is down stay in the idle window."""

    name = "fake"
    address = "memory"

    def __init__(
        self, targets: Sequence[ExporterTarget], settings: Settings | None = None, clock: FakeClock | None = None
    ) -> None:
        self.targets = list(targets)
        self.failure: Exception | None = None
        self.lost_at: float | None = None  # when the silent ones fell silent
        self.clock = clock
        self._settings = settings or Settings()

    def instant(self, expressions: Mapping[str, Expression], at: float) -> Mapping[str, Vector]:
        if self.failure:
            raise self.failure

        def known(expression: Expression) -> dict[Labels, float] | None:
            return self._selected(expression, at) if isinstance(expression, Selector) else None

        return {key: algebra.evaluate_expression(expression, known) for key, expression in expressions.items()}

    def range(self, expression: Expression, start: float, end: float, step: float) -> Mapping[Labels, TimeSeries]:
        if self.failure:
            raise self.failure
        found: dict[Labels, list[tuple[float, float]]] = {}
        at = start
        while at <= end:

            def known(part: Expression, now: float = at) -> dict[Labels, float] | None:
                return self._recorded(part, now, end) if isinstance(part, Selector) else None

            for key, value in algebra.evaluate_expression(expression, known).items():
                found.setdefault(key, []).append((at, value))
            at += step
        return {key: tuple(trail) for key, trail in found.items()}

    def samples(self, selectors: Mapping[str, Selector], at: float) -> Mapping[str, SamplesByLabels]:
        """Samples every 15 s of the window, of each series that is there."""
        if self.failure:
            raise self.failure
        found: dict[str, dict[Labels, Samples]] = {}
        for key, select in selectors.items():
            times = np.arange(round((at - (select.window_seconds or 0)) * 1000), round(at * 1000) + 1, 15_000)
            series = self._selected(select, at)
            found[key] = {labels_: (times, np.full(len(times), value)) for labels_, value in series.items()}
        return found

    def close(self) -> None:
        pass

    def _recorded(self, select: Selector, at: float, end: float) -> dict[Labels, float]:
        """What the cards' trails give for a selector at one step."""
        found: dict[Labels, float] = {}
        is_selected = compile_matchers(select.matchers)  # once: it may name a thousand GPUs
        for target, card in self._reporting(end):
            share = dict(card.trail).get(at)
            if share is None and (select.window_seconds or 0) >= ACTIVITY_STEP_SECONDS:  # the activity of idle GPUs
                share = card.utilization if card.idle is None else card.idle
            values = {"gpu_busy_seconds_total": share, "gpu_observed_seconds_total": 1.0}
            key = labels(uuid=card.uuid, **target.identity)
            value = values.get(select.metric)
            if share is not None and value is not None and is_selected(dict(key)):
                found[key] = value
        return found

    def _reporting(self, at: float) -> list[tuple[ExporterTarget, GpuSpec]]:
        """The GPUs that report at a time: before `lost_at`, all do."""
        before = self.lost_at is not None and at < self.lost_at
        return [
            (target, card)
            for target in self.targets
            if before or (target.up and target.driver == "ok")
            for card in target.cards
        ]

    def _selected(self, select: Selector, at: float) -> dict[Labels, float]:
        """The series of gpu-exporter, reduced by this selector."""
        if select.metric == "up":
            scraped = (select.window_seconds or 0) / 15 + 1  # every 15 s, whether up or not
            return {labels(**target.identity): scraped if select.window_seconds else float(target.up)
                    for target in self.targets}  # fmt: skip
        if select.metric == "gpu_exporter_driver_info":
            answering = [target for target in self.targets if target.up]
            return {labels(driver="nvidia", state=target.driver, **target.identity): 1.0 for target in answering}
        if select.metric == "gpu_exporter_owner_source_info":
            matches = compile_matchers(select.matchers)
            sources = (labels(source=source, state=state, **target.identity) for target in self.targets if target.up
                       for source, state in target.owner_sources.items())  # fmt: skip
            return {each: 1.0 for each in sources if matches(dict(each))}
        reporting = self._reporting(at)
        if select.metric == "gpu_info":
            before = self._reporting(at - select.window_seconds) if select.window_seconds else []
            return {_info(target, card): 1.0 for target, card in reporting + before}
        counted = "count/" if select.function == "count" else ""
        read = READINGS.get(counted + select.metric, READINGS.get(select.metric))
        idle = select.window_seconds == self._settings.evaluation.idle_window_seconds
        found = {
            labels(uuid=card.uuid, **target.identity): read(card, idle)
            for target, card in reporting
            if read is not None
        }
        return {key: value for key, value in found.items() if value is not None}


def _busy(card: GpuSpec, idle: bool) -> float | None:
    share = card.idle if idle and card.idle is not None else card.utilization
    return None if share is None or card.coverage is None else share * card.coverage


#: What the series of our exporter say of a card, over the idle window or not.
READINGS: dict[str, Callable[[GpuSpec, bool], float | None]] = {
    "gpu_up": lambda card, _: None if card.up is None else float(card.up),
    "gpu_busy_seconds_total": _busy,
    "gpu_observed_seconds_total": lambda card, _: card.coverage,
    "count/gpu_observed_seconds_total": lambda card, idle: (
        None if card.coverage is None else card.coverage * (1800 if idle else 300) / 15
    ),
    "gpu_memory_used_bytes": lambda card, _: card.memory,
    "gpu_memory_total_bytes": lambda card, _: None if card.memory is None else 1.0,
}


def _info(target: ExporterTarget, card: GpuSpec) -> Labels:
    return labels(
        uuid=card.uuid, index=card.index, name=card.name, vendor="nvidia", nodename=card.node, **target.identity
    )


@dataclass
class FakeClock:
    now: float = AT

    def __call__(self) -> float:
        return self.now


class FakeAlertmanagers(AlertDispatcher):
    """What an Alertmanager would have been sent, round by round: id -> (startsAt, endsAt or None while it fires)."""

    def __init__(self) -> None:
        super().__init__((), 15)
        self.rounds: list[dict[str, Alert]] = []
        self.states: tuple[AlertmanagerStatus, ...] = ()

    def send(self, alerts: object, now: float) -> None:
        sent: tuple[Alert, ...] = tuple(alerts)  # type: ignore[arg-type]
        assert len(postable_alerts(sent, now, 15)) == len(sent)
        self.rounds.append({alert.id: alert for alert in sent})

    @property
    def firing(self) -> set[str]:
        return {id_ for id_, alert in self.rounds[-1].items() if alert.resolved is None}

    @property
    def resolved(self) -> set[str]:
        return set(self.rounds[-1]) - self.firing


class ServiceHarness:
    """A service on a ledger in a folder, with everything around it under the test's hand."""

    def __init__(self, folder: Path, source: FakeSource, clock: FakeClock, settings: Settings | None = None) -> None:
        self.source, self.clock, self.alertmanagers = source, clock, FakeAlertmanagers()
        self.ledger = Ledger(folder / "ledger.db")
        self.service = AdvisorService(settings or Settings(), source, self.ledger, self.alertmanagers, clock=clock)

    def after(self, seconds: float) -> ServiceHarness:
        """Time passes, and a round is made."""
        self.clock.now += seconds
        self.service.evaluate_safely()
        return self

    @property
    def given(self) -> dict[str, tuple[float, bool]]:
        """id -> (since, stale)"""
        return {each.id: (each.since, each.stale) for each in self.service.view.issued}

    def close(self) -> None:
        self.ledger.close()


def source_error(message: str = "no connection") -> SourceError:
    return SourceError(SourceErrorKind.UNREACHABLE, message)
