"""Print the grid, and write benchmarks/results/grid.json.

python -m benchmarks.grid
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from gpu_exporter.devices.simulated import SCENARIOS

from benchmarks import common
from benchmarks.grid.cells import COLUMNS, Cell, Verdict, column_cells

FAULTS = (Verdict.FALSE, Verdict.SILENT)


def table(cells: Sequence[Cell]) -> str:
    found = {(cell.scenario, cell.model, cell.exporter): cell for cell in cells}
    heading = ["scenario", *(f"{model.split('-')[0]}/{exporter.split('-')[0][:6]}" for model, exporter in COLUMNS)]
    rows = [[name, *(_text(found[name, model, exporter]) for model, exporter in COLUMNS)] for name in SCENARIOS]
    return common.table([heading, *rows])


def _text(cell: Cell) -> str:
    if cell.verdict is Verdict.RIGHT:
        return "+".join(cell.kinds) or "nothing"
    kinds = f":{'+'.join(cell.kinds)}" if cell.verdict is Verdict.FALSE else ""
    return f"{cell.verdict.value}{kinds}"


def _alone(column: tuple[str, str]) -> list[Cell]:
    return list(column_cells(column))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args(argv)
    with ProcessPoolExecutor(arguments.processes) as pool:
        cells = [cell for column in pool.map(_alone, COLUMNS) for cell in column]
    print(table(cells))
    verdicts = Counter(cell.verdict.value for cell in cells)
    questions = Counter(cell.question for cell in cells if cell.verdict is Verdict.ABSTAINS)
    print()
    print(
        common.table(
            [["input that would settle it", "cells"], *([name, str(n)] for name, n in questions.most_common())]
        )
    )
    faults = [cell for cell in cells if cell.verdict in FAULTS]
    for cell in faults:
        print(f"{cell.verdict.value}: {cell.scenario} on {cell.model} by {cell.exporter}: {cell.kinds} {cell.question}")
    goal = common.Goal(
        "each cell has the right advice, or abstains and names one input", not faults, str(dict(verdicts))
    )
    print(goal)
    common.write("grid", {"verdicts": dict(verdicts), "cells": [_document(cell) for cell in cells]})
    return 1 if common.missed_goals([goal]) else 0


def _document(cell: Cell) -> dict[str, str]:
    advice = {"verdict": cell.verdict.value, "advice": "+".join(cell.kinds), "input": cell.question}
    return {"scenario": cell.scenario, "gpu": cell.model, "exporter": cell.exporter, **advice}


if __name__ == "__main__":
    sys.exit(main())
