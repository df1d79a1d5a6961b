"""Memory errors of the host's memory controllers (EDAC).

Kernel document: Documentation/driver-api/edac.rst, ABI/testing/sysfs-devices-edac.
"""

from __future__ import annotations

from gpu_exporter.host.base import HostSettings
from gpu_exporter.host.kernel_files import list_folder, read_label, read_number
from gpu_exporter.metrics import FamilySamples, MetricFamily, group_by_family


def _error_family(name: str, help_: str, *labels: str) -> MetricFamily:
    return MetricFamily(f"node_edac_{name}_errors_total", "counter", help_, ("controller", *labels))


CORRECTABLE = _error_family("correctable", "Correctable memory errors.")
UNCORRECTABLE = _error_family("uncorrectable", "Uncorrectable memory errors.")
ROW_CORRECTABLE = _error_family(
    "csrow_correctable", "Correctable memory errors by row; unknown: not attributed to a row.", "csrow"
)
ROW_UNCORRECTABLE = _error_family(
    "csrow_uncorrectable", "Uncorrectable memory errors by row; unknown: not attributed to a row.", "csrow"
)
CHANNEL_CORRECTABLE = _error_family(
    "channel_correctable", "Correctable memory errors by channel.", "csrow", "channel", "dimm_label"
)
CHANNEL_UNCORRECTABLE = _error_family(
    "channel_uncorrectable", "Uncorrectable memory errors by channel.", "csrow", "channel", "dimm_label"
)

UNKNOWN_ROW = "unknown"

Row = tuple[MetricFamily, tuple[str, ...], float | None]


class EdacCollector:
    def __init__(self, settings: HostSettings) -> None:
        self._folder = f"{settings.sysfs}/devices/system/edac/mc"

    def collect(self) -> list[FamilySamples]:
        """Counters by controller, row and channel; empty without ECC memory or its driver."""
        rows: list[Row] = []
        for name in list_folder(self._folder, r"mc\d+"):
            rows += _read_controller(f"{self._folder}/{name}", name.removeprefix("mc"))
        return group_by_family((family, labels, value) for family, labels, value in rows if value is not None)


def _read_controller(folder: str, controller: str) -> list[Row]:
    rows: list[Row] = [
        (CORRECTABLE, (controller,), read_number(f"{folder}/ce_count")),
        (UNCORRECTABLE, (controller,), read_number(f"{folder}/ue_count")),
        (ROW_CORRECTABLE, (controller, UNKNOWN_ROW), read_number(f"{folder}/ce_noinfo_count")),
        (ROW_UNCORRECTABLE, (controller, UNKNOWN_ROW), read_number(f"{folder}/ue_noinfo_count")),
    ]
    for name in list_folder(folder, r"csrow\d+"):
        row_folder, row = f"{folder}/{name}", name.removeprefix("csrow")
        rows.append((ROW_CORRECTABLE, (controller, row), read_number(f"{row_folder}/ce_count")))
        rows.append((ROW_UNCORRECTABLE, (controller, row), read_number(f"{row_folder}/ue_count")))
        for file in list_folder(row_folder, r"ch\d+_ce_count"):
            channel = file.removeprefix("ch").removesuffix("_ce_count")
            labels = (controller, row, channel, _dimm_label(f"{row_folder}/ch{channel}_dimm_label"))
            rows.append((CHANNEL_CORRECTABLE, labels, read_number(f"{row_folder}/{file}")))
            rows.append((CHANNEL_UNCORRECTABLE, labels, read_number(f"{row_folder}/ch{channel}_ue_count")))
    return rows


def _dimm_label(path: str) -> str:
    """As node_exporter writes it: `mc#0csrow#2channel#0` -> `mc0_csrow2_channel0`."""
    label = read_label(path).replace("#", "").replace("csrow", "_csrow").replace("channel", "_channel")
    return label or "unknown"
