"""What `up` does with a simulated fleet's state and past."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu_advisor.runtime.local_exporter import MAX_NAME_CHARACTERS, lines_outside, state_dir_for


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
