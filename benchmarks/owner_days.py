"""Drawn days of GPUs with owners, against what a person would do: `python -m benchmarks.owner_days`.

A day whose owners all came after its last sample is counted apart (`unseen`): to any data source its GPU is free, and
the person knows more.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import common
from tests.owner_days import judge_days
from tests.owner_histories import CLASSES, STEP, OwnerDay

MIN_RECALL = 0.9


def is_seen(day: OwnerDay) -> bool:
    """Whether the last sample of the day shows an owner, or it has none."""
    last = day.start + (day.end - day.start) // STEP * STEP
    return not day.owners or any(owner.begin <= last for owner in day.owners)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=500, help="of each class")
    parser.add_argument("--classes", nargs="+", default=list(CLASSES))
    options = parser.parse_args(arguments)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.classes:
            judged = list(judge_days(kind, range(options.days), Path(folder)))
            unseen = [verdict for day, verdict in judged if not is_seen(day)]
            judged = [(day, verdict) for day, verdict in judged if is_seen(day)]
            counts = Counter(verdict for _, verdict in judged)
            wanted = judged[0][0].verdict
            wrong = [day.seed for day, verdict in judged if verdict != wanted]
            found[kind] = {
                "wanted": wanted,
                **dict(counts.items()),
                "unseen": len(unseen),
                "first_wrong_seeds": wrong[:10],
            }
            print(kind, found[kind], flush=True)
    names = ("wanted", "reclaim", "report", "leave", "unseen")
    rows = [["class", "a person would", *names[1:]]]
    rows += [[kind, *(str(each.get(name, 0)) for name in names)]
             for kind, each in found.items()]  # fmt: skip
    print(common.table(rows))
    goals = []
    for kind, each in found.items():
        if each["wanted"] == "leave":
            goals.append(common.Goal(f"{kind}: no reclaim", not each.get("reclaim", 0), str(each.get("reclaim", 0))))
        else:
            recall = each.get(each["wanted"], 0) / (options.days - each["unseen"])
            goals.append(common.Goal(f"{kind}: {each['wanted']} in 9 of 10", recall >= MIN_RECALL, f"{recall:.3f}"))
    print("\n".join(map(str, goals)))
    print(common.write("owner_days", {"days": options.days, "classes": found, "goals": [str(goal) for goal in goals]}))
    return 1 if common.missed_goals(goals) else 0


if __name__ == "__main__":
    sys.exit(main())
