"""What was published, beside what the planner says of it."""

from __future__ import annotations

import pytest

from benchmarks.published_plans import CONFIGURATIONS, FIGURES, TOLERANCE, PublishedFigure, PublishedRun


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: f"{figure.what}-{figure.source[-12:]}")
def test_figures(figure: PublishedFigure) -> None:
    assert abs(figure.error_ratio) <= TOLERANCE, f"{figure.published} {figure.unit} published, {figure.ours()} here"


@pytest.mark.parametrize("run", CONFIGURATIONS, ids=lambda run: run.what)
def test_what_ran_fits_and_what_could_not_does_not(run: PublishedRun) -> None:
    assert (run.used_ratio <= 1) == run.fits
