"""What `gpu-advisor doctor` concludes from what it found, with a fix for each problem. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The state of one part. `fix` is empty if nothing is broken."""

    part: str
    status: Status
    message: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply of a server: its HTTP status (None: unreachable, with `error` as the reason) and its JSON body."""

    status: int | None
    body: object = None
    error: str = ""

    @property
    def ok(self) -> bool:
        return self.status == 200


@dataclass(frozen=True, slots=True)
class DeviceFile:
    """A device file of a GPU driver, and whether this user may open it."""

    path: str
    accessible: bool


def devices(files: Sequence[DeviceFile]) -> Finding:
    """Driver and permissions on this machine, by the device files that the driver creates."""
    if not files:
        return Finding(
            "driver",
            "warning",
            "no device file of a GPU driver on this machine",
            "install the driver; on a machine without GPUs, give a node: --exporter http://NODE:9816",
        )
    refused = [each.path for each in files if not each.accessible]
    if refused:
        return Finding(
            "driver",
            "failed",
            f"this user may not open {', '.join(refused)}",
            "add the user to the group that owns it (video, render), or run the exporter as root",
        )
    count = f"{len(files)} device file{'' if len(files) == 1 else 's'}"
    return Finding("driver", "ok", f"{count}, the first {files[0].path}")


#: What to do about a driver's state, as in gpu_exporter_driver_info.
_DRIVER_FIXES: Mapping[str, str] = {
    "no_permission": "run the exporter as root, or add its user to the groups video and render",
    "failed": "see the exporter's log for the driver's error; reboot if library and kernel module differ in version",
    "hung": "the driver does not return: see `dmesg` for Xid errors, drain the node and reboot it",
    "released": "the exporter released the driver on request: acquire it again, or restart the exporter",
}


def exporter(url: str, reply: Reply, drivers: Mapping[str, str], gpus: int) -> Iterator[Finding]:
    """An exporter, and the drivers and GPUs that it reports."""
    if not reply.ok:
        yield Finding(
            "exporter",
            "failed",
            _reason(reply),
            "run `gpu-exporter` (or `gpu-advisor up`) on the node, or give its address: --exporter URL",
        )
        return
    yield Finding("exporter", "ok", f"up at {url}")
    present = {name: state for name, state in drivers.items() if state != "absent"}
    for name, state in sorted(present.items()):
        if state != "ok":
            yield Finding(
                f"{name} driver",
                "failed",
                state.replace("_", " "),
                _DRIVER_FIXES.get(state, "see the exporter's log for the driver's error"),
            )
    if gpus:
        yield Finding("GPUs", "ok", f"{gpus} reported")
    elif not any(state != "ok" for state in present.values()):
        yield Finding(
            "GPUs",
            "warning",
            "the exporter reports no GPU",
            "install the GPU's driver there, or try it without a GPU: gpu-exporter --simulate 8xH100-80GB",
        )


def prometheus(url: str, reply: Reply) -> Finding:
    if not reply.ok:
        return Finding(
            "Prometheus",
            "failed",
            f"no Prometheus API at {url}: {_reason(reply)}",
            _fix(reply, "check the URL (with its port and path prefix), and that no firewall blocks it"),
        )
    return Finding("Prometheus", "ok", f"up at {url}")


def targets(reply: Reply) -> Finding:
    """Whether Prometheus scrapes an exporter of GPUs. `reply`: of a query that counts GPU series by metric name."""
    found = dict(_query_result(reply))
    if not found:
        return Finding(
            "scrape targets",
            "failed",
            "Prometheus has no GPU metrics",
            "add the exporters to scrape_configs (docs/install.md), or set serviceMonitor in the chart",
        )
    return Finding("scrape targets", "ok", ", ".join(f"{count:g} series of {name}" for name, count in found.items()))


def rules(names: Iterable[str]) -> Finding:
    """Recording rules make dashboards and long windows fast; the advisor works without."""
    if any(name.startswith("gpu:") for name in names):
        return Finding("recording rules", "ok", "loaded")
    return Finding(
        "recording rules",
        "warning",
        "Prometheus has none of gpu-advisor's",
        "gpu-advisor rules > gpu-advisor.rules.yml, and add the file to rule_files",
    )


def rule_names(reply: Reply) -> set[str]:
    """Names of the rules of a response of /api/v1/rules."""
    return {
        str(rule.get("name"))
        for group in _dicts(reply, "groups")
        for rule in (group["rules"] if isinstance(group.get("rules"), list) else [])
        if isinstance(rule, dict)
    }


def server(part: str, url: str, reply: Reply, option: str, field: str) -> Finding:
    """Alertmanager or Grafana: up, or not. `field` is in the status of no other server."""
    if not url:
        return Finding(part, "skipped", f"not checked: give {option} URL")
    fix = _fix(reply, "check that it runs, its URL, its port and its path prefix")
    if not reply.ok:
        return Finding(part, "failed", f"none at {url}: {_reason(reply)}", fix)
    if not isinstance(reply.body, dict) or field not in reply.body:
        return Finding(part, "failed", f"another server responds at {url}", fix)
    return Finding(part, "ok", f"up at {url}")


def _reason(reply: Reply) -> str:
    return reply.error or f"HTTP {reply.status}"


def _fix(reply: Reply, otherwise: str) -> str:
    """How to fix a server's reply."""
    if reply.status in (401, 403):
        return "it needs a login: set it in the settings, and give the file as --config"
    if reply.error == "SSLError":
        return "its certificate is not trusted: give its CA as --ca-file, or as ca_file in the settings and --config"
    return otherwise


def _query_result(reply: Reply) -> Iterator[tuple[str, float]]:
    """Name and value of each series of a query's response; without what is no series."""
    for each in _dicts(reply, "result"):
        metric, value = each.get("metric"), each.get("value")
        if isinstance(metric, dict) and isinstance(value, list) and len(value) == 2:
            with suppress(TypeError, ValueError):
                yield str(metric.get("__name__", "")), float(value[1])


def _dicts(reply: Reply, field: str) -> Iterator[dict[str, Any]]:
    """The objects in a list of a response's data: whatever answers may be no Prometheus."""
    data = reply.body.get("data") if reply.ok and isinstance(reply.body, dict) else None
    found = data.get(field) if isinstance(data, dict) else None
    yield from (each for each in (found if isinstance(found, list) else []) if isinstance(each, dict))
