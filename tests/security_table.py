"""Runs what the table of docs/security.md names, and writes what was seen into its column "seen".

    python -m tests.security_table

A row names a test, which runs now, or a benchmark, whose last results are taken. A test may say what it measured with
`record_property("seen", TEXT)`. Exits with 1 if a row does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/security.md"
RESULTS = ROOT / "benchmarks/results"
ROW = re.compile(
    r"^\| (?P<attack>[^|]+) \| (?P<expected>[^|]+) \| (?P<seen>[^|]+) \| `(?P<name>\w+)` in `(?P<path>[\w/.]+)` \|$",
    re.MULTILINE,
)
RUN_LINE = re.compile(r"^Run on .*$", re.MULTILINE)
KILLS = "20"


@dataclass
class Seen:
    """What the cases of one test did."""

    passed: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.failed and self.passed > 0

    def __str__(self) -> str:
        if self.failed:
            return f"FAILED: {', '.join(self.failed[:3])}"
        if not self.passed:
            return "NOT RUN"
        cases = f"holds in {self.passed} case" + ("s" if self.passed > 1 else "")
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return cases + skipped + "".join(f"; {each}" for each in dict.fromkeys(self.measured))


def rows(text: str) -> list[re.Match[str]]:
    return list(ROW.finditer(text))


def run_tests(tests: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Seen]:
    """Run these (path, function), in one pytest."""
    wanted = sorted(set(tests))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        command = [
            sys.executable, "-m", "pytest", "-q", "--numprocesses=0", f"--junitxml={report}", "-o",
            "junit_family=xunit2", *(f"{path}::{name}" for path, name in wanted),
        ]  # fmt: skip
        subprocess.run(command, cwd=ROOT, env={**os.environ, "KILLS": KILLS}, check=False)
        return read_report(report.read_text(encoding="utf-8"), wanted)


def read_report(xml: str, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Seen]:
    """What a JUnit report says of these (path, function)."""
    found = {test: Seen() for test in wanted}
    for case in ElementTree.fromstring(xml).iter("testcase"):
        name = case.get("name", "")
        path = case.get("classname", "").replace(".", "/") + ".py"
        seen = found.get((path, name.partition("[")[0]))
        if seen is None:
            continue
        if case.find("failure") is not None or case.find("error") is not None:
            seen.failed.append(name)
        elif case.find("skipped") is not None:
            seen.skipped += 1
        else:
            seen.passed += 1
        seen.measured += [each.get("value", "") for each in case.iter("property") if each.get("name") == "seen"]
    return found


def read_benchmark(path: str) -> tuple[bool, str]:
    """Whether the last run of a benchmark met its goals, and its figures."""
    name = Path(path).parent.name if path.endswith("__main__.py") else Path(path).stem
    document = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    goals = [goal for goal in document.get("goals", ()) if not goal["stretch"]]
    missed = [f"{goal['text']} ({goal['figure']})" for goal in goals if not goal["met"]]
    if missed:
        return False, f"MISSED: {'; '.join(missed)}"
    if not goals:
        return False, "NOT RUN: its results have no goals"
    figures = "; ".join(goal["figure"] for goal in goals[:4])
    length = f" in {document['minutes']:g} minutes" if "minutes" in document else ""
    return True, f"{len(goals)} goals met on {document['date'][:10]}{length}: {figures}"


def fill(text: str, seen: Mapping[tuple[str, str], tuple[bool, str]], at: datetime) -> str:
    """The page with these results, each by (path, function)."""

    def line(row: re.Match[str]) -> str:
        _, words = seen[row["path"], row["name"]]
        words = words.replace("|", "/").replace("\n", " ")
        return f"| {row['attack']} | {row['expected']} | {words} | `{row['name']}` in `{row['path']}` |"

    hold = sum(seen[row["path"], row["name"]][0] for row in rows(text))
    run = f"Run on {at:%Y-%m-%d at %H:%M} UTC: {hold} of {len(rows(text))} rows hold."
    return RUN_LINE.sub(run, ROW.sub(line, text), count=1)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.security_table", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--benchmarks", action="store_true", help="take new results of benchmarks, and run no test")
    only_benchmarks = parser.parse_args(argv).benchmarks
    every = rows(PAGE.read_text(encoding="utf-8"))
    tests = [row for row in every if row["path"].startswith("tests/")]
    if only_benchmarks:
        seen = {(row["path"], row["name"]): (row["seen"].startswith("holds in "), row["seen"]) for row in tests}
    else:
        results = run_tests((row["path"], row["name"]) for row in tests)
        seen = {test: (result.holds, str(result)) for test, result in results.items()}
    seen |= {(row["path"], row["name"]): read_benchmark(row["path"]) for row in every if row not in tests}
    at = datetime.now(timezone.utc)
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), seen, at), encoding="utf-8")
    wrong = {test: words for test, (holds, words) in seen.items() if not holds}
    for (path, name), words in wrong.items():
        print(f"{path}::{name}: {words}", file=sys.stderr)
    print(f"{len(every)} rows, {len(wrong)} of {len(seen)} tests and benchmarks do not hold; written: {PAGE}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
