"""The runbooks: Markdown files of docs/runbooks, which are part of the package."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("runbooks")

#: Where pages outside of docs/runbooks are.
DOCS_URL = "https://github.com/gpu-advisor/gpu-advisor/blob/main/docs"


@cache
def runbook_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in FOLDER.glob("*.md") if path.stem != "README"))


def runbook_text(name: str) -> str | None:
    """The Markdown of a runbook; None if there is none of this name."""
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8") if name in runbook_names() else None


def runbook_html(name: str) -> str | None:
    """The runbook as HTML, with links to other runbooks relative to its own; HTML in the text is escaped."""
    return _render(name) if name in runbook_names() else None


@cache  # of the names there are; others come from requests
def _render(name: str) -> str:
    from markdown_it import MarkdownIt

    text = runbook_text(name) or ""
    text = re.sub(r"\]\((\w+)\.md\)", r"](\1)", text)
    text = re.sub(r"\]\(\.\./([\w./-]+\.md)", rf"]({DOCS_URL}/\1", text)
    return str(MarkdownIt("commonmark", {"html": False}).enable("table").render(text))
