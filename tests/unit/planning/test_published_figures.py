"""What was published, beside what the planner says of it."""

from __future__ import annotations

import pytest

from benchmarks.published_plans import CONFIGURATIONS, FIGURES, TOLERANCE, PublishedFigure, PublishedRun
from benchmarks.published_runs import MEASURED, within_tolerance


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: f"{figure.what}-{figure.source[-12:]}")
def test_figures(figure: PublishedFigure) -> None:
    assert abs(figure.error_ratio) <= TOLERANCE, f"{figure.published} {figure.unit} published, {figure.ours()} here"


@pytest.mark.parametrize("run", CONFIGURATIONS, ids=lambda run: run.what)
def test_what_ran_fits_and_what_could_not_does_not(run: PublishedRun) -> None:
    assert (run.used_ratio <= 1) == run.fits


def test_memory_of_published_runs() -> None:
    """At least 40 runs, each with its source, nine of ten within 10 %, and none far off."""
    assert len(MEASURED) >= 40
    assert all(run.source.startswith("https://") for run in MEASURED)
    assert within_tolerance() >= 0.9
    assert max(abs(run.error_ratio) for run in MEASURED) < 0.25
