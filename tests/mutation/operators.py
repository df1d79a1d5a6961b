"""Small wrong changes of Python code, each the replacement of one node of the syntax tree.

Only code within functions is changed, and constants that a module assigns as plain numbers. Strings, annotations and
the defaults of parameters stay as they are.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}
_SWAPPED_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor"}

#: Keyword arguments that have a default, so that a call without them goes on.
_OPTIONAL_KEYWORDS = {"key", "default", "reverse", "strict", "start"}


@dataclass(frozen=True, slots=True)
class Mutation:
    """One change: `lines` are those of the statement that it is in, `name` the constant if it is outside functions."""

    kind: str
    function: str
    line: int
    lines: range
    before: str
    after: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class _Site:
    """A mutation as nodes of a tree. As text it is costly, and most are asked for one site only."""

    kind: str
    function: str
    lines: range
    place: _Place
    before: ast.AST
    after: ast.AST
    name: str | None = None

    def mutation(self) -> Mutation:
        line = self.before.lineno  # type: ignore[attr-defined]
        return Mutation(self.kind, self.function, line, self.lines, _head(self.before), _head(self.after), self.name)


@dataclass(frozen=True, slots=True)
class _Place:
    """A node in its parent, where another can be put."""

    parent: ast.AST
    field: str
    index: int | None

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


def mutations(source: str) -> list[Mutation]:
    """All mutations of a module, in the order of its code."""
    return [site.mutation() for site in _sites(ast.parse(source))]


def mutated(source: str, index: int) -> ast.Module:
    """The module with the mutation at this place of `mutations`."""
    tree = ast.parse(source)
    site = next(islice(_sites(tree), index, None))
    site.place.put(site.after)
    return ast.fix_missing_locations(tree)


def _sites(tree: ast.Module) -> Iterator[_Site]:
    for at, statement in enumerate(tree.body):
        name = _constant_name(statement)
        if name:
            yield from _expressions(_Place(statement, "value", None), name, _lines(statement), name)
        yield from _definitions(statement, "", _Place(tree, "body", at))


def _constant_name(statement: ast.stmt) -> str | None:
    """The name, where a statement gives a name a number or an expression of numbers."""
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return None
    target = statement.targets[0]
    plain = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.Tuple, ast.operator, ast.unaryop, ast.Load)
    inner = list(ast.walk(statement.value))
    if not isinstance(target, ast.Name) or not all(isinstance(node, plain) for node in inner):
        return None
    numbers = [node.value for node in inner if isinstance(node, ast.Constant)]
    return target.id if numbers and all(type(number) in (int, float) for number in numbers) else None


def _definitions(node: ast.AST, owner: str, place: _Place) -> Iterator[_Site]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        name = f"{owner}{node.name}"
        for at in range(len(node.body)):
            yield from _statements(_Place(node, "body", at), name)
    elif isinstance(node, ast.ClassDef):
        for at, statement in enumerate(node.body):
            yield from _definitions(statement, f"{owner}{node.name}.", _Place(node, "body", at))


def _statements(place: _Place, function: str) -> Iterator[_Site]:
    """The mutations of a statement, and of all that stand in it."""
    statement = _node(place)
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield from _definitions(statement, f"{function}.", place)
        return
    lines = _lines(statement)
    for kind, replacement in _of_statement(statement):
        yield _Site(kind, function, lines, place, statement, replacement)
    for field, value in ast.iter_fields(statement):
        if field in ("annotation", "targets", "target") or isinstance(statement, ast.Raise | ast.Assert):
            continue
        inner = value if isinstance(value, list) else [value]
        for at, child in enumerate(inner):
            below = _Place(statement, field, at if isinstance(value, list) else None)
            if isinstance(child, ast.stmt):
                yield from _statements(below, function)
            elif isinstance(child, ast.ExceptHandler | ast.match_case):
                for position in range(len(child.body)):
                    yield from _statements(_Place(child, "body", position), function)
            elif isinstance(child, ast.withitem):
                yield from _expressions(_Place(child, "context_expr", None), function, lines)
            elif isinstance(child, ast.expr):
                yield from _expressions(below, function, lines)


def _of_statement(statement: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    match statement:
        case ast.Expr(value=ast.Call() | ast.Yield() | ast.YieldFrom()):
            yield "removed call", ast.Pass()
        case ast.Return(value=value) if value is not None and not _is_none(value):
            yield "return None", ast.Return(value=ast.Constant(None))
        case ast.AugAssign(op=op) if type(op) in _ARITHMETIC:
            yield "arithmetic", _with(statement, op=_ARITHMETIC[type(op)]())
        case ast.If() | ast.While():
            yield "negated condition", _with(statement, test=ast.UnaryOp(ast.Not(), statement.test))
        case ast.Break():
            yield "loop", ast.Continue()
        case ast.Continue():
            yield "loop", ast.Break()


def _expressions(place: _Place, function: str, lines: range, name: str | None = None) -> Iterator[_Site]:
    """The mutations of an expression, and of all that stand in it."""
    expression = _node(place)
    if isinstance(expression, ast.JoinedStr):
        return
    for kind, replacement in _of_expression(expression):
        yield _Site(kind, function, lines, place, expression, replacement, name)
    for field, value in ast.iter_fields(expression):
        inner = value if isinstance(value, list) else [value]
        for at, child in enumerate(inner):
            below = _Place(expression, field, at if isinstance(value, list) else None)
            if isinstance(child, ast.expr):
                yield from _expressions(below, function, lines, name)
            elif isinstance(child, ast.keyword):
                yield from _expressions(_Place(child, "value", None), function, lines, name)
            elif isinstance(child, ast.comprehension):
                yield from _expressions(_Place(child, "iter", None), function, lines, name)
                for position, condition in enumerate(child.ifs):
                    there = _Place(child, "ifs", position)
                    negated = ast.UnaryOp(ast.Not(), condition)
                    yield _Site("negated condition", function, lines, there, condition, negated, name)
                    yield from _expressions(there, function, lines, name)


def _of_expression(expression: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    match expression:
        case ast.Compare(ops=ops):
            for at, op in enumerate(ops):
                for other in _COMPARISONS[type(op)]:
                    kind = "boundary" if {type(op), other} in ({ast.Lt, ast.LtE}, {ast.Gt, ast.GtE}) else "comparison"
                    yield kind, _with(expression, ops=[*ops[:at], other(), *ops[at + 1 :]])
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            if not _is_text(left) and not _is_text(right):
                yield "arithmetic", _with(expression, op=_ARITHMETIC[type(op)]())
        case ast.BoolOp(op=op, values=values):
            yield "and/or", _with(expression, op=ast.Or() if isinstance(op, ast.And) else ast.And())
            for at in range(len(values)):
                rest = [*values[:at], *values[at + 1 :]]
                yield "dropped operand", rest[0] if len(rest) == 1 else _with(expression, values=rest)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield "dropped operator", operand
        case ast.Constant(value=bool() | int() | float() as value):
            for other_value in _other_numbers(value):
                yield "constant", ast.Constant(other_value)
        case ast.IfExp(test=test):
            yield "negated condition", _with(expression, test=ast.UnaryOp(ast.Not(), test))
        case ast.Call(func=function, args=arguments, keywords=keywords):
            if isinstance(function, ast.Name) and function.id in _SWAPPED_CALLS:
                yield "swapped call", _with(expression, func=ast.Name(_SWAPPED_CALLS[function.id], ast.Load()))
            for at, keyword in enumerate(keywords):
                if keyword.arg in _OPTIONAL_KEYWORDS:
                    yield "dropped argument", _with(expression, keywords=[*keywords[:at], *keywords[at + 1 :]])
            if isinstance(function, ast.Attribute) and function.attr == "get" and len(arguments) == 2:
                yield "dropped argument", _with(expression, args=arguments[:1])
            if isinstance(function, ast.Name) and function.id in ("sorted", "reversed", "abs", "set") and arguments:
                yield "dropped call", arguments[0] if function.id != "sorted" else _listed(arguments[0])
        case ast.Slice(lower=lower, upper=upper):
            if lower is not None:
                yield "slice", _with(expression, lower=None)
            if upper is not None:
                yield "slice", _with(expression, upper=None)


def _other_numbers(value: bool | int | float) -> list[bool | int | float]:
    if isinstance(value, bool):
        return [not value]
    if value != int(value):
        return [value * 2, value / 2]
    kind = type(value)
    return (
        [kind(0), kind(2)] if value == 1 else [kind(1), kind(-1)] if value == 0 else [kind(value + 1), kind(value - 1)]
    )


def _lines(statement: ast.AST) -> range:
    """The lines of a statement; of one with a body those above it."""
    body = getattr(statement, "body", None)
    first, last = statement.lineno, statement.end_lineno or statement.lineno  # type: ignore[attr-defined]
    return range(first, max(first + 1, body[0].lineno)) if isinstance(body, list) and body else range(first, last + 1)


def _head(node: ast.AST) -> str:
    """A node as source; of a statement with a body the first line."""
    return ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).splitlines()[0]


def _node(place: _Place) -> ast.AST:
    found = getattr(place.parent, place.field)
    node: ast.AST = found if place.index is None else found[place.index]
    return node


def _with(node: ast.AST, **fields: Any) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _listed(node: ast.expr) -> ast.Call:
    return ast.Call(ast.Name("list", ast.Load()), [node], [])


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
