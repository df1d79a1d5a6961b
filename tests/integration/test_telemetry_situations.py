"""Each situation of tests/telemetry_situations.py and its three companions gives what is true, on each engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gpu_advisor.observation.evaluate import evaluate
from gpu_advisor.sources.prometheus.source import PrometheusSource

from tests.servers import engines_under_test
from tests.telemetry_changes import CHANGES
from tests.telemetry_oracle import AT, loaded_server, selecting
from tests.telemetry_scrapes import SCRAPES
from tests.telemetry_situations import SITUATIONS, Situation, differences
from tests.telemetry_stacks import STACKS

EVERY = (*SITUATIONS, *CHANGES, *STACKS, *SCRAPES)

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module", params=engines_under_test())
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusSource]:
    """One server with all situations, each with a label of its own."""
    samples = (
        (name, {**labels, "situation": situation.name}, value, at)
        for situation in EVERY
        for name, labels, value, at in situation.samples()
    )
    with loaded_server(request.param, samples, tmp_path_factory.mktemp("situations")) as found:
        yield found


@pytest.mark.parametrize("situation", EVERY, ids=lambda each: each.name)
def test_situation(source: PrometheusSource, situation: Situation) -> None:
    evaluation = evaluate(source, selecting(source, situation=situation.name), AT)
    assert differences(situation.expected, situation.got(evaluation)) == []
    assert evaluation.queries <= 25
