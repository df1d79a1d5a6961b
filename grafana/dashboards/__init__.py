"""The dashboards: one file each with a function `dashboard()`. The file's name is that of its JSON under generated/."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module

from grafana_foundation_sdk.builders.dashboard import Dashboard


def dashboards() -> dict[str, Callable[[], Dashboard]]:
    """All that there are, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: import_module(f"{__name__}.{name}").dashboard for name in names}
