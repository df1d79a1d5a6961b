"""The checked-in dashboards, and their queries as Grafana would send them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GENERATED = Path(__file__).resolve().parents[2] / "grafana" / "generated"
WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset", "inf"}

Board = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """One query of a dashboard. `where` is the panel's title and the query's letter, or what else asks."""

    dashboard: str
    where: str
    expr: str
    instant: bool = True

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.where}"


def boards() -> dict[str, Board]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(GENERATED.glob("*.json"))}


def panels(board: Board) -> Iterator[Board]:
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", [])


def variables(board: Board, kind: str = "query") -> list[Board]:
    return [each for each in board["templating"]["list"] if each["type"] == kind]


def annotations(board: Board) -> list[Board]:
    found: list[Board] = board["annotations"].get("list", [])
    return found


def queries() -> list[Query]:
    """Those of panels and annotations, with the names of variables in them."""
    found = []
    for name, board in boards().items():
        for panel in panels(board):
            for target in panel.get("targets", []):
                where = f"{panel['title']} ({target['refId']})"
                found.append(Query(name, where, target["expr"], bool(target.get("instant"))))
        for annotation in annotations(board):
            if annotation.get("expr"):
                found.append(Query(name, f"annotation {annotation['name']}", annotation["expr"]))
    return found


def asked_for(variable: Board) -> tuple[str, str]:
    """(selector, label) of a variable's query; of one that goes by answers' text, the label that is its value."""
    query = variable["query"]
    if values := re.fullmatch(r"label_values\((.+), (\w+)\)", query):
        return values[1], values[2]
    whole = re.fullmatch(r"query_result\((.+)\)", query)
    value = re.search(r'(\w+)="\(\?<value>', variable["regex"])
    assert whole, query
    assert value, variable["regex"]
    return whole[1], value[1]


def filled(expr: str, values: Mapping[str, str]) -> str:
    """The query with the variables' values in it, named as in Grafana: `nodename`, `__range`, `__rate_interval`."""
    for name, value in sorted(values.items(), key=lambda pair: -len(pair[0])):
        expr = expr.replace(f"${name}", value)
    return expr


def chosen(board: Board, single: Mapping[str, str]) -> dict[str, str]:
    """The variables' values where everything is chosen; `single` are those of which only one can be."""
    return {each["name"]: each.get("allValue") or single[each["name"]] for each in variables(board)}


def metrics_in(query: str) -> set[str]:
    """The metric names in a PromQL query."""
    text = re.sub(r'"(?:[^"\\]|\\.)*"', "", query)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", text)
    text = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", text)
    return set(re.findall(r"(?<![\w.$])([a-zA-Z_:][\w:]*)\b(?!\s*\()", text)) - WORDS


def answerable(query: str, there: set[str]) -> bool:
    """Whether a query can have a result where there are series of these names: one side of an `or` is enough."""
    return any(metrics_in(side) <= there for side in _sides(query))


def _sides(query: str) -> list[str]:
    """What stands on both sides of each `or` that is in no brackets."""
    sides, depth = [""], 0
    for token in re.split(r'("(?:[^"\\]|\\.)*"|[()]|\bor\b)', query):
        depth += (token == "(") - (token == ")")
        if token == "or" and depth == 0:
            sides.append("")
        else:
            sides[-1] += token
    return sides
