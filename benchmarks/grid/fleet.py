"""A simulated fleet through one exporter, read back by a whole evaluation: no waiting, the time is simulated."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from gpu_advisor.evaluation.facts import Facts, Gpu
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.promql.expressions import Labels
from gpu_advisor.settings import Settings
from gpu_advisor.sources.embedded.history import History
from gpu_advisor.sources.embedded.openmetrics_import import history_target_name, with_target_labels
from gpu_advisor.sources.embedded.source import EmbeddedSource
from gpu_exporter.devices.simulated import SCENARIOS, parse_fleet

from benchmarks.grid.expectations import COUNTS, DEFAULT_COUNT, TOGETHER
from benchmarks.grid.pages import PAGES, SimulatedNode, samples

T = TypeVar("T")

START = 1_795_000_000.0
MINUTES = 34
SCRAPE_SECONDS = 60.0
#: Scrapes are never in step with the work: each is late by another part of a second.
SCRAPE_DELAYS = tuple((0.37 * number) % 1.0 for number in range(11))
AT = START + MINUTES * 60 + 2.0

#: The daily peak that the recording rules would have recorded, as a multiple of the scenario's mean.
DAY_PEAK_FACTOR = 1.1


def nodes(model: str) -> tuple[SimulatedNode, ...]:
    """A node for each scenario; those of `TOGETHER` share one."""
    grouped = {name: group for group in TOGETHER for name in group}
    groups = dict.fromkeys(grouped.get(name, (name,)) for name in SCENARIOS)
    found = []
    for number, group in enumerate(groups):
        text = ",".join(f"{COUNTS.get(name, DEFAULT_COUNT)}x{model}:{name}" for name in group)
        found.append(SimulatedNode(f"node-{group[0]}", parse_fleet(text, seed=number)))
    return tuple(found)


def scenarios(fleet: Collection[SimulatedNode]) -> dict[str, str]:
    """The scenario of each GPU, by uuid."""
    names = {id(scenario): name for name, scenario in SCENARIOS.items()}
    return {gpu.identity.uuid: names[id(gpu.scenario)] for node in fleet for gpu in node.gpus}


def observe(fleet: Collection[SimulatedNode], exporter: str, folder: Path, *, day_peak: bool = True) -> Facts:
    """The facts of an evaluation at `AT` of what `exporter` published on these nodes since `START`.

    `day_peak`: whether the recording rules have recorded the highest hourly mean of the last day.
    """
    history = History(folder / "history.db")
    try:
        for node in fleet:
            instance, job = f"{node.name}:9400", exporter
            past = _past(node, exporter, {"instance": instance, "job": job}, day_peak)
            history.import_samples(history_target_name(job, instance), past)
        return evaluate(EmbeddedSource(history), Settings(), AT).facts
    finally:
        history.close()


def _past(
    node: SimulatedNode, exporter: str, target: dict[str, str], day_peak: bool
) -> Iterator[tuple[str, Labels, float, float]]:
    page = PAGES[exporter]
    known: dict[tuple[str, tuple[str, ...]], Labels] = {}
    for scrape in range(int(MINUTES * 60 / SCRAPE_SECONDS) + 1):
        at = START + scrape * SCRAPE_SECONDS + SCRAPE_DELAYS[scrape % len(SCRAPE_DELAYS)]
        yield "up", with_target_labels({}, target), 1.0, at
        for name, labels, value in samples(page(node, at)):
            key = (name, tuple(labels.values()))
            yield name, known.get(key) or known.setdefault(key, with_target_labels(labels, target)), value, at
        if day_peak:
            for gpu in node.gpus:
                peak = min(1.0, gpu.scenario.busy_ratio * DAY_PEAK_FACTOR)
                yield "gpu:utilization_ratio:max1d", (("uuid", gpu.identity.uuid),), peak, at


def only(facts: Facts, uuids: Collection[str]) -> Facts:
    """The same facts as if the fleet had only these GPUs and their nodes."""
    gpus = tuple(gpu for gpu in facts.gpus if gpu.uuid in uuids)
    names = {gpu.node for gpu in gpus} | {gpu.uuid for gpu in gpus}
    return replace(
        facts,
        gpus=gpus,
        nodes=tuple(node for node in facts.nodes if node.name in names),
        values={signal: _restrict(found, names) for signal, found in facts.values.items()},
        owners=_restrict(facts.owners, names),
        jobs=_restrict(facts.jobs, names),
        reported_jobs=_restrict(facts.reported_jobs, names),
        down_reasons=_restrict(facts.down_reasons, names),
        activity=None if facts.activity is None else _restrict(facts.activity, names),
    )


def without(facts: Facts, signals: Collection[str]) -> Facts:
    """The same facts without these signals, as if no exporter published them."""
    return replace(
        facts,
        values={signal: found for signal, found in facts.values.items() if signal not in signals},
        expressions={signal: found for signal, found in facts.expressions.items() if signal not in signals},
        exporters_by_signal={name: found for name, found in facts.exporters_by_signal.items() if name not in signals},
    )


def _restrict(values: Mapping[str, T], names: Collection[str]) -> dict[str, T]:
    return {name: value for name, value in values.items() if name in names}


def gpus_by_scenario(facts: Facts, scenario_of: Mapping[str, str]) -> dict[str, tuple[Gpu, ...]]:
    found: dict[str, tuple[Gpu, ...]] = dict.fromkeys(SCENARIOS, ())
    for gpu in facts.gpus:
        found[scenario_of[gpu.uuid]] += (gpu,)
    return found
