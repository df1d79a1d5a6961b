"""How the packages of a program import each other: `python -m tests.import_graph [gpu_advisor|gpu_exporter]`.

Counts what stands directly below the package (units), which of them imports which (edges), the longest chain of imports
(layers) and imports that point upwards, that is, those within a cycle.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

import grimp


@dataclass(frozen=True, slots=True)
class Structure:
    units: tuple[str, ...]
    edges: frozenset[tuple[str, str]]

    @property
    def upward(self) -> frozenset[tuple[str, str]]:
        """Edges within a cycle: one of each cycle's must point upwards, however the units are ordered."""
        return frozenset((a, b) for a, b in self.edges if a in self._reachable(b))

    def layers(self) -> list[list[str]]:
        """The units by the longest chain of imports below them, lowest first. Raises CycleError."""
        depth: dict[str, int] = {}
        imports = {unit: {b for a, b in self.edges if a == unit} for unit in self.units}
        for unit in TopologicalSorter(imports).static_order():
            depth[unit] = 1 + max((depth[below] for below in imports[unit]), default=-1)
        return [sorted(unit for unit in depth if depth[unit] == level) for level in sorted(set(depth.values()))]

    def _reachable(self, start: str) -> set[str]:
        found, frontier = {start}, [start]
        while frontier:
            here = frontier.pop()
            further = {b for a, b in self.edges if a == here} - found
            found |= further
            frontier += further
        return found


def structure(package: str) -> Structure:
    graph = grimp.build_graph(package, cache_dir=None)

    def unit(module: str) -> str:
        return module.split(".")[1]

    edges = {
        (unit(module), unit(import_openmetrics))
        for module in graph.modules - {package}
        for import_openmetrics in graph.find_modules_directly_imported_by(module) - {package}
    }
    units = sorted(unit(module) for module in graph.find_children(package))
    return Structure(tuple(units), frozenset((a, b) for a, b in edges if a != b))


def main() -> None:
    for package in sys.argv[1:] or ("gpu_advisor", "gpu_exporter"):
        found = structure(package)
        try:
            layers = found.layers()
        except CycleError as error:
            print(f"{package}: {len(found.units)} units, {len(found.edges)} edges, a cycle: {error.args[1]}")
            continue
        print(f"{package}: {len(found.units)} units, {len(found.edges)} edges, {len(layers)} layers, 0 upward imports")
        for level in reversed(layers):
            print("   ", " ".join(level))


if __name__ == "__main__":
    main()
