"""Compare the host collectors with node_exporter's own expected output over its own fixture.

    git clone https://github.com/prometheus/node_exporter && cd node_exporter/collector/fixtures
    for name in sys udev; do ../../ttar -x -f $name.ttar; done
    python -m benchmarks.node_exporter_fixture node_exporter/collector/fixtures

The fixture is not part of this project. Each family that both have must have the same series and values. Prints those
that differ, and exits with 1 if there are any.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from gpu_exporter.exposition import render
from gpu_exporter.host import COLLECTORS
from gpu_exporter.host.base import HostSettings
from prometheus_client.parser import text_string_to_metric_families

#: Its test leaves these out, too: they show the machine that it runs on.
EXCLUDED = ("filesystem", "timex", "uname")
#: The flags of its test (end-to-end-test.sh), as ours.
SETTINGS: dict[str, dict[str, Any]] = {"arp": {"net_exclude": "nope"}, "netclass": {"net_exclude": "(dmz|int)"}}
#: Its test includes chips by name; ours has no such switch.
EXCLUDED_CHIPS = {"bogus"}
#: It reads them through netlink or from the clock, not from the fixture.
NOT_IN_FIXTURE = ("node_time_seconds", "node_time_zone_offset_seconds")

Labels = frozenset[tuple[str, str]]
Families = dict[str, dict[Labels, float]]


class Difference(NamedTuple):
    family: str
    labels: Labels
    ours: float | None
    expected: float | None


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.node_exporter_fixture", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("fixtures", type=Path, help="node_exporter's folder collector/fixtures, with sys/ and udev/")
    fixtures: Path = parser.parse_args(argv).fixtures
    if not (fixtures / "sys/class").is_dir():
        print(f"{fixtures}/sys is missing: unpack sys.ttar and udev.ttar with node_exporter's ttar", file=sys.stderr)
        return 2
    ours = parse(collect(fixtures))
    expected = parse((fixtures / "e2e-output.txt").read_text(encoding="utf-8"))
    found = differences(ours, expected)
    both = ours.keys() & expected.keys()
    series = sum(len(expected[name]) for name in both)
    print(f"{len(both)} families in both, {series} series, {len(found)} differ")
    for each in found:
        print(f"  {each.family} {dict(sorted(each.labels))}: ours {each.ours}, expected {each.expected}")
    return 1 if found else 0


def collect(fixtures: Path) -> str:
    """The page of our collectors over the fixture, without those that cannot read it."""
    settings = HostSettings(fixtures / "proc", fixtures / "sys", fixtures, fixtures / "udev/data")
    page = b""
    for name, make in COLLECTORS.items():
        if name in EXCLUDED:
            continue
        try:
            page += render(make(replace(settings, **SETTINGS.get(name, {}))).collect())
        except OSError as error:
            print(f"{name}: {error}", file=sys.stderr)
    return page.decode()


def parse(page: str) -> Families:
    found: Families = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            # A label without a value is none, in Prometheus.
            labels = frozenset((name, value) for name, value in sample.labels.items() if value)
            if dict(labels).get("chip") not in EXCLUDED_CHIPS and sample.name not in NOT_IN_FIXTURE:
                found.setdefault(sample.name, {})[labels] = sample.value
    return found


def differences(ours: Families, expected: Families) -> list[Difference]:
    """The series that differ, of the families that both have."""
    found = []
    for name in sorted(ours.keys() & expected.keys()):
        left: Mapping[Labels, float] = ours[name]
        right: Mapping[Labels, float] = expected[name]
        for labels in sorted(left.keys() | right.keys(), key=sorted):
            a, b = left.get(labels), right.get(labels)
            if a is None or b is None or not math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9):
                found.append(Difference(name, labels, a, b))
    return found


if __name__ == "__main__":
    sys.exit(main())
