"""Writes the simulator's copy of the list of GPU types, since the exporter does not import the advisor.

python docs/build_gpu_types.py            writes exporter/gpu_exporter/devices/gpu_types.py
python docs/build_gpu_types.py --check    ends with 1 if it is stale
"""

from __future__ import annotations

import sys
from pathlib import Path

from generated_page import write_or_check
from gpu_advisor.hardware.gpu_table import GPU_SPECS

PAGE = Path(__file__).resolve().parents[1] / "exporter/gpu_exporter/devices/gpu_types.py"
COMMAND = "python docs/build_gpu_types.py"

TEXT = f'''"""GPU types for the simulator. Made by `{COMMAND}` from the advisor's list: do not edit."""

from __future__ import annotations

from typing import NamedTuple


class GpuType(NamedTuple):
    """`sizes_gib`: of a card, ascending; `devices`: GPUs that the driver shows per card; `link_bytes_per_second`: to
    the other GPUs of a node, in one direction; `driver_name`: with {{gib}} where the size belongs."""

    vendor: str
    sizes_gib: tuple[int, ...]
    devices: int
    watts: int
    link_bytes_per_second: float
    generation: str
    driver_name: str


GPU_TYPES: dict[str, GpuType] = {{
'''


def text() -> str:
    """The module."""
    rows = []
    for name, spec in GPU_SPECS.items():
        sizes = f"({', '.join(map(str, spec.sizes))}{',' if len(spec.sizes) == 1 else ''})"
        rows.append(
            f'    "{name}": GpuType("{spec.vendor}", {sizes}, {spec.devices}, {spec.watts}, '
            f'{spec.link_gb_per_second:g}e9, "{spec.generation}", "{spec.driver_name}"),'
        )
    return TEXT + "\n".join(rows) + "\n}  # fmt: skip\n"


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, text(), COMMAND))
