"""Link speeds of GPU models."""

from __future__ import annotations

import re

from gpu_advisor.text_cache import cache_texts

#: NVLink of the SXM boards, one direction, in bytes per second; the first pattern found in a GPU's name counts.
#: https://www.nvidia.com/en-us/data-center/nvlink/ gives both directions together: 300, 600, 900 and 1,800 GB/s.
_NVLINK: tuple[tuple[str, float], ...] = (
    (r"\bG?B[23]00\b", 900e9),
    (r"\b(G?H[12]00|H20|H800)\b(?!.*PCIe)", 450e9),
    (r"\bA[18]00-SXM", 300e9),
    (r"\bV100-SXM", 150e9),
    (r"\bP100-SXM", 80e9),
)

#: One lane, one direction, in bytes per second, by generation (PCI-SIG; after encoding).
_PCIE_LANE = {1: 0.25e9, 2: 0.5e9, 3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.56e9}


@cache_texts(1024)
def nvlink_bytes_per_second(name: str) -> float | None:
    """All NVLinks of a model together, one direction. None for a model that is unknown or has none."""
    return next((speed for pattern, speed in _NVLINK if re.search(pattern, name)), None)


def pcie_bytes_per_second(generation: float | None, lanes: float | None) -> float | None:
    """A PCIe link, one direction; None if the link is unknown."""
    lane = None if generation is None else _PCIE_LANE.get(int(generation))
    return None if lane is None or lanes is None else lane * lanes
