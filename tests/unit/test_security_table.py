"""The table in docs/security.md: long enough, and each row names a test or a benchmark that exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| (?P<attack>[^|]+) \|[^|]+\|[^|]+\| `(?P<name>\w+)` in `(?P<path>[\w/.]+)` \|$", re.MULTILINE)


def test_each_row_names_what_shows_it() -> None:
    text = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    rows = list(ROW.finditer(text))
    assert len(rows) >= 60
    assert len({row["attack"] for row in rows}) == len(rows)
    table = text.split("| attack or fault |")[1].strip().splitlines()[2:]
    assert len(table) == len(rows), "a row that this test cannot read"
    for row in rows:
        source = (ROOT / row["path"]).read_text(encoding="utf-8")
        assert f"def {row['name']}(" in source, row[0]
