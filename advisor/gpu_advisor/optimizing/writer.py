"""Files into a folder: all or none, each whole, and never over what somebody else wrote."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gpu_advisor.optimizing.change_files import MANIFEST, digest


class WriteRefusedError(Exception):
    """Nothing was written. The message tells why, and the mend."""


def write(folder: Path, contents: Mapping[str, str], force: bool) -> dict[str, bool]:
    """By name, whether it was written; False: it was so already. Raises WriteRefusedError.

    A file that is there with other content is overwritten only if the manifest says that it was written by us and
    stands as it was, or with `force`.
    """
    try:
        return _write(folder, contents, force)
    except OSError as error:
        raise WriteRefusedError(
            f"{error.filename or folder}: {error.strerror}; name a folder that you may write to"
        ) from error


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
            f"{folder} has {', '.join(modified_files)} with other content than gpu-advisor wrote: name another folder, or "
            "overwrite with --force. Nothing was written"
        )
    # The manifest is the last: if this ends half way, what is new is not yet ours, and nothing is overwritten for it.
    for name, text in contents.items():
        if present[name] != text:
            _replace(folder / name, text)
    return {name: present[name] != text for name, text in contents.items()}


def _manifest(folder: Path) -> dict[str, str]:
    """Hashes of what was written before, by name; the manifest's own is that of what it is, if it is one of ours."""
    text = _read_text(folder / MANIFEST)
    try:
        hashes = json.loads(text or "{}").get("files", {})
    except (ValueError, AttributeError):
        return {}
    if text is None or not isinstance(hashes, dict) or not hashes:
        return {}
    return {**hashes, MANIFEST: digest(text)}


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None


def _replace(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:60]}.")
    try:
        with os.fdopen(handle, "wb") as beside:
            beside.write(text.encode("utf-8", "replace"))
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
