"""Memory, threads and descriptors of the programs over time, and what of them grew.

The first quarter of a run warms up: everything that can be published has been by then, windows of the history are full,
and buffers and caches have their size. The rest is compared third with third: the first with the last.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.common import Goal

WARM_UP_SHARE = 0.25
RSS_GROWTH = 0.03
MAX_LOG_BYTES = 1 << 20


@dataclass(frozen=True)
class ProcessSample:
    at: float
    """Seconds since the start of the run."""

    rss: int
    """Resident bytes."""

    threads: int
    descriptors: int


def sample(pid: int, at: float) -> ProcessSample:
    """Raises OSError if the process has ended."""
    proc = Path(f"/proc/{pid}")
    pages = int((proc / "statm").read_text().split()[1])
    return ProcessSample(
        at, pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(proc / "task")), len(os.listdir(proc / "fd"))
    )


@dataclass(frozen=True)
class Growth:
    """First against last third after the warm-up.

    Memory is compared by its median. Threads and descriptors come and go with faults and connections, but a leak never
    goes away: they are compared by their minimum.
    """

    rss: tuple[float, float]
    threads: tuple[int, int]
    descriptors: tuple[int, int]

    @property
    def rss_ratio(self) -> float:
        return self.rss[1] / self.rss[0] - 1


def growth(samples: Sequence[ProcessSample]) -> Growth:
    """Of at least three samples, all after the warm-up."""
    third = len(samples) // 3
    first, last = samples[:third], samples[-third:]
    return Growth(
        (median(each.rss for each in first), median(each.rss for each in last)),
        (min(each.threads for each in first), min(each.threads for each in last)),
        (min(each.descriptors for each in first), min(each.descriptors for each in last)),
    )


def goals(name: str, found: Growth, log_bytes: int) -> list[Goal]:
    return [
        Goal(
            f"{name}: memory of the last third within {RSS_GROWTH:.0%} of the first",
            found.rss_ratio <= RSS_GROWTH,
            f"{found.rss[0] / 2**20:.1f} -> {found.rss[1] / 2**20:.1f} MiB, {found.rss_ratio:+.2%}",
        ),
        *(
            Goal(f"{name}: no growth of {what}", after <= before, f"{before} -> {after}")
            for what, (before, after) in (("threads", found.threads), ("descriptors", found.descriptors))
        ),
        Goal(f"{name}: log below 1 MiB", log_bytes < MAX_LOG_BYTES, f"{log_bytes} bytes"),
    ]
