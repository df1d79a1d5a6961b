"""Fleets as tables, and a source that answers from one: what the advisor's unit tests are written with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpu_advisor.engine import Evaluation as Outcome
from gpu_advisor.engine import compile_signals, decide
from gpu_advisor.expressions import Expression, Labels, Vector
from gpu_advisor.facts import Facts, Gpu, Node
from gpu_advisor.publish.alertmanager import Alertmanagers, AlertmanagerState
from gpu_advisor.publish.alerts import Alert, payload
from gpu_advisor.publish.ledger import Ledger
from gpu_advisor.service import Service
from gpu_advisor.settings import Settings
from gpu_advisor.signals import (
    CATALOGUE,
    GPU_UP,
    IDENTITY,
    IDLE_COVERAGE,
    IDLE_UTILIZATION,
    MEMORY_USED,
    UTILIZATION,
    UTILIZATION_COVERAGE,
)
from gpu_advisor.sources.base import SourceError, SourceErrorKind, Trail
from gpu_advisor.sources.mapping import mappings

AT = 1_800_000_000.0
MODEL = "NVIDIA H100"


@dataclass(frozen=True)
class Card:
    """A GPU as a test tells of it. None is a value that is missing."""

    uuid: str
    utilization: float | None = 0.5
    coverage: float | None = 1.0
    idle: float | None = None  # over the idle window; as `utilization` if not given
    memory: float | None = 0.5
    up: bool | None = True
    node: str = "node-a"
    name: str = MODEL
    index: str = "0"
    trail: Trail = ()

    @property
    def gpu(self) -> Gpu:
        return Gpu(self.uuid, self.index, self.name, "nvidia", self.node, self.up)


def facts(
    cards: Sequence[Card],
    settings: Settings | None = None,
    nodes: Mapping[str, Mapping[str, float]] | None = None,
    without: Sequence[str] = (),
    **more: object,
) -> Facts:
    """`nodes`: name -> signal -> value. `without`: names of signals that no exporter here can give."""
    chosen = settings or Settings()
    values: dict[str, dict[str, float]] = {signal.name: {} for signal in CATALOGUE}
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
    expressions = {k: v for k, v in compile_signals(mappings(), chosen).items() if k not in without}
    return Facts(
        at=AT,
        gpus=tuple(card.gpu for card in cards),
        nodes=tuple(Node(name, f"{name}:9816") for name in nodes or {}),
        values={k: v for k, v in values.items() if k not in without},
        expressions=expressions,
        evaluation=chosen.evaluation,
        trails={card.uuid: card.trail for card in cards},
        **more,  # type: ignore[arg-type]
    )


def concluded(cards: Sequence[Card], settings: Settings | None = None) -> Outcome:
    chosen = settings or Settings()
    return decide(facts(cards, chosen), chosen)


def labels(**pairs: str) -> Labels:
    return tuple(sorted(pairs.items()))


@dataclass
class Target:
    """One exporter: whether it answers, in what state its driver is, and its GPUs."""

    instance: str
    cards: list[Card] = field(default_factory=list)
    up: bool = True
    driver: str = "ok"
    job: str = "gpu"

    @property
    def identity(self) -> dict[str, str]:
        return {"instance": self.instance, "job": self.job}


class FakeSource:
    """A Source over targets. What an exporter said stays in the idle window after it falls silent."""

    name = "fake"
    address = "memory"

    def __init__(self, targets: Sequence[Target], settings: Settings | None = None, clock: Clock | None = None) -> None:
        self.targets = list(targets)
        self.failure: Exception | None = None
        self.lost_at: float | None = None  # when the silent ones fell silent
        self.clock = clock
        self._settings = settings or Settings()
        compiled = compile_signals(mappings(), self._settings)
        self._signals = {expression: name for name, expression in compiled.items()}

    def instant(self, expressions: Mapping[str, Expression], at: float) -> Mapping[str, Vector]:
        if self.failure:
            raise self.failure
        return {key: self._answer(key, expression, at) for key, expression in expressions.items()}

    def range(self, expression: Expression, start: float, end: float, step: float) -> Mapping[Labels, Trail]:
        if self.failure:
            raise self.failure
        return {labels(uuid=card.uuid): card.trail for _, card in self._heard(end) if card.trail}

    def close(self) -> None:
        pass

    def _heard(self, at: float) -> list[tuple[Target, Card]]:
        """Who is heard at a time: before the silence began, everybody was."""
        before = self.lost_at is not None and at < self.lost_at
        return [
            (target, card)
            for target in self.targets
            if before or (target.up and target.driver == "ok")
            for card in target.cards
        ]

    def _answer(self, key: str, expression: Expression, at: float) -> Vector:
        if key == "targets":
            return {labels(**target.identity): float(target.up) for target in self.targets}
        if key == "drivers":
            found = [target for target in self.targets if target.up]
            return {labels(driver="nvidia", state=target.driver, **target.identity): 1.0 for target in found}
        if key == "gpu_seen":
            seen = self._heard(at) + self._heard(at - self._settings.evaluation.idle_window_seconds)
            return {_info(target, card): 1.0 for target, card in seen}
        if expression == IDENTITY["gpu_info"]:
            return {_info(target, card): 1.0 for target, card in self._heard(at)}
        if key in IDENTITY:
            return {}
        cards = [card for _, card in self._heard(at)]
        answered = facts(cards, self._settings).values.get(self._signals[expression], {})
        if key == GPU_UP.name:
            answered = {card.uuid: float(card.up) for card in cards if card.up is not None}
        return {labels(uuid=uuid): value for uuid, value in answered.items()}


def _info(target: Target, card: Card) -> Labels:
    return labels(
        uuid=card.uuid, index=card.index, name=card.name, vendor="nvidia", nodename=card.node, **target.identity
    )


@dataclass
class Clock:
    now: float = AT

    def __call__(self) -> float:
        return self.now


class Heard(Alertmanagers):
    """What an Alertmanager would have been sent, round by round: id -> (startsAt, endsAt or None while it fires)."""

    def __init__(self) -> None:
        super().__init__((), 15)
        self.rounds: list[dict[str, Alert]] = []
        self.states: tuple[AlertmanagerState, ...] = ()

    def send(self, alerts: object, now: float) -> None:
        sent: tuple[Alert, ...] = tuple(alerts)  # type: ignore[arg-type]
        assert len(payload(sent, now, 15)) == len(sent)
        self.rounds.append({alert.id: alert for alert in sent})

    @property
    def firing(self) -> set[str]:
        return {id_ for id_, alert in self.rounds[-1].items() if alert.resolved is None}

    @property
    def resolved(self) -> set[str]:
        return set(self.rounds[-1]) - self.firing


class Running:
    """A service on a ledger in a folder, with everything around it under the test's hand."""

    def __init__(self, folder: Path, source: FakeSource, clock: Clock, settings: Settings | None = None) -> None:
        self.source, self.clock, self.heard = source, clock, Heard()
        self.ledger = Ledger(folder / "ledger.db")
        self.service = Service(settings or Settings(), source, self.ledger, self.heard, clock=clock)

    def after(self, seconds: float) -> Running:
        """Time passes, and a round is made."""
        self.clock.now += seconds
        self.service.attempt()
        return self

    @property
    def given(self) -> dict[str, tuple[float, bool]]:
        """id -> (since, held)"""
        return {each.id: (each.since, each.held) for each in self.service.view.issued}

    def close(self) -> None:
        self.ledger.close()


def fails(message: str = "no connection") -> SourceError:
    return SourceError(SourceErrorKind.UNREACHABLE, message)
