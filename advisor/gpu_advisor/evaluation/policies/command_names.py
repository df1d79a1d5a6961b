"""Which names from labels may stand in a command: those that name one thing. Pure.

A label says what its exporter wants it to say. Quoting keeps a name one argument, but tools read more into an argument:
an option, a list (`nvidia-smi -i 0,1`, `scancel 1,2`), a range (`scontrol update nodename=n[1-9]`), a pattern
(`systemctl stop '*.service'`) or all there is (`nodename=ALL`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

NameKind = Literal["cluster", "host", "gpu", "pod_uid", "slurm_job", "unit"]

_LONGEST = 253

#: Hosts by RFC 1123, and with underscores; uuids, PCI addresses and joined labels; job, task of an array, part of a
#: heterogeneous job (https://slurm.schedmd.com/scancel.html);
#: https://www.freedesktop.org/software/systemd/man/latest/systemd.unit.html
_PATTERNS: Mapping[NameKind, re.Pattern[str]] = {
    "cluster": re.compile(r"(?!(?i:all)\Z)[A-Za-z0-9_][A-Za-z0-9_.:/@-]*"),
    "host": re.compile(r"(?!(?i:all)\Z)[A-Za-z0-9_][A-Za-z0-9_.-]*"),
    "gpu": re.compile(r"[A-Za-z0-9][A-Za-z0-9:./_~-]*"),
    "pod_uid": re.compile(r"[0-9a-fA-F]{8}[0-9a-fA-F-]{24,28}"),
    "slurm_job": re.compile(r"[0-9]+([_+][0-9]+)?"),
    "unit": re.compile(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*"),
}


def names_one(kind: NameKind, name: str) -> bool:
    return len(name) <= _LONGEST and _PATTERNS[kind].fullmatch(name) is not None
