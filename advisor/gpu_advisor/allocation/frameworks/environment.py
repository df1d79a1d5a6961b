"""Variables that a framework reads when it is imported: put in place before, or refused."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from gpu_advisor.allocation.frameworks.errors import AlreadyInitializedError, SettingsConflictError, UnknownNodeError

#: Of a variable that names visible devices: both values show none.
HIDE_ALL_VALUES = ("", "-1")


class _HasNodeName(Protocol):
    @property
    def node_name(self) -> str: ...


N = TypeVar("N", bound=_HasNodeName)


def settings_for_node(nodes: Iterable[N], name: str | None) -> N:
    """The part for `name`, or for this machine. On the CPU, which is no node, it is one for all. Raises
    UnknownNodeError."""
    every = {each.node_name: each for each in nodes}
    if "" in every:
        return every[""]
    if name is None:
        if len(every) == 1:
            return next(iter(every.values()))
        here = socket.gethostname()
        name = here if here in every else here.partition(".")[0]
    if name not in every:
        raise UnknownNodeError(
            f"{name!r} has no part in this allocation; say which node this is: node={' or '.join(map(repr, every))}"
        )
    return every[name]


def set_environment(variables: Mapping[str, str], module: str, aliases: Mapping[str, str] | None = None) -> None:
    """Set variables for a framework whose top module is `module`.

    `aliases`: other variables that the framework would heed instead of one of these. Raises AlreadyInitializedError where the
    module is imported already and would not see the change, SettingsConflictError where somebody has set one otherwise.
    """
    missing = {name: value for name, value in variables.items() if not _same_value(os.environ.get(name), value)}
    for name in missing:
        if name in os.environ:
            raise SettingsConflictError(
                f"{name} is {os.environ[name]!r} already, and this allocation needs {variables[name]!r}: if nothing "
                f"else depends on it, unset {name} before the program starts"
            )
    for other, name in (aliases or {}).items():
        if other in os.environ and os.environ[other] != variables.get(name):
            raise SettingsConflictError(
                f"{other} is {os.environ[other]!r}, which would be heeded instead of {name}={variables.get(name)!r}: "
                f"unset {other} before the program starts"
            )
    if missing and module in sys.modules:
        line = " ".join(f"{name}={value}" for name, value in sorted(missing.items()))
        raise AlreadyInitializedError(
            f"{module} is imported already and does not look at its environment again: apply these settings before "
            f"`import {module}`, or start the program with {line}"
        )
    os.environ.update(missing)


def _same_value(found: str | None, wanted: str) -> bool:
    return found == wanted or (found in HIDE_ALL_VALUES and wanted in HIDE_ALL_VALUES)
