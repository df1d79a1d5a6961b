"""The table in docs/security.md: long enough, each row names a test or benchmark that exists, and all of them held."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from tests.security_table import PAGE, ROOT, RUN_LINE, Seen, fill, read_benchmark, read_report, rows

REPORT = """<testsuites><testsuite>
<testcase classname="tests.unit.test_a" name="test_x[1-2]"/>
<testcase classname="tests.unit.test_a" name="test_x[3]"><properties><property name="seen" value="9 MiB"/></properties></testcase>
<testcase classname="tests.unit.test_a" name="test_y"><failure message="m">no</failure></testcase>
<testcase classname="tests.unit.test_a" name="test_y[2]"/>
<testcase classname="tests.unit.test_a" name="test_z"><skipped/></testcase>
<testcase classname="tests.unit.test_a" name="test_error"><error/></testcase>
<testcase classname="tests.unit.test_b" name="test_x"/>
</testsuite></testsuites>"""  # noqa: E501


def test_each_row_names_what_shows_it_and_held() -> None:
    text = PAGE.read_text(encoding="utf-8")
    found = rows(text)
    assert len(found) >= 60
    assert len({row["attack"] for row in found}) == len(found)
    table = text.split("| attack or fault |")[1].strip().splitlines()[2:]
    assert len(table) == len(found), "a row that this test cannot read"
    for row in found:
        source = (ROOT / row["path"]).read_text(encoding="utf-8")
        assert f"def {row['name']}(" in source, row[0]
        assert row["seen"].startswith("holds in ") or "goals met on" in row["seen"], (
            "run python -m tests.security_table"
        )
    run = RUN_LINE.search(text)
    assert run
    assert f"{len(found)} of {len(found)} rows hold." in run[0]


@pytest.mark.parametrize(
    ("name", "holds", "words"),
    [
        ("test_x", True, "holds in 2 cases; 9 MiB"),
        ("test_y", False, "FAILED: test_y"),
        ("test_z", False, "NOT RUN"),
        ("test_error", False, "FAILED: test_error"),
        ("test_missing", False, "NOT RUN"),
    ],
)
def test_what_a_report_says(name: str, holds: bool, words: str) -> None:
    test = ("tests/unit/test_a.py", name)
    seen = read_report(REPORT, [test])[test]
    assert (seen.holds, str(seen)) == (holds, words)


def test_the_column_is_written_and_nothing_else() -> None:
    text = "a | b\nRun on 1.\n\n| attack | wanted | old | `test_x` in `tests/a.py` |\n| not | a | row |\n"
    at = datetime(2030, 1, 2, 3, 4, tzinfo=timezone.utc)
    assert fill(text, {("tests/a.py", "test_x"): (True, "5|6")}, at) == (
        "a | b\nRun on 2030-01-02 at 03:04 UTC: 1 of 1 rows hold.\n\n"
        "| attack | wanted | 5/6 | `test_x` in `tests/a.py` |\n| not | a | row |\n"
    )
    assert "0 of 1 rows hold" in fill(text, {("tests/a.py", "test_x"): (False, str(Seen()))}, at)


def test_a_benchmarks_figures() -> None:
    holds, words = read_benchmark("benchmarks/fuzz_http.py")
    assert holds
    assert "goals met on 20" in words
