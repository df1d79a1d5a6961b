"""Runs the mutants and writes the score: python -m tests.mutation.

Of a part (`--only`, `--survivors`, `--tests`) the score is written only under a name of its own (`--write`). Tests are
written for the survivors of a seed: an unbiased score needs a seed that nobody has seen.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from importlib.metadata import version

import pytest

from benchmarks.common import RESULTS, write
from tests.mutation.core import ROOT, TESTS, relative
from tests.mutation.patching import Mutant
from tests.mutation.report import document, summary
from tests.mutation.running import MutationRun

SEED = 12
WANTED = 1200
LOWEST_RATE = 0.90


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--mutants", type=int, default=WANTED, help="how many to try (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="which ones (default: %(default)s)")
    parser.add_argument("--only", default="", help="only those in files with this in their path")
    parser.add_argument("--survivors", action="store_true", help="only those of the last results")
    parser.add_argument("--write", metavar="NAME", help="write the score under this name in benchmarks/results/")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="only these tests (files)")
    arguments = parser.parse_args()
    os.environ["HYPOTHESIS_PROFILE"] = "mutants"
    os.chdir(ROOT)
    started = time.monotonic()
    partial = arguments.only or arguments.survivors or arguments.tests != TESTS
    survivors = _last_survivors() if arguments.survivors else None
    run = MutationRun(
        arguments.mutants, arguments.seed, lambda mutant: _chosen(mutant, arguments.only, survivors), _say
    )
    gc.disable()
    status = pytest.main(
        ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:kmock", "-p", "no:xdist", *arguments.tests], plugins=[run]
    )
    if not run.outcomes:
        return int(status) or 1
    print(summary(run.outcomes))
    name = arguments.write or ("" if partial else "mutants")
    if name:
        versions = {each: version(each) for each in ("coverage", "hypothesis", "numpy", "pytest")}
        conditions = {
            "seed": arguments.seed,
            "only": arguments.only,
            "versions": versions,
            "tests": run.tests,
            "unusable_tests": run.unusable,
            "seconds": round(time.monotonic() - started),
        }
        write(name, {**conditions, **document(run.outcomes)})
    rate = sum(outcome.killer is not None for outcome in run.outcomes) / len(run.outcomes)
    if rate < LOWEST_RATE:
        _say(f"{rate:.1%} of the mutants are killed, fewer than {LOWEST_RATE:.0%}: write tests for the survivors")
        return 1
    return 0


def _chosen(mutant: Mutant, only: str, survivors: set[tuple[str, ...]] | None) -> bool:
    change = mutant.mutation
    key = (relative(mutant.path), change.function, change.kind, change.before, change.after)
    return only in key[0] and (survivors is None or key in survivors)


def _last_survivors() -> set[tuple[str, ...]]:
    found = json.loads((RESULTS / "mutants.json").read_text())["survivors"]
    return {tuple(each[name] for name in ("file", "function", "kind", "before", "after")) for each in found}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
