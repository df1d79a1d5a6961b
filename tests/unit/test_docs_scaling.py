"""The tables of docs/scaling.md are those of benchmarks/results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.headroom_by_hand import TUNED, Outcome, hours_by_hand
from benchmarks.slo_backtest import OBJECTIVES, name_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")

Row = Mapping[str, Any]

SHAPES = {
    "wave, mean 2 GPUs": "daily pattern, mean 2 GPUs",
    "wave, mean 20 GPUs": "daily pattern, mean 20 GPUs",
    "wave, mean 60 GPUs": "daily pattern, mean 60 GPUs",
    **{name: name for name in ("five days and a weekend", "steps", "ramps", "saturation", "on and off")},
}


def results(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text(encoding="utf-8"))
    return found


def row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def outcome(name: str, found: Row) -> str:
    shares = (f"{found['unserved_ratio']:.2%}", f"{found['time_under_ratio']:.1%}")
    return row(name, f"{found['gpu_hours']:.0f}", *shares, f"{found['actions']:.0f}")


def percent(ratio: float) -> str:
    """Two significant digits."""
    return f"{float(f'{100 * ratio:.2g}'):g}%"


BACKTEST, SLO, BY_HAND = results("backtest"), results("slo_backtest"), results("headroom_by_hand")
TAIL, FORECAST = results("heavy_tail_bound")["by_objective"], results("forecast_bound")["saved_ratio"]


def backtest_rows() -> list[str]:
    fitted, demand = BACKTEST["fitted_days"], BACKTEST["by_demand"]
    return [
        outcome("**advisor**", fitted["advisor"]),
        *(outcome(name, found) for name, found in BACKTEST["sensitivity"].items()),
        *(outcome(f"{name}: advisor", demand[shape]["advisor"]) for shape, name in SHAPES.items()),
        *(outcome(f"{name}: HPA", demand[shape]["hpa_70"]) for shape, name in SHAPES.items()),
    ]


def slo_rows() -> list[str]:
    found = []
    for family, by_objective in SLO["by_demand"].items():
        each = (by_objective[name] for name in (*map(name_of, OBJECTIVES), name_of(None)))
        bound = SLO["bounds"][family][name_of(0.001)]
        constant = f"{bound['constant_gpu_hours']:.0f}: {percent(bound['constant_unserved_ratio'])}"
        cells = (f"{percent(one['unserved_ratio'])}, {one['gpu_hours']:.0f}" for one in each)
        found.append(row(family, *cells, f"{constant}; {percent(bound['one_fewer_unserved_ratio'])}"))
    return found


def by_hand_rows() -> list[str]:
    found = []
    for days, by_name in BY_HAND["by_days"].items():
        outcomes = {name: Outcome(**each) for name, each in by_name.items()}
        cells = []
        for candidate in TUNED:
            tuned = outcomes[candidate.name]
            hand = hours_by_hand(outcomes, tuned.unserved_ratio)
            compared = "-" if hand is None else f"{hand:.0f}"
            cells.append(f"{percent(tuned.unserved_ratio)}, {tuned.gpu_hours:.0f} ({compared})")
        found.append(row(days.replace("_", " "), *cells))
    return found


def tail_rows() -> list[str]:
    return [
        row(
            name.replace(".10", ".1").replace(".50", ".5"),
            f"{each['spare_gpus']}, {each['gpu_hours']:.0f}",
            f"{each['within']:.0%}",
            f"{each['estimated_few']:.0f} to {each['estimated_many']:.0f}",
            f"{each['estimated_within']:.0%}",
        )
        for name, each in TAIL.items()
    ]


def forecast_rows() -> list[str]:
    variants = list(next(iter(FORECAST.values())))[1:]
    objectives = [name_of(each) for each in OBJECTIVES]

    def cell(found: Row) -> str:
        known = [100 * found[name] for name in objectives if name in found]
        return f"{min(known):+.1f} to {max(known):+.1f}"

    return [row(name, *(cell(found[name]) for found in FORECAST.values())) for name in variants]


@pytest.mark.parametrize("expected", [*backtest_rows(), *slo_rows(), *by_hand_rows(), *tail_rows(), *forecast_rows()])
def test_a_row_is_the_measured_one(expected: str) -> None:
    assert expected in map(str.strip, PAGE.splitlines())


@pytest.mark.parametrize("first", ["| defaults |", "| day, many bursts with load |"])
def test_a_table_has_no_other_rows(first: str) -> None:
    """What a benchmark no longer measures has left the page."""
    known = {*backtest_rows(), *slo_rows()}
    lines = PAGE.splitlines()
    begin = next(index for index, line in enumerate(lines) if line.startswith(first))
    assert set(lines[begin : lines.index("", begin)]) <= known
