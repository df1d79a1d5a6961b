"""Sets environment variables that a framework reads on import, or refuses if that is too late."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable, Mapping

from gpu_advisor.allocation.frameworks.errors import AlreadyInitializedError, SettingsConflictError, UnknownNodeError
from gpu_advisor.allocation.frameworks.visible_devices import NodeSettings

#: Values of a visible-devices variable that hide all devices.
HIDE_ALL_VALUES = ("", "-1")


def settings_for_node(nodes: Iterable[NodeSettings], name: str | None) -> NodeSettings:
    """The settings of node `name`, by default this host. A CPU allocation has one for all. Raises UnknownNodeError."""
    by_name = {each.node_name: each for each in nodes}
    if "" in by_name:
        return by_name[""]
    if name is None:
        if len(by_name) == 1:
            return next(iter(by_name.values()))
        hostname = socket.gethostname()
        name = hostname if hostname in by_name else hostname.partition(".")[0]
    if name not in by_name:
        raise UnknownNodeError(
            f"{name!r} is not in this allocation; pass this node's name: node={' or '.join(map(repr, by_name))}"
        )
    return by_name[name]


def set_environment(variables: Mapping[str, str], module: str | None, aliases: Mapping[str, str] | None = None) -> None:
    """Set variables for the framework with top module `module`; None: it reads them later than on import.

    `aliases`: variables that take precedence in the framework -> the variable that they override. Raises
    AlreadyInitializedError if the module is already imported, SettingsConflictError if a variable has another value.
    """
    missing = {name: value for name, value in variables.items() if not _same_value(os.environ.get(name), value)}
    for name in missing:
        if name in os.environ:
            raise SettingsConflictError(
                f"{name} is already {os.environ[name]!r}, and this allocation needs {variables[name]!r}: if nothing "
                f"else depends on it, unset {name} before starting the program"
            )
    for other, name in (aliases or {}).items():
        if other in os.environ and os.environ[other] != variables.get(name):
            raise SettingsConflictError(
                f"{other} is {os.environ[other]!r}, which takes precedence over {name}={variables.get(name)!r}: "
                f"unset {other} before starting the program"
            )
    if missing and module in sys.modules:
        line = " ".join(f"{name}={value}" for name, value in sorted(missing.items()))
        raise AlreadyInitializedError(
            f"{module} is already imported and does not read its environment again: apply these settings before "
            f"`import {module}`, or start the program with {line}"
        )
    os.environ.update(missing)


def _same_value(found: str | None, wanted: str) -> bool:
    return found == wanted or (found in HIDE_ALL_VALUES and wanted in HIDE_ALL_VALUES)
