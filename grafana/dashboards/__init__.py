"""The dashboards: one file each, with a function `dashboard()`. Its JSON under generated/ has the same name."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module

from grafana_foundation_sdk.builders.dashboard import Dashboard


def dashboards() -> dict[str, Callable[[], Dashboard]]:
    """Return all dashboards' factories by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: import_module(f"{__name__}.{name}").dashboard for name in names}
