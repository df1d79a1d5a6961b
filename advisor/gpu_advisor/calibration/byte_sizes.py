"""Parsing and formatting of memory sizes."""

from __future__ import annotations

import re

UNITS: dict[str, int] = {
    "B": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_UNITS_BY_LOWERCASE = {name.lower(): factor for name, factor in UNITS.items()} | {"bytes": 1}
_SIZE_PATTERN = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
MIN_BYTES = 1 << 20


def parse_bytes(text: str) -> int:
    """Bytes of `40GiB`, `40 GB`, `40960MiB`, `42949672960`. Raises ValueError.

    Without a unit it is bytes, and then at least a MiB: `40` is certainly not 40 bytes.
    """
    match = _SIZE_PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size: write a number and a unit, as in 40GiB")
    number, unit = match.groups()
    if unit and unit.lower() not in _UNITS_BY_LOWERCASE:
        raise ValueError(f"unit {unit!r} of {text!r} is unknown: use one of {', '.join(UNITS)}")
    size = float(number) * _UNITS_BY_LOWERCASE.get(unit.lower(), 1)
    if size < MIN_BYTES:
        fix = f"did you mean {number}GiB?" if not unit else "give the memory of one GPU"
        raise ValueError(f"{text!r} is {size:.0f} bytes: {fix}")
    if size >= 1 << 60:
        raise ValueError(f"{text!r} is more than any GPU has: give the memory of one GPU, as in 40GiB")
    return int(size)


def format_bytes(size: float) -> str:
    """For people: `71.3 GiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if abs(size) >= UNITS[unit]:
            return f"{size / UNITS[unit]:.1f} {unit}"
    return f"{size:.0f} B"
