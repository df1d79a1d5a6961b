"""The benchmark of hot paths runs; its figures are checked by `make bench-hot-paths`."""

from __future__ import annotations

from pathlib import Path

from benchmarks.hot_paths import HotPath, PathTiming, _amd_path, _import_path, goals, measure


def test_paths_run(tmp_path: Path) -> None:
    timings = [measure(path, 1) for path in (_amd_path(tmp_path / "amd"), _import_path(tmp_path / "import"))]
    assert all(timing.ratio > 0 for timing in timings)


def test_a_path_above_its_ratio_misses_the_goal() -> None:
    path = HotPath("read", dict, "bare", dict, 2)
    assert [goal.met for goal in goals([PathTiming(path, 2.0, 1.0), PathTiming(path, 2.1, 1.0)])] == [True, False]
