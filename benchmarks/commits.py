"""Two commits of this repository, measured in turn on one machine: `python -m benchmarks.commits OLD [NEW]`.

Runs the benchmarks of the exporter and of the advisor (1,000 GPUs) of each commit, old and new alternating, and prints
the ratio of the medians: what a change that should cost nothing did cost. NEW is the working tree if not given.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import common

ROOT = Path(__file__).resolve().parents[1]

#: A change that should cost nothing may cost this much: what is left of the noise after a few rounds.
MAX_RATIO = 1.05

EXPORTER_FIGURES = ("kept_p50_seconds", "fresh_p50_seconds", "kept_cpu_seconds", "idle_cpu_ratio", "rss_bytes")
ADVISOR_FIGURES = ("evaluation_seconds", "advisor_cpu_seconds", "advisor_mib")

#: Judged against MAX_RATIO; the others are shown.
JUDGED = ("kept_p50_seconds", "kept_cpu_seconds", "evaluation_seconds", "advisor_cpu_seconds")


@dataclass(frozen=True)
class Tree:
    """A checkout to measure: its benchmarks run on its own code."""

    name: str
    folder: Path

    def run(self, *arguments: str) -> None:
        paths = [str(self.folder / part) for part in ("advisor", "exporter", "")]
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        if done.returncode not in (0, 1):  # 1: a goal of the benchmark's own was missed
            raise SystemExit(f"{self.name}: {' '.join(command)} failed:\n{done.stderr}")

    def results(self, name: str) -> Any:
        return json.loads((self.folder / "benchmarks/results" / f"{name}.json").read_text(encoding="utf-8"))

    def exporter(self) -> dict[str, float]:
        self.run("benchmarks.exporter", "--rounds", "2")
        ours = self.results("exporter")["figures"]["gpu-exporter"]
        return {figure: ours[figure] for figure in EXPORTER_FIGURES}

    def advisor(self, history: Path) -> dict[str, float]:
        self.run("benchmarks.advisor", "--gpus", "1000", "--folder", str(history))
        (size,) = self.results("advisor")["sizes"]
        return {figure: size[figure] for figure in ADVISOR_FIGURES}


def measure(old: Tree, new: Tree, rounds: int, history: Path) -> dict[str, dict[str, list[float]]]:
    """By figure and tree, one value a round."""
    found: dict[str, dict[str, list[float]]] = {
        figure: {old.name: [], new.name: []} for figure in (*EXPORTER_FIGURES, *ADVISOR_FIGURES)
    }
    for number in range(rounds):
        for tree in (old, new) if number % 2 == 0 else (new, old):
            for figure, value in {**tree.exporter(), **tree.advisor(history)}.items():
                found[figure][tree.name].append(value)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", help="commit to compare with")
    parser.add_argument("new", nargs="?", help="commit; the working tree if not given")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        old = _checkout("old", options.old, folder)
        new = _checkout("new", options.new, folder)
        found = measure(old, new, options.rounds, folder / "history")
    rows = [["figure", "old", "new", "new / old"]]
    ratios: dict[str, float] = {}
    for figure, values in found.items():
        before, after = median(values[old.name]), median(values[new.name])
        ratios[figure] = round(after / before, 3)
        rows.append([figure, f"{before:.4g}", f"{after:.4g}", f"{ratios[figure]:.3f}"])
    goals = [
        common.Goal(f"{figure} at most {MAX_RATIO} times", ratios[figure] <= MAX_RATIO, f"{ratios[figure]}")
        for figure in JUDGED
    ]
    print(common.table(rows))
    print("\n".join(map(str, goals)))
    commits = {"old": _commit(options.old), "new": _commit(options.new or "HEAD")}
    print(common.write("commits", {"commits": commits, "rounds": found, "ratios": ratios}))
    return 1 if common.missed_goals(goals) else 0


def _checkout(name: str, commit: str | None, folder: Path) -> Tree:
    """An export of a commit, or the working tree's tracked files."""
    target = folder / name
    target.mkdir()
    revision = commit or subprocess.check_output(["git", "stash", "create"], cwd=ROOT, text=True).strip() or "HEAD"
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(target)], input=archive.stdout, check=True)
    return Tree(name, target)


def _commit(revision: str) -> str:
    return subprocess.check_output(["git", "rev-parse", "--short", revision], cwd=ROOT, text=True).strip()


if __name__ == "__main__":
    sys.exit(main())
