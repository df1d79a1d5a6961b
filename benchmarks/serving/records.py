"""Simulated results on disk: compressed records, appended one by one, so that a run may be stopped at any time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_LENGTH_BYTES = 4


def append_record(path: Path, packed: bytes) -> None:
    with path.open("ab") as file:
        file.write(len(packed).to_bytes(_LENGTH_BYTES, "little") + packed)


def read_records(path: Path | None) -> Iterator[bytes]:
    """The records of a file, but for a last one that was cut off; none if there is no file."""
    if path is None or not path.exists():
        return
    with path.open("rb") as file:
        while len(length := file.read(_LENGTH_BYTES)) == _LENGTH_BYTES:
            packed = file.read(int.from_bytes(length, "little"))
            if len(packed) < int.from_bytes(length, "little"):
                return
            yield packed


def drop_cut_off(path: Path) -> None:
    """Cut a last record that is not whole, so that others can follow. Nothing else may write to the file meanwhile."""
    if path.exists():
        whole = sum(_LENGTH_BYTES + len(each) for each in read_records(path))
        with path.open("rb+") as file:
            file.truncate(whole)
