"""The checklist's tiles and tables: each item once, with how many nodes miss it and the worst check. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpu_advisor.evaluation.recommendation import Check, CheckStatus

#: The order of the checklist.
ITEMS = ("gpu_utilization", "gpu_memory", "cpu", "memory", "storage", "network", "cost", "exporters")

#: Larger tables show the worst rows only; /checks has all.
MAX_ROWS = 32

_STATUS_ORDER = {CheckStatus.MISSED: 0, CheckStatus.UNKNOWN: 1, CheckStatus.MET: 2}


@dataclass(frozen=True, slots=True)
class ChecklistItem:
    """One item. `fleet_check` is None for items that are checked per node only."""

    name: str
    title: str
    fleet_check: Check | None
    node_checks: tuple[Check, ...]

    @property
    def status(self) -> CheckStatus:
        """The fleet's status; without a fleet check, the worst node's. Unknown nodes do not hide missed ones."""
        if self.fleet_check is not None:
            return self.fleet_check.status
        return min((each.status for each in self.node_checks), key=_STATUS_ORDER.__getitem__)

    @property
    def missed_count(self) -> int:
        return sum(1 for each in self.node_checks if each.status is CheckStatus.MISSED)

    @property
    def unknown_count(self) -> int:
        return sum(1 for each in self.node_checks if each.status is CheckStatus.UNKNOWN)

    @property
    def displayed_check(self) -> Check:
        """The fleet's check, or the worst node's."""
        return self.fleet_check or worst_check(self.node_checks)

    @property
    def severity(self) -> str:
        return self.displayed_check.severity


@dataclass(frozen=True, slots=True)
class ChecksRow:
    """A node with its checks by item."""

    name: str
    checks: dict[str, Check]


def items(checks: Sequence[Check]) -> list[ChecklistItem]:
    fleet = {check.item: check for check in checks if check.scope.kind == "fleet"}
    parts: dict[str, list[Check]] = {}
    for check in checks:
        if check.scope.kind == "node":
            parts.setdefault(check.item, []).append(check)
    names = [name for name in ITEMS if name in fleet or name in parts]
    return [
        ChecklistItem(name, (fleet.get(name) or parts[name][0]).title, fleet.get(name), tuple(parts.get(name, ())))
        for name in names
    ]


def worst_check(checks: Sequence[Check]) -> Check:
    """The check farthest from its target; if none is missed, the one with the highest value."""
    return min(checks, key=lambda each: (_STATUS_ORDER[each.status], -abs(each.missed_by or 0.0), -(each.value or 0.0)))


def nodes(checks: Sequence[Check]) -> list[ChecksRow]:
    by_name: dict[str, dict[str, Check]] = {}
    for check in checks:
        if check.scope.kind == "node":
            by_name.setdefault(check.scope.name, {})[check.item] = check
    return [ChecksRow(name, found) for name, found in by_name.items()]


def worst_rows(rows: Sequence[ChecksRow]) -> Sequence[ChecksRow]:
    """All rows in order; the worst ones first if there are more than MAX_ROWS."""
    return rows if len(rows) <= MAX_ROWS else sorted(rows, key=_severity_key, reverse=True)[:MAX_ROWS]


def _severity_key(row: ChecksRow) -> tuple[int, float]:
    """How many items a row misses, and by how much."""
    missed = [abs(each.missed_by or 0.0) for each in row.checks.values() if each.status is CheckStatus.MISSED]
    return len(missed), sum(missed)
