"""Shared by the benchmarks: facts about the machine, percentiles, tables, results files."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Goal:
    """A goal for a ratio. A missed stretch goal is reported and does not fail the benchmark."""

    text: str
    met: bool
    figure: str
    stretch: bool = False

    def __str__(self) -> str:
        verdict = "met" if self.met else "missed" if self.stretch else "MISSED"
        return f"{verdict:6}  {'stretch goal' if self.stretch else 'goal'}: {self.text} ({self.figure})"


def missed_goals(goals: Iterable[Goal]) -> list[Goal]:
    return [goal for goal in goals if not goal.met and not goal.stretch]


def smoke_wanted(doc: str | None) -> bool:
    """Parse the command line of a benchmark whose only option is --smoke."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="a small size, without a results file")
    return bool(parser.parse_args().smoke)


def conclude(name: str, results: Mapping[str, Any], goals: Sequence[Goal], smoke: bool) -> int:
    """Print the goals, write the results unless of a small size, and return the exit status."""
    print("\n".join(map(str, goals)))
    if not smoke:
        print(f"written to {write(name, results)}")
    return 1 if missed_goals(goals) else 0


def percentile(values: Sequence[float], share: float) -> float:
    """Return the `share` quantile (nearest rank). `values` must not be empty."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def machine() -> dict[str, Any]:
    """Facts about the machine that the figures depend on."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def table(rows: Sequence[Sequence[str]]) -> str:
    """Format rows of equal length as aligned text. The first row is the heading; the first column is left-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    lines.insert(1, "-" * min(max(map(len, lines)), shutil.get_terminal_size((160, 24)).columns))
    return "\n".join(line.rstrip() for line in lines)


def write(name: str, results: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write NAME.json with the date and the machine's facts; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    path.write_text(json.dumps({"date": date, "machine": machine(), **results}, indent=2) + "\n", encoding="utf-8")
    return path
