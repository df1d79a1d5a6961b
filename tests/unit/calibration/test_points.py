from __future__ import annotations

import pytest
from gpu_advisor.calibration.byte_sizes import parse_bytes
from gpu_advisor.calibration.errors import PointsError
from gpu_advisor.calibration.points import MeasuredPoint, clean_points, parse_points, read_points
from hypothesis import given
from hypothesis import strategies as st

GIB = 1 << 30
HEADER = "batch_size,peak_memory_bytes\n"


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("", "at least two rows"),
        (HEADER, "at least two sizes"),
        (HEADER + f"8,{GIB}\n", "at least two sizes"),
        (HEADER + f"8,{GIB}\n8,{GIB}\n", "keep one row per size"),
        (HEADER + f"8,{2 * GIB}\n16,{GIB}\n", "measure at least two sizes that finish"),
        (HEADER + f"0,{GIB}\n8,{2 * GIB}\n", "from 1 on"),
        (HEADER + f"-8,{GIB}\n8,{2 * GIB}\n", "from 1 on"),
        (HEADER + f"8.5,{GIB}\n16,{2 * GIB}\n", "whole number"),
        (HEADER + f"8,0\n16,{GIB}\n", "remove the row"),
        (HEADER + f"8,nan\n16,{GIB}\n", "write a number"),
        (HEADER + "8,4GiB\n16,6GiB\n", "without the unit GiB"),
        (HEADER + f"8,2048\n16,{3 * GIB}\n", "units are mixed"),
        (HEADER + f"8,{2 * GIB}\n16,3072\n", "units are mixed"),
        (HEADER + "8,2048\n16,3072\n", "multiply MiB"),
        (HEADER + f"8,{GIB},1\n16,{GIB}\n", "line 2"),
        (f"batch_size,peak_memory_mib\n8,{GIB}\n", "convert to bytes"),
        (f"batch_size,peak_memory_bytes,loss\n8,{GIB},1\n", "unknown column"),
        (f"batch_size,peak_memory_bytes,samples_per_second\n8,{GIB},0\n16,{GIB},5\n", "leave the cell empty"),
        (f"8,{GIB}\n16,{2 * GIB}\n", "the header is"),
    ],
)
def test_bad_points_name_the_fix(text: str, fix: str) -> None:
    with pytest.raises(PointsError, match=fix):
        clean_points(parse_points(text))


def test_a_measured_model_may_be_tiny() -> None:
    """Units are doubted in what people write, not in what a probe measured."""
    assert len(clean_points([MeasuredPoint(8, 2048), MeasuredPoint(16, 3072)]).points) == 2


def test_a_file_is_named_in_its_error(tmp_path) -> None:
    path = tmp_path / "points.csv"
    for content in (b"", b"\xff\xfe", None):
        if content is not None:
            path.write_bytes(content)
        else:
            path.unlink()
        with pytest.raises(PointsError, match=r"points\.csv"):
            read_points(path)


def test_a_run_out_of_memory_is_left_out_and_reported() -> None:
    points = clean_points(
        [MeasuredPoint(8, 2 * GIB), MeasuredPoint(16, 3 * GIB), MeasuredPoint(32, 5 * GIB), MeasuredPoint(64, GIB)]
    )
    assert [point.batch_size for point in points.points] == [8, 16, 32]
    assert "size 64 left out" in points.notes[0]


def test_a_fall_within_the_noise_of_libraries_is_kept() -> None:
    assert len(clean_points([MeasuredPoint(8, 1000 << 20), MeasuredPoint(16, 995 << 20)]).points) == 2


@given(st.lists(st.tuples(st.integers(1, 4096), st.integers(1 << 20, 1 << 40)), max_size=8))
def test_clean_points_rise_or_are_refused(rows: list[tuple[int, int]]) -> None:
    try:
        points = clean_points(MeasuredPoint(*row) for row in rows).points
    except PointsError:
        return
    sizes = [point.batch_size for point in points]
    assert sizes == sorted(set(sizes))
    assert len(sizes) >= 2


@pytest.mark.parametrize(
    ("text", "size"),
    [("40GiB", 40 << 30), ("40 gib", 40 << 30), ("80GB", 80 * 10**9), ("1.5MiB", 3 << 19), (str(40 << 30), 40 << 30),
     (f"{40 << 30} bytes", 40 << 30)],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "fix"),
    [("40", "did you mean 40GiB"), ("40Gb/s", "write a number"), ("-1GiB", "write a number"), ("0GiB", "give the mem"),
     ("5 parsec", "unknown"), ("", "write a number"), ("9999999TiB", "more than any")],
)  # fmt: skip
def test_bad_sizes_name_the_fix(text: str, fix: str) -> None:
    with pytest.raises(ValueError, match=fix):
        parse_bytes(text)
