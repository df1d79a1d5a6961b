"""One node at one time, from its exporter's metrics: GPUs, their owners, and the host. Pure.

Counters are turned into rates between two scrapes. A missing sample is None, never zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ExporterScrape:
    """Samples by name and labels, and when they were scraped (seconds, monotonic clock)."""

    at: float
    samples: Mapping[str, Mapping[Labels, float]]

    def family_samples(self, name: str) -> Mapping[Labels, float]:
        return self.samples.get(name, {})

    def values_by_gpu(self, name: str) -> dict[str, float]:
        return {
            dict(labels)["uuid"]: value for labels, value in self.family_samples(name).items() if "uuid" in dict(labels)
        }

    def first_value(self, name: str) -> float | None:
        return next(iter(self.family_samples(name).values()), None)


@dataclass(frozen=True, slots=True)
class GpuSnapshot:
    """`utilization_ratio` is the mean since the previous scrape; without one, the driver's last sample.

    `performance_state` is 0 (fastest) to 15.
    """

    uuid: str
    index: str
    name: str
    up: bool
    why_down: str
    utilization_ratio: float | None
    memory_used_bytes: float | None
    memory_total_bytes: float | None
    power_watts: float | None
    power_limit_watts: float | None
    temperature_celsius: float | None
    fan_speed_ratio: float | None
    sm_clock_hertz: float | None
    performance_state: int | None
    processes: int | None
    held_back_by: tuple[str, ...]
    owners: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HostSnapshot:
    cpu_ratio: float | None
    cores: int | None
    load1: float | None
    memory_used_bytes: float | None
    memory_total_bytes: float | None
    disk_busy_ratio: float | None
    receive_bytes_per_second: float | None
    transmit_bytes_per_second: float | None


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    name: str
    simulated: bool
    drivers: Mapping[str, str]
    gpus: tuple[GpuSnapshot, ...]
    host: HostSnapshot
    silent: tuple[str, ...] = field(default=())  # collectors whose last reading failed


def take_snapshot(now: ExporterScrape, before: ExporterScrape | None = None) -> NodeSnapshot:
    """The node's state at `now`, with rates since `before`."""
    name = next((dict(labels).get("nodename", "") for labels in now.family_samples("node_uname_info")), "")
    gpus = tuple(sorted(_gpus(now, before), key=lambda gpu: (gpu.index.zfill(6), gpu.uuid)))
    drivers = {dict(labels).get("driver", ""): dict(labels).get("state", "")
               for labels in now.family_samples("gpu_exporter_driver_info")}  # fmt: skip
    failed = tuple(
        sorted(
            dict(labels).get("collector", "")
            for labels, value in now.family_samples("gpu_exporter_collector_success").items()
            if value == 0
        )
    )
    return NodeSnapshot(
        name, bool(now.family_samples("gpu_exporter_simulated_info")), drivers, gpus, _host(now, before), failed
    )


def _gpus(now: ExporterScrape, before: ExporterScrape | None) -> Iterable[GpuSnapshot]:
    up, gauge = now.values_by_gpu("gpu_up"), now.values_by_gpu("gpu_utilization_ratio")
    used, total = now.values_by_gpu("gpu_memory_used_bytes"), now.values_by_gpu("gpu_memory_total_bytes")
    power, limit = now.values_by_gpu("gpu_power_watts"), now.values_by_gpu("gpu_power_limit_watts")
    temperature, fan = now.values_by_gpu("gpu_temperature_celsius"), now.values_by_gpu("gpu_fan_speed_ratio")
    clock, state = now.values_by_gpu("gpu_sm_clock_hertz"), now.values_by_gpu("gpu_performance_state")
    processes = now.values_by_gpu("gpu_processes")
    reasons = {
        dict(labels).get("uuid"): dict(labels).get("reason", "") for labels in now.family_samples("gpu_down_info")
    }
    busy = _utilization(now, before)
    for labels in now.family_samples("gpu_info"):
        each = dict(labels)
        uuid = each.get("uuid", "")
        yield GpuSnapshot(
            uuid, each.get("index", ""), each.get("name", ""), up.get(uuid) == 1, reasons.get(uuid, ""),
            busy.get(uuid, gauge.get(uuid)), used.get(uuid), total.get(uuid), power.get(uuid), limit.get(uuid),
            temperature.get(uuid), fan.get(uuid), clock.get(uuid), _whole(state.get(uuid)), _whole(processes.get(uuid)),
            _throttle_reasons(now, uuid), _owners(now, uuid),
        )  # fmt: skip


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _utilization(now: ExporterScrape, before: ExporterScrape | None) -> dict[str, float]:
    """Busy time over observed time between the scrapes; not for a GPU whose counters were reset."""
    if before is None:
        return {}
    busy, observed = (_increase(now.values_by_gpu(name), before.values_by_gpu(name))
                      for name in ("gpu_busy_seconds_total", "gpu_observed_seconds_total"))  # fmt: skip
    return {uuid: min(1.0, busy[uuid] / seen) for uuid, seen in observed.items() if seen > 0 and uuid in busy}


def _increase(now: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {key: value - before[key] for key, value in now.items() if key in before and value >= before[key]}


def _throttle_reasons(page: ExporterScrape, uuid: str) -> tuple[str, ...]:
    active = page.family_samples("gpu_throttle_active").items()
    found = (dict(labels) for labels, value in active if value == 1)
    return tuple(sorted(each.get("reason", "") for each in found if each.get("uuid") == uuid))


def _owners(page: ExporterScrape, uuid: str) -> tuple[str, ...]:
    """Each by its most specific name: pod, unit, container or user, and the training job."""
    found: dict[str, None] = {}
    for labels in page.family_samples("gpu_owner_info"):
        each = dict(labels)
        if each.get("uuid") == uuid:
            pod = "/".join(filter(None, (each.get("owner_namespace"), each.get("owner_pod"))))
            names = (pod, each.get("owner_unit"), each.get("owner_container"), each.get("owner_user"))
            job = each.get("training_job")
            label_parts = (next(filter(None, names), ""), f"job {job}" if job else "")
            found[", ".join(filter(None, label_parts)) or each.get("owner_kind", "")] = None
    return tuple(found)


def _host(now: ExporterScrape, before: ExporterScrape | None) -> HostSnapshot:
    total, available = now.first_value("node_memory_MemTotal_bytes"), now.first_value("node_memory_MemAvailable_bytes")
    cores = {dict(labels).get("cpu") for labels in now.family_samples("node_cpu_seconds_total")}
    disks = _rates(now, before, "node_disk_io_time_seconds_total")
    received, sent = (
        [rate for labels, rate in _rates(now, before, f"node_network_{way}_bytes_total").items()
         if dict(labels).get("device") != "lo"]
        for way in ("receive", "transmit")
    )  # fmt: skip
    return HostSnapshot(
        _cpu(now, before), len(cores) or None, now.first_value("node_load1"),
        None if total is None or available is None else total - available, total,
        min(1.0, max(disks.values())) if disks else None, sum(received) if received else None,
        sum(sent) if sent else None,
    )  # fmt: skip


def _cpu(now: ExporterScrape, before: ExporterScrape | None) -> float | None:
    grown = _rates(now, before, "node_cpu_seconds_total")
    whole = sum(grown.values())
    idle = sum(rate for labels, rate in grown.items() if dict(labels).get("mode") in ("idle", "iowait"))
    return None if whole <= 0 else 1 - idle / whole


def _rates(now: ExporterScrape, before: ExporterScrape | None, name: str) -> dict[Labels, float]:
    if before is None or now.at <= before.at:
        return {}
    former = before.family_samples(name)
    return {
        labels: (value - former[labels]) / (now.at - before.at)
        for labels, value in now.family_samples(name).items()
        if labels in former and value >= former[labels]
    }
