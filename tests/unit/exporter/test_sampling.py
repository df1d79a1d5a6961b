"""A scrape never waits: hanging, failing and absent collectors, and what the page says of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

import pytest
from gpu_exporter import metrics
from gpu_exporter.devices.base import DriverUnavailable
from gpu_exporter.metrics import FamilySamples, MetricFamily, single_sample
from gpu_exporter.sampling import CollectorPage, CollectorTask, DeviceCache, DriverTask, Sampler
from gpu_exporter.snapshot import DeviceIdentity, DeviceReading, DriverState, MetricReading
from prometheus_client.parser import text_string_to_metric_families

from tests.polling import wait_until

LOAD = MetricFamily("node_load1", "gauge", "1m load average.")


class FakeDriver:
    """Two GPUs that answer, fail or hang as the test says."""

    vendor = "test"

    def __init__(self) -> None:
        self.problem: Exception | None = None
        self.free = threading.Event()
        self.free.set()

    def read(self) -> tuple[DeviceReading, ...]:
        self.free.wait()
        if self.problem:
            raise self.problem
        return tuple(
            DeviceReading(DeviceIdentity(f"GPU-{n}", str(n), "X", "test"), (MetricReading(metrics.UTILIZATION, 0.5),))
            for n in "01"
        )

    def close(self) -> None: ...


class FakeHost:
    def __init__(self) -> None:
        self.problem: Exception | None = None
        self.value = 1.0

    def collect(self) -> Iterable[FamilySamples]:
        if self.problem:
            raise self.problem
        self.value += 1
        return [single_sample(LOAD, self.value)]


Rows = dict[tuple[str, ...], float]


class SamplerHarness:
    def __init__(self, limit: float = 0.15) -> None:
        self.driver, self.host = FakeDriver(), FakeHost()
        board = DeviceCache("node-1")
        page = CollectorPage(self.host)
        tasks = [DriverTask("test", self.driver, board, 0.02, limit)]
        self.sampler = Sampler(board, tasks, [(CollectorTask("loadavg", page.run, 0.02, limit), page)])
        self.sampler.start(2.0)

    def rows(self, name: str) -> Rows:
        families = text_string_to_metric_families(self.sampler.page().decode())
        return {
            tuple(value for _, value in sorted(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
            if sample.name == name
        }

    def until(self, what: Callable[[], bool]) -> None:
        wait_until(what, "the sampler serves it", interval_seconds=0.01)


@pytest.fixture
def stand() -> Iterator[SamplerHarness]:
    stand = SamplerHarness()
    yield stand
    stand.driver.free.set()
    stand.sampler.stop()


def test_the_first_page_is_whole(stand: SamplerHarness) -> None:
    assert stand.rows("gpu_up") == {("GPU-0",): 1, ("GPU-1",): 1}
    assert stand.rows("gpu_utilization_ratio") == {("GPU-0",): 0.5, ("GPU-1",): 0.5}
    assert stand.rows("gpu_exporter_driver_info") == {("test", "ok"): 1}
    assert stand.rows("node_load1")
    assert set(stand.rows("gpu_exporter_collector_success")) == {("test",), ("loadavg",)}


def test_a_hanging_driver_is_reported_and_the_rest_goes_on(stand: SamplerHarness) -> None:
    stand.driver.free.clear()
    stand.until(lambda: stand.rows("gpu_up") == {("GPU-0",): 0, ("GPU-1",): 0})
    page = stand.sampler.page()  # would never return if it waited for the driver
    assert b'gpu_down_info{uuid="GPU-0",reason="hung"} 1' in page
    assert b"gpu_utilization_ratio{" not in page  # what it last said is no longer true
    assert stand.rows("gpu_exporter_driver_info") == {("test", "hung"): 1}
    assert stand.rows("gpu_exporter_collector_success")["test",] == 0
    before = stand.rows("node_load1")[()]
    stand.until(lambda: stand.rows("node_load1")[()] > before)

    stand.driver.free.set()  # it recovers by itself
    stand.until(lambda: stand.rows("gpu_up") == {("GPU-0",): 1, ("GPU-1",): 1})
    assert stand.rows("gpu_exporter_driver_info") == {("test", "ok"): 1}


def test_a_driver_with_a_defect_keeps_the_identities_and_no_values(stand: SamplerHarness) -> None:
    stand.driver.problem = RuntimeError("odd")
    stand.until(lambda: stand.rows("gpu_exporter_driver_info") == {("test", "failed"): 1})
    assert stand.rows("gpu_up") == {("GPU-0",): 0, ("GPU-1",): 0}
    assert stand.rows("gpu_utilization_ratio") == {}
    assert {labels[-1] for labels in stand.rows("gpu_info")} == {"test"}
    stand.driver.problem = None
    stand.until(lambda: stand.rows("gpu_up") == {("GPU-0",): 1, ("GPU-1",): 1})


def test_an_absent_driver_is_no_failure() -> None:
    board, driver = DeviceCache("n"), FakeDriver()
    driver.problem = DriverUnavailable(DriverState.ABSENT, "not installed")
    task = DriverTask("test", driver, board, 0.02, 1)
    assert task.collect_once() == 30.0  # looked for again later
    assert task.health.success
    assert board.page(frozenset()).decode().splitlines()[-1] == (
        'gpu_exporter_driver_info{driver="test",state="absent"} 1'
    )


def test_a_failing_host_collector_serves_nothing_old(stand: SamplerHarness) -> None:
    stand.host.problem = OSError("gone")
    stand.until(lambda: stand.rows("node_load1") == {})
    assert stand.rows("gpu_exporter_collector_success")["loadavg",] == 0
    last = stand.rows("gpu_exporter_collector_last_success_timestamp_seconds")["loadavg",]
    assert 1.7e9 < last <= time.time()
    stand.host.problem = None
    stand.until(lambda: stand.rows("gpu_exporter_collector_success")["loadavg",] == 1)


def test_a_driver_is_let_go_of_when_asked_and_taken_again(
    monkeypatch: pytest.MonkeyPatch, stand: SamplerHarness
) -> None:
    closed = threading.Event()
    monkeypatch.setattr(stand.driver, "close", closed.set)
    monkeypatch.setattr("gpu_exporter.sampling.RELEASE_DURATION_SECONDS", 0.3)
    stand.sampler.release_drivers()
    assert closed.is_set()  # before it returned
    assert stand.rows("gpu_up") == {("GPU-0",): 0, ("GPU-1",): 0}
    assert b'gpu_down_info{uuid="GPU-0",reason="released"} 1' in stand.sampler.page()
    assert stand.rows("gpu_exporter_driver_info") == {("test", "released"): 1}
    stand.until(lambda: stand.rows("gpu_up") == {("GPU-0",): 1, ("GPU-1",): 1})


class FrequentSamplingDriver(FakeDriver):
    """Wants to be looked at more often than it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def sampling_interval_seconds(self) -> float | None:
        return 0.01

    def sample(self) -> None:
        self.free.wait()
        self.looks += 1


def test_a_driver_is_sampled_between_its_readings_and_a_hang_there_is_seen() -> None:
    board, driver = DeviceCache("n"), FrequentSamplingDriver()
    task = DriverTask("test", driver, board, 0.5, 0.1)
    task.start()
    assert task.first_run_done.wait(60)
    wait_until(lambda: driver.looks >= 10, "ten samples")
    wait_until(lambda: not task.is_overdue(), "not overdue")
    driver.free.clear()
    wait_until(task.is_overdue, "overdue while the driver hangs")
    driver.free.set()
    wait_until(lambda: not task.is_overdue(), "no longer overdue")
    task.stop()
