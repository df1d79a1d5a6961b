"""Profile files: all or nothing is written, and nothing that is not a profile is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gpu_advisor.calibration.errors import ProfileError
from gpu_advisor.calibration.profile import (
    Measurement,
    Profile,
    points_from_rows,
    profile_file_name,
    profile_rows,
    read_profile,
    read_profiles,
    write_profile,
)

GIB = 1 << 30


def profile(created: float = 1.0, **changes: Any) -> Profile:
    measured = tuple(Measurement(batch_size=size, peak_memory_bytes=size * GIB) for size in (1, 2, 4))
    reported = {
        "gpu_type": "NVIDIA H100", "workload": "my.module:factory", "precision": "float32", "memory_kind": "driver",
        "created_timestamp_seconds": created, "measurements": measured,
    }  # fmt: skip
    return Profile.model_validate({**reported, **changes})


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "below" / profile_file_name(profile())
    write_profile(profile(), path)
    assert read_profile(path) == profile()
    assert list(path.parent.iterdir()) == [path]
    assert points_from_rows(profile_rows([profile()])) == {profile().key: profile().points()}


def test_the_newest_of_a_key_counts_and_a_bad_file_hides_no_other(tmp_path: Path) -> None:
    for number, created in enumerate((1.0, 3.0, 2.0)):
        write_profile(profile(created), tmp_path / f"{number}.profile.json")
    (tmp_path / "0-bad.profile.json").write_text("[]")
    found, [error] = read_profiles(tmp_path)
    assert [each.created_timestamp_seconds for each in found.values()] == [3.0]
    assert "0-bad" in str(error)


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.profile.json"
    write_profile(profile(1.0), path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ProfileError, match="No space left on device: give a path that can be written"):
        write_profile(profile(2.0), path)
    assert read_profile(path) == profile(1.0), "the old one is whole"
    assert list(tmp_path.iterdir()) == [path]


def changed(**changes: Any) -> Callable[[dict[str, Any]], str]:
    return lambda document: json.dumps({**document, **changes})


def first(**changes: Any) -> Callable[[dict[str, Any]], str]:
    """With another first measurement."""
    return lambda document: json.dumps(
        {**document, "measurements": [{**document["measurements"][0], **changes}, *document["measurements"][1:]]}
    )


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda document: "", "not JSON"),
        (lambda document: json.dumps(document)[:-20], "not JSON"),
        (lambda document: "[" * 100_000, "not JSON"),
        (lambda document: "{}", "not a profile"),
        (lambda document: " " * (1 << 20) + "{}", "larger than any profile"),
        (changed(version=2), "version 2, this program reads 1"),
        (changed(measurements=[]), "measurements"),
        (changed(unit="MiB"), "unit: Extra inputs"),
        (changed(gpu_type=""), "gpu_type"),
        (first(batch_size=0), "measurements.0.batch_size"),
        (first(batch_size=2), "2"),
        (first(peak_memory_bytes=1.5), "measurements.0.peak_memory_bytes"),
        (first(peak_memory_bytes=0), "measurements.0.peak_memory_bytes"),
        (first(peak_memory_bytes=100 * GIB), "correct the file or probe again"),
    ],
)
def test_what_is_no_profile_names_file_place_and_fix(
    tmp_path: Path, write: Callable[[dict[str, Any]], str], words: str
) -> None:
    path = tmp_path / "x.profile.json"
    path.write_text(write(profile().model_dump(mode="json")))
    with pytest.raises(ProfileError) as error:
        read_profile(path)
    assert str(path) in str(error.value)
    assert words in str(error.value)
