"""Write files into a folder: all or none, each atomically, and never over files that others changed."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path

from gpu_advisor.optimizing.change_files import MANIFEST, digest
from gpu_advisor.storage.output_file import check_target, write_output


class WriteRefusedError(Exception):
    """Nothing was written. The message says why and how to fix it."""


def write_files(folder: Path, contents: Mapping[str, str], force: bool) -> dict[str, bool]:
    """Whether each file was written; False if it was up to date. Raises WriteRefusedError.

    An existing file with other content is overwritten only if it is unchanged since we wrote it, by the manifest's
    hash, or with `force`.
    """
    try:
        return _write(folder, contents, force)
    except OSError as error:
        raise WriteRefusedError(f"{error.filename or folder}: {error.strerror}; choose a writable folder") from error


def _write(folder: Path, contents: Mapping[str, str], force: bool) -> dict[str, bool]:
    folder.mkdir(parents=True, exist_ok=True)
    ours = _manifest(folder)
    present = {name: _read_text(folder / name) for name in contents}
    modified_files = sorted(
        name
        for name, text in present.items()
        if text is not None and text != contents[name] and ours.get(name) != digest(text)
    )
    if modified_files and not force:
        raise WriteRefusedError(
            f"{folder}: {', '.join(modified_files)} changed since gpu-advisor wrote it: choose another folder, or "
            "overwrite with --force. Nothing was written"
        )
    # The manifest is last: after an interruption new files do not count as ours, and are not overwritten.
    for name, text in contents.items():
        if present[name] != text:
            write_output(folder / name, text)
    return {name: present[name] != text for name, text in contents.items()}


def _manifest(folder: Path) -> dict[str, str]:
    """Hashes of the files written before, by name, with that of the manifest itself if it is ours."""
    text = _read_text(folder / MANIFEST)
    try:
        hashes = json.loads(text or "{}").get("files", {})
    except (ValueError, AttributeError):
        return {}
    if text is None or not isinstance(hashes, dict) or not hashes:
        return {}
    return {**hashes, MANIFEST: digest(text)}


def _read_text(path: Path) -> str | None:
    """The content of a regular file; None if there is none. Raises OSError for what is neither file nor pipe."""
    found = check_target(path)
    if found is None or not stat.S_ISREG(found.st_mode):  # reading a FIFO would wait for its writer
        return None
    return path.read_text(encoding="utf-8", errors="surrogateescape")
