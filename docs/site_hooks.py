"""Hooks of the docs site: the README as front page, and links that leave docs/ as links to the repository.

Pages link to files of the repository by relative paths, which work on GitHub and in an editor. The site has only docs/,
so such a link becomes an address on GitHub. A link to a file that does not exist is left alone: the strict build fails.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
DOCS = PurePosixPath("docs")
LINK = re.compile(r"(\]\()(?!\w+:|#|/)([^)#\s]+)(#[^)\s]*)?(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README as index.md."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = LINK.sub(lambda link: _rewrite(link, PurePosixPath("."), config.extra["repository"]), text)
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown: str, /, *, page: Any, config: MkDocsConfig, **_: Any) -> str:
    """Rewrite the links of one page."""
    if page.file.src_uri == "index.md":
        return markdown
    folder = (DOCS / page.file.src_uri).parent
    return LINK.sub(lambda link: _rewrite(link, folder, config.extra["repository"]), markdown)


def _rewrite(link: re.Match[str], folder: PurePosixPath, repository: str) -> str:
    begin, target, anchor, end = link[1], link[2], link[3] or "", link[4]
    path = PurePosixPath(normpath(folder / target))
    inside_docs = path.is_relative_to(DOCS)
    if inside_docs and (ROOT / path).is_file():
        if folder.is_relative_to(DOCS):
            return link[0]
        return f"{begin}{path.relative_to(DOCS)}{anchor}{end}"
    if not (ROOT / path).exists():
        return link[0]
    kind = "tree" if (ROOT / path).is_dir() else "blob"
    return f"{begin}{repository}/{kind}/main/{path}{anchor}{end}"
