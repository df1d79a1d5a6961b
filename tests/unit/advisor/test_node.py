"""What `top` makes of an exporter's pages."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from gpu_advisor.commands.node_snapshot import ExporterScrape, Labels, take_snapshot
from gpu_advisor.commands.top import lines

GPU = (("uuid", "a"),)


def page(at: float, **samples: Mapping[Labels, float] | float) -> ExporterScrape:
    """A page with one GPU that is up; a number is a sample of that GPU, or of none for families of the host."""
    info = (("index", "0"), ("name", "H100"), ("uuid", "a"))
    found: dict[str, Mapping[Labels, float]] = {"gpu_info": {info: 1.0}, "gpu_up": {GPU: 1.0}}
    for name, value in samples.items():
        found[name] = {() if name.startswith("node") else GPU: value} if isinstance(value, float) else value
    return ExporterScrape(at, found)


def test_what_is_missing_is_unknown_and_never_zero() -> None:
    now = take_snapshot(page(10.0), page(0.0))
    [gpu] = now.gpus
    assert (gpu.up, gpu.utilization_ratio, gpu.memory_used_bytes, gpu.processes) == (True, None, None, None)
    assert {getattr(now.host, name) for name in now.host.__slots__} == {None}
    assert " 0" not in "".join(lines(now)).replace("  0  ", "")


@pytest.mark.parametrize(
    ("before", "now", "utilization"),
    [
        ((10.0, 10.0), (12.5, 15.0), 0.5),
        ((10.0, 10.0), (10.0, 15.0), 0.0),
        ((10.0, 10.0), (15.1, 15.0), 1.0),  # two counters are read one after the other
        ((10.0, 10.0), (2.0, 3.0), 0.7),  # counters were reset: the driver's own value counts
        ((10.0, 10.0), (10.0, 10.0), 0.7),  # nothing was observed meanwhile
    ],
)
def test_utilization_is_the_mean_between_two_pages(
    before: tuple[float, float], now: tuple[float, float], utilization: float
) -> None:
    first, then = (
        page(float(at), gpu_busy_seconds_total=busy, gpu_observed_seconds_total=seen, gpu_utilization_ratio=0.7)
        for at, (busy, seen) in enumerate((before, now))
    )
    assert take_snapshot(then, first).gpus[0].utilization_ratio == utilization
    assert take_snapshot(then).gpus[0].utilization_ratio == 0.7


def test_the_host() -> None:
    def host(at: float, idle: float, user: float, sent: float) -> ExporterScrape:
        cpu: dict[Labels, float] = {(("cpu", "0"), ("mode", "idle")): idle, (("cpu", "0"), ("mode", "user")): user}
        network: dict[Labels, float] = {(("device", "eth0"),): sent, (("device", "lo"),): sent * 9}
        return page(
            at, node_cpu_seconds_total=cpu, node_network_transmit_bytes_total=network, node_memory_MemTotal_bytes=100.0,
            node_memory_MemAvailable_bytes=40.0,
        )  # fmt: skip

    found = take_snapshot(host(10.0, 8.0, 4.0, 900.0), host(0.0, 0.0, 2.0, 400.0)).host
    assert found.cpu_ratio == pytest.approx(0.2)
    assert found.cores == 1
    assert (found.memory_used_bytes, found.transmit_bytes_per_second) == (60.0, 50.0)
    assert found.receive_bytes_per_second is None


def test_who_uses_it_and_what_holds_it_back() -> None:
    owners = {
        (("owner_namespace", "ml"), ("owner_pod", "run-1"), ("training_job", "run"), ("uuid", "a")): 1.0,
        (("owner_kind", "user"), ("owner_user", "ada"), ("uuid", "a")): 1.0,
        (("owner_user", "eve"), ("uuid", "b")): 1.0,
    }
    throttled: dict[Labels, float] = {
        (("reason", "hw_thermal"), ("uuid", "a")): 1.0,
        (("reason", "sync_boost"), ("uuid", "a")): 0.0,
    }
    [gpu] = take_snapshot(page(1.0, gpu_owner_info=owners, gpu_throttle_active=throttled)).gpus
    assert gpu.owners == ("ml/run-1, job run", "ada")
    assert gpu.held_back_by == ("hw_thermal",)


def test_a_gpu_that_is_down_says_why() -> None:
    reason: dict[Labels, float] = {(("reason", "fell_off\nthe bus"), ("uuid", "a")): 1.0}
    down = take_snapshot(page(1.0, gpu_up=0.0, gpu_down_info=reason, gpu_utilization_ratio=0.0))
    assert [line for line in lines(down) if "down: fell off?the bus" in line]
    assert "%" not in [*lines(down)][-1]
