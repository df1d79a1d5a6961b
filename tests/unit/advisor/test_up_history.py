"""What `up` does with a simulated fleet's state and past."""

from __future__ import annotations

import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import click
import pytest
from gpu_advisor.commands.up import default_state_dir, options_hint, progress_text
from gpu_advisor.runtime.local_exporter import (
    MAX_NAME_CHARACTERS,
    MAX_SIMULATED_STEP_SECONDS,
    MIN_SIMULATED_STEP_SECONDS,
    SIMULATED_HISTORY_SECONDS,
    SIMULATED_INTERVALS_SECONDS,
    SIMULATED_READINGS,
    gpu_count,
    import_simulated_history,
    lines_outside,
    simulated_interval,
    simulated_step,
    state_dir_for,
)
from gpu_advisor.sources.embedded.history import History
from gpu_exporter.devices.simulated import parse_fleet
from hypothesis import given
from hypothesis import strategies as st


def test_each_simulated_fleet_has_a_state_of_its_own_whatever_its_length() -> None:
    fleets = ["8xH100-80GB:idle", ",".join(["1xH100-80GB:idle"] * 40), ",".join(["1xH100-80GB:idle"] * 41), "é" * 300]
    found = [state_dir_for(Path("state"), fleet) for fleet in fleets]
    assert len({*found, state_dir_for(Path("state"), "")}) == len(fleets) + 1
    assert all(len(path.name.encode()) < MAX_NAME_CHARACTERS + 20 for path in found)
    assert state_dir_for(Path("state"), "") == Path("state")


def test_a_user_without_a_home_directory_is_asked_for_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs with any user number."""
    monkeypatch.setattr(Path, "home", lambda: Path("~").expanduser())
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    with pytest.raises(click.UsageError, match="--state-dir"):
        default_state_dir()


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


@given(st.integers(1, 4096), st.floats(1, 60), st.integers(300, 7200))
def test_a_large_simulated_fleet_is_scraped_less_often(gpus: int, configured: float, window: int) -> None:
    interval = simulated_interval(gpus, configured, window)
    longest = max(configured, SIMULATED_INTERVALS_SECONDS[-1])
    assert configured <= interval <= longest
    assert interval == longest or gpus * window / interval <= SIMULATED_READINGS / 2
    assert simulated_interval(1, configured, window) == configured


@pytest.mark.parametrize("interval", [5.0, 15.0])
def test_the_last_window_of_a_simulated_past_has_the_interval_of_the_scrapes(tmp_path: Path, interval: float) -> None:
    """Coverage counts samples: two intervals in a window made all recommendations stale once scrapes prevailed."""
    window = 600
    with closing(History(tmp_path / "history.db")) as history:
        import_simulated_history(history, "127.0.0.1:9816", "1xH100-80GB:idle", interval, window)
        (series,) = history.read("gpu_observed_seconds_total", (), 0, time.time() + 60)
    times = [float(each) / 1000 for each in series.times_ms]
    end = times[-1]
    gaps = [late - early for early, late in pairwise(times)]
    recent = [gap for late, gap in zip(times[1:], gaps, strict=True) if late > end - window]
    assert len(recent) >= window / interval - 2
    assert recent == pytest.approx([interval] * len(recent), abs=0.01)
    assert max(gaps) <= MIN_SIMULATED_STEP_SECONDS + interval
    assert sum(gaps) == pytest.approx(SIMULATED_HISTORY_SECONDS, rel=0.01)


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


@pytest.mark.parametrize(
    ("option", "shown"),
    [
        ("--exporter-address", ", as in make up ARGS='--exporter-address 127.0.0.1:9826'"),
        ("--advisor-address (or web.listen_address)", ", as in make up ARGS='--advisor-address 127.0.0.1:9827'"),
        ("web.cert_file", ""),
    ],
)
def test_an_address_in_use_is_fixed_by_its_own_option(option: str, shown: str) -> None:
    message = f"cannot listen: choose another address with {option}"
    assert options_hint({"GPU_ADVISOR_OPTIONS_AFTER": "make up ARGS"}, message) == shown
    assert options_hint({}, message) == ""
