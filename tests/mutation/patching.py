"""Puts a mutated module in force in a running process, for all who have imported from it already."""

from __future__ import annotations

import ast
import functools
import gc
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

from tests.mutation.core import module_name, relative
from tests.mutation.operators import Mutation, mutated, mutations

_Key = tuple[int, str, int]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mutation of one file; `index` is its place in `mutations`."""

    path: Path
    index: int
    mutation: Mutation

    def __str__(self) -> str:
        change = self.mutation
        return f"{relative(self.path)}:{change.line} {change.function}: `{change.before}` -> `{change.after}`"


class Target:
    """A module of the core in this process: its source, its functions, and who uses its constants."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = path.read_text()
        self.module = importlib.import_module(module_name(path))
        self._original = _codes(compile(self.source, str(path), "exec"))
        self._functions: dict[CodeType, list[FunctionType]] = {}

    def add(self, function: FunctionType) -> None:
        self._functions.setdefault(function.__code__, []).append(function)

    def mutants(self) -> list[Mutant]:
        return [Mutant(self.path, index, mutation) for index, mutation in enumerate(mutations(self.source))]

    def apply(self, mutant: Mutant) -> None:
        """Puts a mutant in force, until the process ends."""
        tree = mutated(self.source, mutant.index)
        if mutant.mutation.name is not None:
            self._assign(mutant.mutation.name, _value(tree, mutant.mutation.name))
            return
        for function, code in self._changed(tree):
            function.__code__ = code

    def can_apply(self, mutant: Mutant) -> bool:
        """Not if it compiles to the same code, or changes what is computed at import."""
        tree = mutated(self.source, mutant.index)
        name = mutant.mutation.name
        if name is not None:
            return name in vars(self.module) and _value(tree, name) != vars(self.module)[name]
        pairs = list(self._changed(tree))
        return bool(pairs) and all(one.__code__.co_freevars == code.co_freevars for one, code in pairs)

    def _changed(self, tree: ast.Module) -> Iterator[tuple[FunctionType, CodeType]]:
        """The functions of this process whose code a mutated module changes, with that code."""
        for key, code in _codes(compile(tree, str(self.path), "exec")).items():
            before = self._original.get(key)
            if before is not None and before != code:
                for function in self._functions.get(before, ()):
                    yield function, code

    def _assign(self, name: str, value: object) -> None:
        before = vars(self.module)[name]
        for module in list(sys.modules.values()):
            if isinstance(module, ModuleType) and vars(module).get(name) is before:
                setattr(module, name, value)


def load_targets(paths: list[Path]) -> list[Target]:
    """Imports the core, and finds its functions in this process wherever they are."""
    targets = [Target(path) for path in paths]
    by_file = {str(target.path): target for target in targets}
    for found in gc.get_objects():
        if type(found) is FunctionType and found.__code__.co_filename in by_file:
            by_file[found.__code__.co_filename].add(found)
    return targets


def clear_caches() -> None:
    """Clear the caches of the core. `isinstance` would ask lazy proxies of other packages, which then warn."""
    for found in gc.get_objects():
        if type(found) is functools._lru_cache_wrapper and str(found.__module__).startswith("gpu_"):
            found.cache_clear()


def _codes(code: CodeType) -> dict[_Key, CodeType]:
    """All code in a module, by first line, name and number there."""
    found: dict[_Key, CodeType] = {}
    waiting = [code]
    while waiting:
        each = waiting.pop()
        number = 0
        while (each.co_firstlineno, each.co_name, number) in found:
            number += 1
        found[(each.co_firstlineno, each.co_name, number)] = each
        waiting.extend(inner for inner in each.co_consts if isinstance(inner, CodeType))
    return found


def _value(tree: ast.Module, name: str) -> object:
    """The value of a constant of a mutated module."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name:
            return eval(compile(ast.Expression(statement.value), "constant", "eval"))
    raise LookupError(name)


def constant_users(name: str, module: str, sources: dict[Path, str]) -> dict[Path, set[int]] | None:
    """The lines within functions that read a module's constant; None where something outside of functions does too.

    Such a value is computed at import, and does not change with the constant.
    """
    found: dict[Path, set[int]] = {}
    for path, source in sources.items():
        if name not in source:
            continue
        tree = ast.parse(source)
        if module_name(path) != module and not _imports(tree, name, module):
            continue
        inside = {id(node) for each in _functions(tree) for part in each.body for node in ast.walk(part)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load):
                if id(node) not in inside:
                    return None
                found.setdefault(path, set()).add(node.lineno)
    return found


def _imports(tree: ast.Module, name: str, module: str) -> bool:
    return any(
        isinstance(node, ast.ImportFrom) and node.module == module and any(each.name == name for each in node.names)
        for node in ast.walk(tree)
    )


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
