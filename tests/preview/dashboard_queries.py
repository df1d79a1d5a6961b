"""The checked-in dashboards, and their queries as Grafana sends them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

GENERATED = Path(__file__).resolve().parents[2] / "grafana" / "generated"
PROMQL_KEYWORDS = {
    "and",
    "or",
    "unless",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "bool",
    "offset",
    "inf",
}

DashboardJson = dict[str, Any]


@dataclass(frozen=True)
class DashboardQuery:
    """One query of a dashboard. `where` is the panel's title and the query's letter, or the annotation."""

    dashboard: str
    where: str
    expr: str
    instant: bool = True

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.where}"


@cache
def load_dashboards() -> dict[str, DashboardJson]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(GENERATED.glob("*.json"))}


def panels(board: DashboardJson) -> Iterator[DashboardJson]:
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", [])


def variables(board: DashboardJson, kind: str = "query") -> list[DashboardJson]:
    return [each for each in board["templating"]["list"] if each["type"] == kind]


def dashboard_annotations(board: DashboardJson) -> list[DashboardJson]:
    found: list[DashboardJson] = board["annotations"].get("list", [])
    return found


@cache
def queries() -> list[DashboardQuery]:
    """Queries of panels and annotations, with unresolved variables."""
    found = []
    for name, board in load_dashboards().items():
        for panel in panels(board):
            for target in panel.get("targets", []):
                where = f"{panel['title']} ({target['refId']})"
                found.append(DashboardQuery(name, where, target["expr"], bool(target.get("instant"))))
        for annotation in dashboard_annotations(board):
            if annotation.get("expr"):
                found.append(DashboardQuery(name, f"annotation {annotation['name']}", annotation["expr"]))
    return found


def variable_query(variable: DashboardJson) -> tuple[str, str]:
    """(selector, label) of a variable's query; for `query_result`, the label that its regex captures as value."""
    query = variable["query"]
    if values := re.fullmatch(r"label_values\((.+), (\w+)\)", query):
        return values[1], values[2]
    whole = re.fullmatch(r"query_result\((.+)\)", query)
    value = re.search(r'(\w+)="\(\?<value>', variable["regex"])
    assert whole, query
    assert value, variable["regex"]
    return whole[1], value[1]


def substitute_variables(expr: str, values: Mapping[str, str]) -> str:
    """Substitute variables, named as in Grafana: `nodename`, `__range`, `__rate_interval`."""
    for name, value in sorted(values.items(), key=lambda pair: -len(pair[0])):
        expr = expr.replace(f"${name}", value)
    return expr


def all_selected(board: DashboardJson, single: Mapping[str, str]) -> dict[str, str]:
    """Values of all variables with everything selected; `single` has those that take one value."""
    return {each["name"]: each.get("allValue") or single[each["name"]] for each in variables(board)}


def metrics_in(query: str) -> set[str]:
    """The metric names in a PromQL query."""
    return set(re.findall(r"(?<![\w.$])([a-zA-Z_:][\w:]*)\b(?!\s*\()", _strip_labels(query))) - PROMQL_KEYWORDS


def has_result(query: str, there: set[str]) -> bool:
    """Whether a query can have a result if series of these names exist: one side of an `or` is enough."""
    return _has_result(_strip_labels(query), there)


def _strip_labels(query: str) -> str:
    """The query without strings, matchers, ranges and label lists."""
    text = re.sub(r'"(?:[^"\\]|\\.)*"', "", query)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", text)
    return re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", text)


def _has_result(bare: str, there: set[str]) -> bool:
    """Evaluate parentheses recursively: their contents and the names next to them must all have results."""
    sides, inner, depth = [""], [""], 0
    groups: list[list[str]] = [[]]
    for token in re.split(r"([()]|\bor\b)", bare):
        depth -= token == ")"
        if depth == 0 and token == "or":
            sides.append("")
            groups.append([])
        elif depth == 0 and token == ")":
            groups[-1].append(inner.pop())
            inner = [""]
            sides[-1] += "()"
        elif depth == 0 and token != "(":
            sides[-1] += token
        elif depth > 0:
            inner[-1] += token
        depth += token == "("
    return any(
        metrics_in(re.sub(r"[\w:]+\s*\(\)", "", side)) <= there and all(_has_result(group, there) for group in own)
        for side, own in zip(sides, groups, strict=True)
    )
