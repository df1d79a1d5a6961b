"""Shared by the page generators: write the page, or check that it is current."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; cell separators and line breaks in cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in line) + " |" for line in lines]


def write_or_check(page: Path, text: str, command: str, argv: Sequence[str] | None = None) -> int:
    """Write `text` to `page`; with --check only compare, and return 1 if the page is stale."""
    parser = argparse.ArgumentParser(prog=command, description=f"Write {page.name} from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is stale")
    if parser.parse_args(argv).check:
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            print(f"{page} is stale: run {command}", file=sys.stderr)
            return 1
        return 0
    page.write_text(text, encoding="utf-8")
    print(f"wrote {page}")
    return 0
