"""What `up` does with a simulated fleet's state and past."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu_advisor.commands.up import progress_text
from gpu_advisor.runtime.local_exporter import (
    MAX_NAME_CHARACTERS,
    MAX_SIMULATED_STEP_SECONDS,
    MIN_SIMULATED_STEP_SECONDS,
    SIMULATED_HISTORY_SECONDS,
    SIMULATED_READINGS,
    gpu_count,
    lines_outside,
    simulated_step,
    state_dir_for,
)
from gpu_exporter.devices.simulated import parse_fleet
from hypothesis import given
from hypothesis import strategies as st


def test_each_simulated_fleet_has_a_state_of_its_own_whatever_its_length() -> None:
    fleets = ["8xH100-80GB:idle", ",".join(["1xH100-80GB:idle"] * 40), ",".join(["1xH100-80GB:idle"] * 41), "é" * 300]
    found = [state_dir_for(Path("state"), fleet) for fleet in fleets]
    assert len({*found, state_dir_for(Path("state"), "")}) == len(fleets) + 1
    assert all(len(path.name.encode()) < MAX_NAME_CHARACTERS + 20 for path in found)
    assert state_dir_for(Path("state"), "") == Path("state")


@pytest.mark.parametrize(
    ("span", "kept"),
    [(None, ["1", "2", "3", "4"]), ((2.0, 3.0), ["1", "4"]), ((0.0, 9.0), []), ((5.0, 6.0), list("1234"))],
)
def test_history_is_written_only_for_times_not_scraped(span: tuple[float, float] | None, kept: list[str]) -> None:
    lines = ["# TYPE busy counter\n", *(f'busy_total{{uuid="a b"}} {at}.5 {at}\n' for at in (1, 2, 3, 4)), "# EOF\n"]
    found = list(lines_outside(lines, span))
    assert [line.split()[-1] for line in found if not line.startswith("#")] == kept
    assert [line for line in found if line.startswith("#")] == [lines[0], lines[-1]]


@given(st.integers(1, 1024))
def test_a_history_of_many_gpus_has_longer_steps(gpus: int) -> None:
    step = simulated_step(gpus)
    readings = gpus * SIMULATED_HISTORY_SECONDS / step
    assert MIN_SIMULATED_STEP_SECONDS <= step <= MAX_SIMULATED_STEP_SECONDS
    assert readings <= SIMULATED_READINGS or step == MAX_SIMULATED_STEP_SECONDS
    assert step == MIN_SIMULATED_STEP_SECONDS or gpus * SIMULATED_HISTORY_SECONDS / (step - 30) > SIMULATED_READINGS


@pytest.mark.parametrize("fleet", ["8xH100-80GB", "1xH100-80GB:idle, 128xA100-80GB:data-bound,64xL40S-48GB:lost"])
def test_gpus_of_a_fleet_are_counted_as_the_exporter_does(fleet: str) -> None:
    assert gpu_count(fleet) == len(parse_fleet(fleet, 0))


@pytest.mark.parametrize(
    ("gpus", "samples", "shown"),
    [
        (256, 0, "generating 3 h of history of 256 simulated GPUs, 12 s"),
        (1, 5000, "importing 3 h of history of 1 simulated GPU: 5,000 samples, 12 s"),
    ],
)
def test_progress_names_what_is_being_done(gpus: int, samples: int, shown: str) -> None:
    assert progress_text(gpus)(samples, 12.3) == shown
