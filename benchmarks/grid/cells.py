"""The cells of the grid: what the advisor concludes on the GPUs of one scenario, and whether that is right."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory

from gpu_advisor.evaluation.engine import Evaluation, decide
from gpu_advisor.evaluation.facts import Facts
from gpu_advisor.settings import Settings

from benchmarks.grid import fleet
from benchmarks.grid.expectations import BLIND_TO_LOST_GPUS, RIGHT_ADVICE, TOGETHER

#: Advice on how many GPUs there should be, which follows from settings, not from a cause.
SIZING_KINDS = frozenset({"scale_up", "scale_down"})

#: The models and the exporters of the grid.
COLUMNS: tuple[tuple[str, str], ...] = (
    *(
        (model, exporter)
        for model in ("H100-80GB", "A100-80GB", "L4-24GB", "T4-16GB", "RTX4090-24GB")
        for exporter in ("gpu-exporter", "dcgm-exporter", "nvidia_gpu_exporter")
    ),
    ("MI300X", "gpu-exporter"),
    ("MI300X", "amd-device-metrics-exporter"),
)


class Verdict(str, Enum):
    RIGHT = "right"
    ABSTAINS = "abstains"
    INVISIBLE = "invisible"  # the exporter has no series of the GPU
    SILENT = "SILENT"
    FALSE = "FALSE"


@dataclass(frozen=True, slots=True)
class Cell:
    """`kinds` is the advice on the GPUs of the scenario, `question` what the advisor would need to know."""

    scenario: str
    model: str
    exporter: str
    verdict: Verdict
    kinds: tuple[str, ...]
    question: str = ""


def settings() -> Settings:
    """No pools and no kinds: what a first day has."""
    return Settings.model_validate({"resources": {"gpu": {"min": 0, "max": 1000}}})


def judge(column: tuple[str, str], scenario: str, uuids: Collection[str], evaluation: Evaluation) -> Cell:
    """One cell, from an evaluation that includes the GPUs `uuids` of the scenario."""
    kinds = advice(evaluation, uuids)
    right = RIGHT_ADVICE[scenario]
    missing = right - kinds
    questions = sorted(
        {
            each.input
            for each in evaluation.abstentions
            if each.input and set(each.kinds) & missing and (not each.gpus or set(each.gpus) & set(uuids))
        }
    )
    if not kinds <= right:
        verdict = Verdict.FALSE
    elif kinds == right:
        verdict = Verdict.RIGHT
    elif not uuids:
        verdict = Verdict.INVISIBLE if scenario == "lost" and column[1] in BLIND_TO_LOST_GPUS else Verdict.SILENT
    else:
        verdict = Verdict.ABSTAINS if len(questions) == 1 else Verdict.SILENT
    return Cell(scenario, *column, verdict, tuple(sorted(kinds)), "; ".join(questions))


def advice(evaluation: Evaluation, uuids: Collection[str]) -> frozenset[str]:
    """The kinds of advice on these GPUs."""
    return frozenset(
        each.kind
        for each in evaluation.recommendations
        if set(uuids) & set(each.gpus) and each.kind not in SIZING_KINDS
    )


def column_cells(column: tuple[str, str], *, alone: bool = True) -> Iterator[Cell]:
    """All scenarios of one model and exporter: each `alone` in its fleet, or all in one fleet."""
    facts, scenario_of = observe(column)
    whole = None if alone else decide(facts, settings())
    companions = {name: group for group in TOGETHER for name in group}
    for scenario, gpus in fleet.gpus_by_scenario(facts, scenario_of).items():
        group = companions.get(scenario, (scenario,))
        members = {gpu.uuid for gpu in facts.gpus if scenario_of[gpu.uuid] in group}
        evaluation = whole or decide(fleet.only(facts, members), settings())
        yield judge(column, scenario, {gpu.uuid for gpu in gpus}, evaluation)


def observe(column: tuple[str, str]) -> tuple[Facts, dict[str, str]]:
    """The facts of one column, and the scenario of each GPU."""
    model, exporter = column
    nodes = fleet.nodes(model)
    with TemporaryDirectory() as folder:
        return fleet.observe(nodes, exporter, Path(folder)), fleet.scenarios(nodes)
