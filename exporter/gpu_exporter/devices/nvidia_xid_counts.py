"""Xid counts of GPUs, kept in a file across restarts: a counter that starts over hides a GPU that fails each hour."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpu_exporter import metrics
from gpu_exporter.devices.nvidia_xid_codes import FATAL_XIDS, describe_xid
from gpu_exporter.devices.state_file import StateFile
from gpu_exporter.snapshot import MetricReading

log = logging.getLogger(__name__)

_FORMAT = 1


class XidCounts:
    """Counts of one GPU by Xid, the Unix time of the last one, and their readings."""

    def __init__(self, counts: Mapping[int, int] | None = None, last: Mapping[int, float] | None = None) -> None:
        self.counts = dict.fromkeys(FATAL_XIDS, 0) | dict(counts or {})
        self.last = dict(last or {})
        self.readings = tuple(self._readings())

    def with_xid(self, xid: int, now: float) -> XidCounts:
        """These counts, and one more Xid at `now` (Unix time)."""
        return XidCounts(self.counts | {xid: self.counts.get(xid, 0) + 1}, self.last | {xid: now})

    def _readings(self) -> list[MetricReading]:
        readings = [MetricReading(metrics.XID_ERRORS, count, (str(xid),)) for xid, count in sorted(self.counts.items())]
        for xid, at in sorted(self.last.items()):
            kind, action, _ = describe_xid(xid)
            readings.append(MetricReading(metrics.XID_LAST_TIMESTAMP, at, (str(xid),)))
            readings.append(MetricReading(metrics.XID_INFO, 1, (str(xid), kind, action)))
        return readings


class XidCountFile:
    """The counts of all GPUs by uuid, in a JSON file. Without `path` they are in memory only."""

    def __init__(self, path: Path | None = None) -> None:
        self._file = StateFile(path, "Xid counts", "they start over at a restart") if path else None

    def load(self) -> dict[str, XidCounts]:
        """The stored counts; none, and a warning, if the file cannot be read."""
        if self._file is None:
            return {}
        try:
            return _parse(self._file.read())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning(
                "cannot read Xid counts from %s: %s; they start over. Delete the file if it stays so",
                self._file.path,
                error,
            )
            return {}

    def store(self, counts: Mapping[str, XidCounts]) -> bool:
        """Write those that have an Xid. False, and logged, if that fails: call again later."""
        if self._file is None:
            return True
        gpus = {
            uuid: {str(xid): [each.counts[xid], at] for xid, at in sorted(each.last.items())}
            for uuid, each in counts.items()
            if each.last
        }
        return self._file.write({"format": _FORMAT, "gpus": gpus})


def _parse(document: Any) -> dict[str, XidCounts]:
    """Raises ValueError."""
    gpus = document.get("gpus") if isinstance(document, dict) and document.get("format") == _FORMAT else None
    if not isinstance(gpus, dict) or not all(isinstance(xids, dict) for xids in gpus.values()):
        raise ValueError("not Xid counts in a format that this version supports")
    found = {}
    for uuid, xids in gpus.items():
        counts, last = {}, {}
        for xid, entry in xids.items():
            counts[int(xid)], last[int(xid)] = _entry(entry)
        found[uuid] = XidCounts(counts, last)
    return found


def _entry(entry: Any) -> tuple[int, float]:
    """Count and Unix time of the last one. Raises ValueError."""
    if isinstance(entry, list) and len(entry) == 2:
        count, at = entry
        if type(count) is int and count > 0 and type(at) in (int, float) and math.isfinite(at):
            return count, float(at)
    raise ValueError(f"not a count and a time: {entry!r}")
