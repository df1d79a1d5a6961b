"""Converts SkyPilot's price lists (vms.csv of https://github.com/skypilot-org/skypilot-catalog) to catalogue rows.

A line is an instance type in a zone of a region, of any provider. Type, accelerator, count and price must be there;
other columns may be empty or absent. GCP has separate lines for hosts and accelerators, whose prices are added. A
region's spot price is the median of its zones (the lower one of two), so that one outlier does not decide. Part of a
card (a count below 1) is one GPU with that part of the memory. Lines without a valid price are rejected and counted.
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
from gpu_advisor.hardware.gpu_table import GPU_SPECS
from gpu_advisor.hardware.gpu_types import GIB, nominal_gb, parse_gpu_type

REQUIRED_COLUMNS = ("InstanceType", "AcceleratorName", "AcceleratorCount", "Price", "Region")
_OPTIONAL_COLUMNS = ("vCPUs", "MemoryGiB", "GpuInfo", "SpotPrice", "AvailabilityZone")
#: Spellings of the columns that editors and spreadsheets make: by the name in lower case.
_COLUMNS = {name.lower(): name for name in (*REQUIRED_COLUMNS, *_OPTIONAL_COLUMNS)}
_ALL_REGIONS = "any"

#: GPUs of GCP's machine types: https://cloud.google.com/compute/docs/gpus
_GCP_MACHINE_TYPES = (
    (r"a2-(?:high|mega)gpu-(\d+)g", "A100"), (r"a2-ultragpu-(\d+)g", "A100-80GB"), (r"a3-highgpu-(\d+)g", "H100"),
    (r"a3-megagpu-(\d+)g", "H100-MEGA"), (r"a3-ultragpu-(\d+)g", "H200"), (r"a4-highgpu-(\d+)g", "B200"),
    (r"a4x-highgpu-(\d+)g", "GB200"),
)  # fmt: skip
_GCP_L4 = {"4": 1, "8": 1, "12": 1, "16": 1, "32": 1, "24": 2, "48": 4, "96": 8}
_GCP_G4 = {"48": 1, "96": 2, "192": 4, "384": 8}
_GCP_N1 = ("T4", "P100", "V100")

#: What lists add to a GPU's name: the network of GCP's A3 Mega, hosts without a hypervisor.
_NAME_SUFFIX = re.compile(r"(?i)[-_](MEGA|BAREMETAL)$")

#: Accelerators that are no GPUs.
_NOT_GPUS = re.compile(r"(?i)tpu|trainium|inferentia")

CsvLine = dict[str, str]


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
    if not re.fullmatch(r"[a-z][a-z0-9-]*", provider):
        raise CostError(f"{provider!r} is not a provider: write a short name in lower case, such as aws or lambda")
    table = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")))
    try:
        table.fieldnames = [_COLUMNS.get(name.strip().lower(), name) for name in table.fieldnames or ()]
        missing = sorted(set(REQUIRED_COLUMNS) - set(table.fieldnames or ()))
        lines = [_with_all_columns(line) for line in table]
    except csv.Error as error:
        raise CostError(f"line {table.line_num}: not CSV: {error}") from error
    if missing:
        raise CostError(
            f"the header lacks {', '.join(missing)}: give vms.csv of SkyPilot's catalogue, as in "
            f"catalogs/v8/{provider}/vms.csv"
        )
    lines = [line for line in lines if not regions or line["Region"] in regions]
    whole = _join_gcp_accelerators(lines) if provider == "gcp" else [line for line in lines if _is_gpu(line)]
    rejected: Counter[str] = Counter()
    found: dict[tuple[str, ...], list[InstanceOffer]] = defaultdict(list)
    line_keys: set[tuple[str, ...]] = set()
    for line in whole:
        which = (line["InstanceType"], line["AcceleratorName"], line["AcceleratorCount"], line["Region"],
                 line["AvailabilityZone"])  # fmt: skip
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


def _with_all_columns(line: Mapping[str | None, object]) -> dict[str, str]:
    """Text of every column; "" for an empty or absent one."""
    cells = {name: value.strip() for name, value in line.items() if isinstance(name, str) and isinstance(value, str)}
    return defaultdict(str, cells | {"Region": cells.get("Region") or _ALL_REGIONS})


def _is_gpu(line: CsvLine) -> bool:
    return bool(line["AcceleratorName"]) and not _NOT_GPUS.match(line["AcceleratorName"])


def _offer(line: CsvLine, provider: str, dated: date, source: str) -> InstanceOffer:
    price = parse_number({"price": line["Price"]}, "price")
    spot = parse_number({"spot price": line["SpotPrice"]}, "spot price", optional=True) if _is_offered(line) else None
    if spot is not None and spot > price * (1 + 1e-3):  # the list rounds the two to different places
        raise CostError("spot price is above the on-demand price: one of them is wrong")
    count = parse_number({"AcceleratorCount": line["AcceleratorCount"]}, "AcceleratorCount")
    return parse_offer(
        {
            "provider": provider,
            "region": line["Region"],
            "instance_type": line["InstanceType"],
            "gpu_type": _NAME_SUFFIX.sub("", line["AcceleratorName"]),
            "gpu_count": max(count, 1.0),
            "gpu_memory_gib": _memory_gib(line, count),
            "vcpus": line["vCPUs"] if _positive(line["vCPUs"]) else None,
            "memory_gib": line["MemoryGiB"] if _positive(line["MemoryGiB"]) else None,
            "price_per_hour": price,
            "spot_price_per_hour": None if spot is None else min(spot, price),
            "date": dated,
            "source": source,
        }
    )


def _is_offered(line: CsvLine) -> bool:
    """Whether there is a spot price; some lists write 0 where there is none."""
    return re.fullmatch(r"0*\.?0*", line["SpotPrice"]) is None


def _positive(cell: str) -> bool:
    """Whether a size of the host is known; lists write 0 where it is not."""
    try:
        return float(cell) > 0
    except ValueError:
        return False


def _memory_gib(line: CsvLine, count: float) -> float | None:
    """Of one GPU, as the list of GPU types has it; None if neither line nor name nor list has it.

    Some lists report the sum of all GPUs, and some GiB in the column of MiB: no GPU has less than a GiB. A name without
    a size means the smaller one.
    """
    gpu = parse_gpu_type(_NAME_SUFFIX.sub("", line["AcceleratorName"]))
    sizes = GPU_SPECS[gpu.name].sizes if gpu.name in GPU_SPECS else ()
    part = min(count, 1.0)
    match = re.search(r"""["']SizeInMiB["']:\s*["']?(\d+)""", line["GpuInfo"])
    if match and int(match[1]):
        reported = int(match[1]) / 1024 if int(match[1]) >= 1024 else float(match[1])
        for gib in (reported, reported / max(count, 1.0)):
            nominal = nominal_gb(gpu.name, gib * GIB)
            if nominal in sizes:
                return nominal * part
        return reported  # part of a card, or a type that is not in the list
    if gpu.memory_gb is not None:
        return gpu.memory_gb * part
    return min(sizes) * part if sizes else None


def _join_gcp_accelerators(lines: list[dict[str, str]]) -> list[CsvLine]:
    """One line per host with its accelerator; a host is available only in zones that have the accelerator."""
    accelerators = {
        (line["AcceleratorName"], str(line["AcceleratorCount"]).removesuffix(".0"), _zone(line)): line
        for line in lines
        if _is_gpu(line) and not line["InstanceType"]
    }
    found: list[CsvLine] = []
    for host in lines:
        if _is_gpu(host) and host["InstanceType"]:  # a list that has them together
            found.append(host)
            continue
        for name, count in _attachable_gpus(host["InstanceType"]):
            of = accelerators.get((name, str(count), _zone(host)))
            if of is not None:
                found.append(
                    host
                    | {
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
    match = re.fullmatch(r"g4-standard-(\d+)", machine)
    if match and match[1] in _GCP_G4:
        return [("RTXPRO6000", _GCP_G4[match[1]])]
    return [(name, 1) for name in _GCP_N1] if machine == "n1-standard-8" else []


def _zone(line: CsvLine) -> str:
    return line["AvailabilityZone"] or line["Region"]


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
