"""The score of a run: by module, by kind of change, and the survivors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.common import table
from tests.mutation.core import relative
from tests.mutation.running import Outcome


def summary(outcomes: Sequence[Outcome]) -> str:
    """A table with a row a module, then the survivors with file and line."""
    rows = [
        (name, str(score["mutants"]), str(score["killed"]), str(score["survived"]), f"{score['rate']:.0%}")
        for name, score in [*_scores(outcomes, _file).items(), ("all", _score(outcomes))]
    ]
    alive = [outcome for outcome in outcomes if outcome.killer is None]
    lines = [f"{outcome.mutant}{'' if outcome.tests else ' (no test runs it)'}" for outcome in alive]
    return "\n".join([table([("module", "mutants", "killed", "survived", "rate"), *rows]), "", "Survivors:", *lines])


def document(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The same as data."""
    return {
        **_score(outcomes),
        "modules": _scores(outcomes, _file),
        "kinds": _scores(outcomes, lambda outcome: outcome.mutant.mutation.kind),
        "survivors": [
            {
                "file": _file(outcome),
                "line": outcome.mutant.mutation.line,
                "function": outcome.mutant.mutation.function,
                "kind": outcome.mutant.mutation.kind,
                "before": outcome.mutant.mutation.before,
                "after": outcome.mutant.mutation.after,
                "tests": outcome.tests,
            }
            for outcome in outcomes
            if outcome.killer is None
        ],
    }


def _file(outcome: Outcome) -> str:
    return relative(outcome.mutant.path)


def _scores(outcomes: Sequence[Outcome], group: Callable[[Outcome], str]) -> dict[str, dict[str, Any]]:
    groups = defaultdict(list)
    for outcome in outcomes:
        groups[group(outcome)].append(outcome)
    return {name: _score(groups[name]) for name in sorted(groups)}


def _score(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    killed = sum(outcome.killer is not None for outcome in outcomes)
    return {
        "mutants": len(outcomes),
        "killed": killed,
        "survived": len(outcomes) - killed,
        "rate": round(killed / len(outcomes), 4),
    }
