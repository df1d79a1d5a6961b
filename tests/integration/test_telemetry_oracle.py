"""The advisor judges a few GPUs as one who knows the truth would, whatever scraped them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers import engines_under_test
from tests.telemetry_histories import KINDS
from tests.telemetry_oracle import Verdict, evaluate_embedded, evaluate_on


def check(verdicts: list[Verdict]) -> None:
    assert [(each.seed, each.kind, each.wrong) for each in verdicts if each.wrong] == []
    missed, could = sum(len(each.missed) for each in verdicts), sum(each.could for each in verdicts)
    assert could > 10
    assert missed <= 0.15 * could  # of so few; `make bench-telemetry` holds the rate of many below 5 %
    assert max(each.queries for each in verdicts) <= 25


def test_the_embedded_history(tmp_path: Path) -> None:
    check(list(evaluate_embedded(range(5 * len(KINDS)), tmp_path)))


@pytest.mark.servers
@pytest.mark.parametrize("engine", engines_under_test())
def test_real_engines(engine: str, tmp_path: Path) -> None:
    check(list(evaluate_on(engine, range(1000, 1000 + 2 * len(KINDS)), tmp_path)))
