"""What the programs know, read from outside: recommendations, alerts, GPUs, Xids, leases."""

from __future__ import annotations

import re
from dataclasses import dataclass

from benchmarks.allocation_clients import PATH
from benchmarks.soak.stack import Stack

_KNOWN_GPU = re.compile(r'^gpu_up\{uuid="([^"]+)"\}', re.MULTILINE)
_XIDS = re.compile(r"^(gpu_xid_errors_total\{[^}]*\}) (\S+)$", re.MULTILINE)
_RECOMMENDATION = re.compile(
    r'^gpu_advisor_recommendation_since_timestamp_seconds\{id="([^"]+)"\} (\S+)$', re.MULTILINE
)
_HEALTH = re.compile(r"^gpu_advisor_(source_up|alertmanager_up|stale)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class AdvisorState:
    healthy: bool
    """Its source and the Alertmanager answer it, and nothing is stale."""

    since: dict[str, float]
    """Unix time by id of a recommendation."""


def advisor_state(stack: Stack) -> AdvisorState:
    """Raises OSError if it does not answer."""
    page = _page(stack, "advisor")
    health = {name: float(value) for name, value in _HEALTH.findall(page)}
    healthy = health == {"source_up": 1.0, "alertmanager_up": 1.0, "stale": 0.0}
    return AdvisorState(healthy, {id_: float(value) for id_, value in _RECOMMENDATION.findall(page)})


def known_gpus(page: str) -> list[str]:
    """The uuids on the exporter's page, also of GPUs that are down."""
    return _KNOWN_GPU.findall(page)


@dataclass(frozen=True)
class Knowledge:
    """What must survive a kill."""

    gpus: list[str]
    xids: dict[str, float]
    since: dict[str, float]
    """Unix time by id of a recommendation."""

    leases: set[str]


def knowledge(stack: Stack) -> Knowledge:
    """Raises OSError."""
    page = exporter_page(stack)
    leases = stack.advisor.document(f"{PATH}/allocations")["allocations"]
    return Knowledge(
        sorted(known_gpus(page)),
        {series: float(value) for series, value in _XIDS.findall(page)},
        advisor_state(stack).since,
        {lease["id"] for lease in leases},
    )


def lost(before: Knowledge, after: Knowledge, long_leases: set[str]) -> list[str]:
    """What was lost, changed or doubled. `long_leases` do not expire meanwhile, others may."""
    problems = [
        f"{id_} is active since {after.since[id_]}, before the kill since {at}"
        for id_, at in before.since.items()
        if after.since.get(id_, at) != at
    ]
    if not before.since.keys() & after.since.keys():
        problems.append("no recommendation was active before and after the kill: nothing was compared")
    if before.gpus != after.gpus:
        problems.append(f"GPUs known before the kill: {before.gpus}; after: {after.gpus}")
    problems += [
        f"{series} was {count:g} before the kill, and is {after.xids.get(series)}"
        for series, count in before.xids.items()
        if after.xids.get(series, 0.0) < count
    ]
    problems += [f"lease {id_} was lost" for id_ in sorted(long_leases - after.leases)]
    problems += [f"lease {id_} is new after the kill" for id_ in sorted(after.leases - before.leases)]
    return problems


def exporter_page(stack: Stack) -> str:
    """Raises OSError."""
    return _page(stack, "exporter")


def missing_alerts(stack: Stack, state: AdvisorState) -> set[str]:
    """Recommendations that the Alertmanager has no alert of. Raises OSError."""
    alerts = stack.alertmanager.document("/api/v2/alerts")
    return set(state.since) - {alert["labels"]["recommendation_id"] for alert in alerts}


def _page(stack: Stack, name: str) -> str:
    status, body = stack.under_test[name].request("GET", "/metrics")
    if status != 200:
        raise OSError(f"{name} answered {status}")
    return body.decode()
