"""Writes docs/metrics.md, the reference of all metrics, from the families as the code declares them.

    python docs/build_metrics.py            writes it
    python docs/build_metrics.py --check    ends with 1 if it is stale

A family of a GPU stands in the first group of `GPU_GROUPS` whose words are in its name. All others stand under the file
that declares them, which needs no line here.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import gpu_exporter
from gpu_exporter import metrics
from gpu_exporter.compat.dcgm import DCGM_FAMILIES, MIG_LABELS
from gpu_exporter.metrics import MetricFamily

PAGE = Path(__file__).with_name("metrics.md")
COMMAND = "python docs/build_metrics.py"

INTRODUCTION = f"""# Metrics

What gpu-exporter publishes, as its catalogue has it. Made by `{COMMAND}`: do not edit.

Units are base units and stand in the name: `_seconds`, `_bytes`, `_ratio` (0 to 1), `_celsius`, `_watts`, `_joules`,
`_hertz`. Counters end in `_total`: take `rate()` of them. Series of a GPU carry its `uuid`; all else that is known of
it is in `gpu_info`:

    rate(gpu_busy_seconds_total[5m]) / rate(gpu_observed_seconds_total[5m])
      * on (uuid) group_left (name, nodename) gpu_info

A value that could not be read is not there. `gpu_up` is 0 for a GPU that is lost, and `gpu_down_info` tells why;
`gpu_family_absent_info` tells why a family has no value for a GPU that is up.
"""

GPU_GROUPS: tuple[tuple[str, str], ...] = (
    ("Slow or broken: errors and health", r"error|remap|retired|xid|health|pcie_replays"),
    ("Held back: throttling", r"throttle"),
    ("Links: PCIe and NVLink", r"pcie|nvlink"),
    ("Memory", r"memory_(total|used|reserved)|dram_bandwidth|memory_activity"),
    ("Temperature, power, energy, clocks, fan", r"temperature|power|energy|clock|fan_speed|performance_state"),
    ("Use, over time", r"busy|observed|idle_held|window|utilization|activity|occupancy|processes"),
    ("Identity, and what could be read", r""),
)
"""In the order in which a name is looked up; the page has the last first."""

HOST = "Host: "
JOBS = "Jobs: "
DCGM = "With `--compat.dcgm`"

MEMINFO = MetricFamily(
    "node_memory_FIELD_bytes",
    "gauge",
    "One family for each field of the kernel's /proc/meminfo, under node_exporter's names; fields that are counts have "
    "no `_bytes`.",
)
"""Stands for families that are known only once the kernel has been asked."""

NOTES = {
    HOST: "Names and labels are node_exporter's. `--no-collector.host` switches all of them off, "
    "`--no-collector.NAME` those of one heading.",
    DCGM: f"The same readings once more under dcgm-exporter's names and in its units. Where there are MIG slices, "
    f"`{'` and `'.join(MIG_LABELS)}` are labels, too.",
}


def groups() -> dict[str, list[MetricFamily]]:
    """All families by the heading under which they stand, in the order of the page."""
    found: dict[str, list[MetricFamily]] = {title: [] for title, _ in reversed(GPU_GROUPS)}
    for family in (*metrics.DEVICE_FAMILIES, *metrics.VENDOR_FAMILIES):
        found[next(title for title, words in GPU_GROUPS if re.search(words, family.name))].append(family)
    found["Owners"] = list(metrics.OWNER_FAMILIES)
    for name in _modules():
        families = _families_of(name)
        if name == "host.meminfo":
            families.append(MEMINFO)
        if families:
            package, _, rest = name.partition(".")
            found[f"{HOST}{rest}" if package == "host" else f"{JOBS}{rest}" if package == "jobs" else name] = families
    found["The exporter itself"] = list(metrics.SELF_FAMILIES)
    found[DCGM] = list(DCGM_FAMILIES)
    return found


def _modules() -> Iterable[str]:
    """The modules with families of their own, without the package's name."""
    prefix = f"{gpu_exporter.__name__}."
    names = (module.name for module in pkgutil.walk_packages(gpu_exporter.__path__, prefix))
    return sorted({name.removeprefix(prefix) for name in names} - {"__main__", "metrics", "compat.dcgm"})


def _families_of(module: str) -> list[MetricFamily]:
    """The families that stand in a module as constants, in their order there. Those of metrics.py are not its own."""
    known = {id(value) for value in vars(metrics).values()}
    values = vars(importlib.import_module(f"{gpu_exporter.__name__}.{module}")).values()
    found = [value for value in values if isinstance(value, MetricFamily) and id(value) not in known]
    return list(dict.fromkeys(found))


def text() -> str:
    """The page."""
    lines = [INTRODUCTION]
    noted: set[str] = set()
    for title, families in groups().items():
        lines += [f"## {title}", ""]
        for start, note in NOTES.items():
            if title.startswith(start) and start not in noted:
                noted.add(start)
                lines += [note, ""]
        lines += ["| name | type | labels | meaning |", "| --- | --- | --- | --- |"]
        lines += [_row(family) for family in families]
        lines.append("")
    return "\n".join(lines)


def _row(family: MetricFamily) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels)
    meaning = family.help.replace("*", r"\*").replace("|", r"\|")
    return f"| `{family.name}` | {family.type} | {labels} | {meaning} |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if the page is stale")
    check = parser.parse_args(argv).check
    now = text()
    if check:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != now:
            print(f"{PAGE} is stale: {COMMAND}", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(now, encoding="utf-8")
    print(f"written: {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
