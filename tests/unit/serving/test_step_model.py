"""The curve of a server: what is fitted, and what its error is."""

from __future__ import annotations

import math
import random

import pytest
from gpu_advisor.evaluation.serving.facts import CurvePoint
from gpu_advisor.evaluation.serving.step_model import StepModel, fit_step_model
from hypothesis import given
from hypothesis import strategies as st

BASE, PER_SEQUENCE, PER_PROMPT_TOKEN = 0.012, 0.0004, 0.00003


def scraped(seed: int, sequences: tuple[float, ...], gauge_error: float = 0.0, itl_error: float = 0.0) -> StepModel:
    """The fit to points of a server: counters are exact, the gauge is that of the moments of the scrapes."""
    draw = random.Random(seed)
    points = []
    for mean in sequences:
        prompts = draw.uniform(0, 6) * mean
        itl = (BASE + PER_SEQUENCE * mean + PER_PROMPT_TOKEN * prompts) * (1 + draw.uniform(-itl_error, itl_error))
        gauge = max(1.0, mean + draw.gauss(0, gauge_error * mean))
        points.append(CurvePoint(gauge, mean / itl, itl, prompts * gauge / mean))
    found = fit_step_model(points)
    assert found is not None
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gauge_error", [0.0, 0.2, 0.5])
def test_gauges_between_scrapes_do_not_flatten_the_curve(seed: int, gauge_error: float) -> None:
    draw = random.Random(seed)
    found = scraped(seed, tuple(draw.uniform(8, 16) for _ in range(20)), gauge_error)

    assert found.base == pytest.approx(BASE, rel=0.02)
    assert found.per_sequence == pytest.approx(PER_SEQUENCE, rel=0.05)
    assert found.per_prompt_token == pytest.approx(PER_PROMPT_TOKEN, rel=0.05)


def test_without_generated_tokens_the_gauge_is_the_load() -> None:
    points = [CurvePoint(float(n), 0.0, BASE + n * PER_SEQUENCE) for n in (1, 5, 20)]
    found = fit_step_model(points)

    assert found is not None
    assert found.per_sequence == pytest.approx(PER_SEQUENCE)


@pytest.mark.parametrize("itl_error", [0.0, 0.1, 0.3])
def test_the_error_is_that_of_points_held_out(itl_error: float) -> None:
    """Of evenly distributed errors, the median of their sizes is half of the largest."""
    loads = tuple(4.0 * 1.03**step for step in range(60))
    errors = [scraped(seed, loads, itl_error=itl_error).error_ratio for seed in range(10)]

    assert sum(errors) / len(errors) == pytest.approx(itl_error / 2, rel=0.35, abs=1e-6)


CONCURRENCIES = (1, 4, 8, 16, 32, 64, 128)


def served(base: float, per_sequence: float, per_root: float, noise: float = 0.0, seed: int = 0) -> list[CurvePoint]:
    draw = random.Random(seed)
    times = [base + n * per_sequence + per_root * math.sqrt(n) for n in CONCURRENCIES]
    return [
        CurvePoint(n, n / itl, itl)
        for n, exact in zip(CONCURRENCIES, times, strict=True)
        for itl in [exact * (1 + draw.gauss(0, noise))]
    ]


def test_a_mixture_of_experts_slows_down_by_the_root_of_its_load() -> None:
    points = served(0.006, 0.0002, 0.003)
    found = fit_step_model([points[each] for each in (0, 3, 6)])

    assert found is not None
    for point in points:
        assert found.itl(point.concurrency, 0.0) == pytest.approx(point.itl_seconds, rel=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_no_root(seed: int) -> None:
    points = [each for hour in range(5) for each in served(0.012, 0.0004, 0.0, 0.04, 100 * seed + hour)]
    found = fit_step_model(points)
    assert found is not None
    assert found.per_root == 0


@given(
    st.floats(0.001, 0.05), st.floats(0, 0.001), st.floats(0, 0.01), st.floats(0, 0.0001), st.floats(1, 200),
    st.floats(0, 8),
)  # fmt: skip
def test_the_load_that_settles_and_the_largest_are_the_curve_s(
    base: float, each: float, root: float, prompt: float, running: float, ratio: float
) -> None:
    model = StepModel(base, each, prompt, 0.0, 100, root)
    itl = model.itl(running, ratio)

    assert model.settled_itl(running / itl, ratio) == pytest.approx(itl, rel=1e-6)
    if each + ratio * prompt + root > 1e-9:
        assert model.itl(model.largest(itl, ratio), ratio) == pytest.approx(itl, rel=1e-6)
