"""The dashboards: one file each, one line here. A dashboard's name is its file under generated/."""

from __future__ import annotations

from collections.abc import Callable

from grafana_foundation_sdk.builders.dashboard import Dashboard

from grafana.dashboards import fleet

DASHBOARDS: dict[str, Callable[[], Dashboard]] = {
    "fleet": fleet.dashboard,
}
