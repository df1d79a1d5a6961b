"""The headline is true in every state: a table of states, and what no state may lead to."""

from __future__ import annotations

import dataclasses
import re

import pytest
from gpu_advisor.state.view import SourceStatus, View
from gpu_advisor.web.page import checklist
from gpu_advisor.web.page.headline import FleetStatus, Watching, fleet_status, headline
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.advisor.builders import ExporterTarget, GpuSpec
from tests.unit.advisor.test_api import view_of, whole

FLEET = FleetStatus(gpus=8, met=6)
WATCHING = Watching(observed_ratio=0.1, remaining_seconds=29 * 60 - 20)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (FleetStatus(evaluated=False, starting=True, source_up=False), "Starting: the first evaluation is under way"),
        (FleetStatus(evaluated=False, source_up=False), "No data from the source yet"),
        (dataclasses.replace(FLEET, overdue=True),
         "No evaluation has finished for a while: showing the last successful one"),
        (dataclasses.replace(FLEET, source_up=False, open=3),
         "The data source is down: showing the last successful evaluation"),
        (FleetStatus(), "No GPUs found"),
        (FleetStatus(down_exporters=2), "No GPUs found; 2 exporters down"),
        (dataclasses.replace(FLEET, watching=WATCHING), "Watching: first recommendations in 29 min"),
        (dataclasses.replace(FLEET, watching=WATCHING, down=1),
         "1 GPU down; Watching: first recommendations in 29 min"),
        (dataclasses.replace(FLEET, watching=WATCHING, open=1), "1 recommendation"),
        (dataclasses.replace(FLEET, down=1), "1 GPU down"),
        (dataclasses.replace(FLEET, down=1, open=4, worth="about 3,650 USD a month"),
         "1 GPU down; 4 recommendations, saving about 3,650 USD a month"),
        (dataclasses.replace(FLEET, silent=2, unknown=1), "2 GPUs not reporting; 1 check unknown"),
        (dataclasses.replace(FLEET, open=1200), "1,200 recommendations"),
        (dataclasses.replace(FLEET, missed=2, unknown=1), "2 targets missed, no recommendation; 1 check unknown"),
        (dataclasses.replace(FLEET, unknown=1), "Known targets met; 1 check unknown"),
        (dataclasses.replace(FLEET, snoozed=1), "All targets met; 1 recommendation snoozed"),
        (dataclasses.replace(FLEET, missed=1, snoozed=2),
         "1 target missed, no recommendation; 2 recommendations snoozed"),
        (dataclasses.replace(FLEET, met=0), "No recommendations"),
        (FLEET, "All targets met"),
    ],
)  # fmt: skip
def test_each_state_has_its_sentence(status: FleetStatus, text: str) -> None:
    assert headline(status).text == text


counts = st.integers(0, 3)


@given(
    st.builds(
        FleetStatus, evaluated=st.booleans(), starting=st.booleans(), source_up=st.booleans(), overdue=st.booleans(),
        gpus=counts, down=counts, silent=counts, down_exporters=counts, open=counts, snoozed=counts, missed=counts,
        unknown=counts, met=counts, watching=st.none() | st.just(WATCHING),
    )
)  # fmt: skip
def test_no_state_is_painted_better_than_it_is(status: FleetStatus) -> None:
    text = headline(status).text
    current = status.evaluated and status.source_up and not status.overdue
    assert text == text.strip(" ;")
    if "ll targets met" in text:
        assert current
        assert status.gpus
        assert status.met
        assert not any((status.down, status.silent, status.down_exporters, status.open, status.missed, status.unknown))
        assert status.watching is None
    if current and status.gpus:
        assert ("down" in text) == bool(status.down or status.down_exporters)
        assert bool(re.search(r"\d recommendations?\b(?! snoozed)", text)) == bool(status.open)
        if not status.open and not status.watching:
            assert (f"{status.unknown} check" in text) == bool(status.unknown)
            assert ("missed" in text) == bool(status.missed)
    assert "othing" not in text


def text_of(view: View) -> str:
    items = checklist.items(view.evaluation.checks) if view.evaluation else []
    return headline(fleet_status(view, items, "")).text


def test_a_view_has_the_status_that_it_shows() -> None:
    assert text_of(whole()) == "1 GPU down; 4 recommendations"
    young = view_of([ExporterTarget("a:1", [GpuSpec("GPU-0", 0.0, coverage=0.3)])])
    assert text_of(young) == "Watching: first recommendations in 18 min"
    silent = view_of([ExporterTarget("a:1", [GpuSpec("GPU-0", 0.9)]), ExporterTarget("b:2", [], up=False)])
    assert text_of(silent).startswith("1 exporter down")
    before = View("c", SourceStatus("fake", "memory", False, "not_yet", "wait"))
    assert text_of(before).startswith("Starting")
