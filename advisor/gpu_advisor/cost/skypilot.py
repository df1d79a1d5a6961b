"""Converts SkyPilot's price lists (vms.csv of https://github.com/skypilot-org/skypilot-catalog) to catalogue rows.

A line is an instance type in a zone of a region; GCP has separate lines for hosts and accelerators, whose prices are
added. A region's spot price is the median of its zones (the lower one of two), so that one outlier does not decide.
Lines without a valid price are rejected and counted.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from statistics import median_low

from gpu_advisor.cost.catalogue_rows import parse_number, parse_offer
from gpu_advisor.cost.errors import CostError
from gpu_advisor.cost.offers import InstanceOffer
from gpu_advisor.hardware.gpu_types import GPU_MEMORY_GIB

PROVIDERS = ("aws", "azure", "gcp")
HEADER = (
    "InstanceType", "AcceleratorName", "AcceleratorCount", "vCPUs", "MemoryGiB", "GpuInfo", "Price", "SpotPrice",
    "Region",
)  # fmt: skip

#: GPUs of GCP's machine types: https://cloud.google.com/compute/docs/gpus
_GCP_MACHINE_TYPES = (
    (r"a2-(?:high|mega)gpu-(\d+)g", "A100"), (r"a2-ultragpu-(\d+)g", "A100-80GB"), (r"a3-highgpu-(\d+)g", "H100"),
    (r"a3-megagpu-(\d+)g", "H100-MEGA"), (r"a3-ultragpu-(\d+)g", "H200"), (r"a4-highgpu-(\d+)g", "B200"),
)  # fmt: skip
_GCP_L4 = {"4": 1, "8": 1, "12": 1, "16": 1, "32": 1, "24": 2, "48": 4, "96": 8}
_GCP_N1 = ("T4", "P100", "V100")

#: GiB of types that are not in GPU_MEMORY_GIB. If the file has no size, a name without one means the smaller.
_OTHER_SIZES = {"M60": 8.0, "K80": 12.0, "P4": 8.0}

CsvLine = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ConversionResult:
    """`rows`: number of lines with GPUs. `rejected_rows`: reasons with counts."""

    offers: tuple[InstanceOffer, ...]
    rows: int
    rejected_rows: tuple[tuple[str, int], ...]


def convert_catalogue(
    text: str, provider: str, dated: date, source: str, regions: frozenset[str] = frozenset()
) -> ConversionResult:
    """Raises CostError if it is not such a file. Empty `regions`: all."""
    if provider not in PROVIDERS:
        raise CostError(f"{provider}: must be one of {', '.join(PROVIDERS)}")
    table = csv.DictReader(io.StringIO(text))
    try:
        missing = sorted(set(HEADER) - set(table.fieldnames or ()))
        lines = [line for line in table if not regions or line.get("Region") in regions]
    except csv.Error as error:
        raise CostError(f"line {table.line_num}: not CSV: {error}") from error
    if missing:
        raise CostError(
            f"the header lacks {', '.join(missing)}: give vms.csv of SkyPilot's catalogue, as in "
            f"catalogs/v8/{provider}/vms.csv"
        )
    whole = _join_gcp_accelerators(lines) if provider == "gcp" else [line for line in lines if line["AcceleratorName"]]
    rejected: Counter[str] = Counter()
    found: dict[tuple[str, ...], list[InstanceOffer]] = defaultdict(list)
    line_keys: set[tuple[str | None, ...]] = set()
    for line in whole:
        which = (line["InstanceType"], line["AcceleratorName"], line["AcceleratorCount"], line["Region"],
                 line.get("AvailabilityZone"))  # fmt: skip
        if which in line_keys:
            rejected["duplicate"] += 1
            continue
        line_keys.add(which)
        try:
            each = _offer(line, provider, dated, source)
        except CostError as error:
            rejected[_strip_numbers(str(error))] += 1
            continue
        found[tuple(map(str, each.key))].append(each)
    offers = []
    for zones in found.values():
        if len({each.price_per_hour for each in zones}) > 1:
            rejected["price differs between zones of a region"] += len(zones)
            continue
        spots = [each.spot_price_per_hour for each in zones if each.spot_price_per_hour is not None]
        offers.append(replace(zones[0], spot_price_per_hour=median_low(spots) if spots else None))
    return ConversionResult(tuple(offers), len(whole), tuple(rejected.most_common()))


def _offer(line: CsvLine, provider: str, dated: date, source: str) -> InstanceOffer:
    price = parse_number({"price": line["Price"]}, "price")
    spot = parse_number({"spot price": line["SpotPrice"]}, "spot price", optional=True)
    if spot is not None and spot > price * (1 + 1e-3):  # the list rounds the two to different places
        raise CostError("spot price is above the on-demand price: one of them is wrong")
    return parse_offer(
        {
            "provider": provider,
            "region": line["Region"],
            "instance_type": line["InstanceType"],
            "gpu_type": line["AcceleratorName"].removesuffix("-MEGA"),
            "gpu_count": line["AcceleratorCount"],
            "gpu_memory_gib": _memory_gib(line),
            "vcpus": line["vCPUs"],
            "memory_gib": line["MemoryGiB"],
            "price_per_hour": price,
            "spot_price_per_hour": None if spot is None else min(spot, price),
            "date": dated,
            "source": source,
        }
    )


def _memory_gib(line: CsvLine) -> float | None:
    """None if the name has the size."""
    match = re.search(r"'SizeInMiB':\s*(\d+)", line["GpuInfo"] or "")
    if match:
        return int(match[1]) / 1024
    name = line["AcceleratorName"]
    if re.search(r"\d+GB", name):
        return None
    sizes = GPU_MEMORY_GIB.get(name, ())
    return float(min(sizes)) if sizes else _OTHER_SIZES.get(name)


def _join_gcp_accelerators(lines: list[dict[str, str]]) -> list[CsvLine]:
    """One line per host with its accelerator; a host is available only in zones that have the accelerator."""
    accelerators = {
        (line["AcceleratorName"], str(line["AcceleratorCount"]).removesuffix(".0"), _zone(line)): line
        for line in lines
        if line["AcceleratorName"] and not line["InstanceType"] and not line["AcceleratorName"].startswith("tpu")
    }
    found: list[CsvLine] = []
    for host in lines:
        for name, count in _attachable_gpus(host["InstanceType"] or ""):
            of = accelerators.get((name, str(count), _zone(host)))
            if of is not None:
                found.append(
                    {
                        **host,
                        "AcceleratorName": name,
                        "AcceleratorCount": str(count),
                        "GpuInfo": of["GpuInfo"],
                        "Price": _sum_prices(host["Price"], of["Price"]),
                        "SpotPrice": _sum_prices(host["SpotPrice"], of["SpotPrice"]),
                    }
                )
    return found


def _attachable_gpus(machine: str) -> list[tuple[str, int]]:
    for pattern, name in _GCP_MACHINE_TYPES:
        match = re.fullmatch(pattern, machine)
        if match:
            return [(name, int(match[1]))]
    match = re.fullmatch(r"g2-standard-(\d+)", machine)
    if match and match[1] in _GCP_L4:
        return [("L4", _GCP_L4[match[1]])]
    return [(name, 1) for name in _GCP_N1] if machine == "n1-standard-8" else []


def _zone(line: CsvLine) -> str:
    return line.get("AvailabilityZone") or line["Region"]


def _sum_prices(host: str | None, accelerator: str | None) -> str:
    """Empty if a part is missing. If a part is zero so is the sum, which is then rejected."""
    try:
        parts = float(host or ""), float(accelerator or "")
    except ValueError:
        return ""
    return str(round(sum(parts), 6)) if all(part > 0 for part in parts) else "0"


def _strip_numbers(problem: str) -> str:
    """So that lines with the same problem are counted together."""
    return re.sub(r" -?[\d.]+(?:e[+-]?\d+)?(?= )", "", problem)
