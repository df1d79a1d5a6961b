"""The same truth from anybody's telemetry: `python -m benchmarks.telemetry`.

Every situation of tests/telemetry_situations.py, _changes.py, _stacks.py and _scrapes.py on every engine, expected
against got; then drawn histories against an oracle that knows the truth, on the embedded source and on the engines.
Engines that are not installed are left out, and named: tests/get_servers.sh fetches them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gpu_advisor.observation.evaluate import evaluate

from benchmarks import common
from tests.telemetry_changes import CHANGES
from tests.telemetry_oracle import AT, Verdict, evaluate_embedded, evaluate_on, loaded_server, selecting
from tests.telemetry_scrapes import SCRAPES
from tests.telemetry_situations import SITUATIONS, differences
from tests.telemetry_stacks import STACKS

ENGINES = ("prometheus-2.42", "prometheus-2.53", "prometheus-3.5", "victoriametrics-1.145", "victoriametrics-1.79")
MAX_ABSTAINED_RATIO = 0.05
EVERY = (*SITUATIONS, *CHANGES, *STACKS, *SCRAPES)


def situations_on(engine: str, folder: Path) -> dict[str, list[str]]:
    """What does not hold, by situation."""
    samples = (
        (name, {**labels, "situation": each.name}, value, at)
        for each in EVERY
        for name, labels, value, at in each.samples()
    )
    with loaded_server(engine, samples, folder) as source:
        return {
            each.name: differences(
                each.expected, each.got(evaluate(source, selecting(source, situation=each.name), AT))
            )
            for each in EVERY
        }


def summarize(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """Counts of all verdicts, and which were wrong."""
    found = list(verdicts)
    missed = Counter[str]()
    for each in found:
        missed[each.kind] += len(each.missed)
    could = sum(each.could for each in found)
    return {
        "histories": len(found),
        "wrong": [(each.seed, each.kind, list(each.wrong)) for each in found if each.wrong],
        "idle_gpus_with_data": could,
        "abstained": sum(missed.values()),
        "abstained_ratio": round(sum(missed.values()) / could, 4) if could else None,
        "abstained_by_kind": {kind: count for kind, count in missed.items() if count},
        "most_queries": max(each.queries for each in found),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES))
    parser.add_argument("--histories", type=int, default=2000, help="on the embedded source")
    parser.add_argument("--histories-on-engines", type=int, default=100)
    parser.add_argument("--seed", type=int, default=10_000)
    options = parser.parse_args(arguments)
    present = [engine for engine in options.engines if shutil.which(engine)]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        table = {engine: situations_on(engine, folder / engine) for engine in present}
        seeds = range(options.seed, options.seed + options.histories)
        drawn = {"embedded": summarize(evaluate_embedded(seeds, folder))}
        for engine in present:
            few = range(options.seed, options.seed + options.histories_on_engines)
            drawn[engine] = summarize(evaluate_on(engine, few, folder / f"drawn-{engine}"))
    rows = [["situation", *present]]
    rows += [[each.name, *("; ".join(table[engine][each.name]) or "as expected" for engine in present)]
             for each in EVERY]  # fmt: skip
    print(common.table(rows))
    names = ("histories", "wrong", "idle_gpus_with_data", "abstained", "abstained_ratio", "most_queries")
    print(common.table([["drawn histories", *drawn], *(
        [name.replace("_", " "), *(str(len(each[name]) if name == "wrong" else each[name]) for each in drawn.values())]
        for name in names
    )]))  # fmt: skip
    failed = [f"{each} on {engine}" for engine, found in table.items() for each, why in found.items() if why]
    goals = [
        common.Goal("every situation as expected on every engine", not failed, ", ".join(failed) or "all"),
        common.Goal(
            "no wrong action", not any(each["wrong"] for each in drawn.values()),
            str([each["wrong"][:3] for each in drawn.values() if each["wrong"]]),
        ),
        common.Goal(
            f"abstentions where data suffice at most {MAX_ABSTAINED_RATIO:.0%}",
            all((each["abstained_ratio"] or 0) <= MAX_ABSTAINED_RATIO for each in drawn.values()),
            ", ".join(f"{name} {each['abstained_ratio']}" for name, each in drawn.items()),
        ),
        common.Goal("all engines installed", present == options.engines, ", ".join(present)),
    ]  # fmt: skip
    print("\n".join(map(str, goals)))
    results = {
        "engines": present, "situations": table, "drawn": drawn, "goals": [str(goal) for goal in goals],
    }  # fmt: skip
    print(common.write("telemetry", results))
    return 1 if common.missed_goals(goals) else 0


if __name__ == "__main__":
    sys.exit(main())
