"""A scrape never waits: hung, failing and absent collectors, and how the page reports them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

import pytest
from gpu_exporter import metrics
from gpu_exporter.devices.base import DriverUnavailable
from gpu_exporter.metrics import FamilySamples, MetricFamily, single_sample
from gpu_exporter.sampling.drivers import DeviceCache, DriverTask
from gpu_exporter.sampling.pages import CollectorPage
from gpu_exporter.sampling.sampler import Sampler
from gpu_exporter.sampling.tasks import CollectorTask, SharedThread
from gpu_exporter.snapshot import DeviceIdentity, DeviceReading, DriverState, MetricReading
from prometheus_client.parser import text_string_to_metric_families

from tests.polling import wait_until

LOAD = MetricFamily("node_load1", "gauge", "1m load average.")
TIME = MetricFamily("node_time_seconds", "gauge", "Time.")


class FakeDriver:
    """Two GPUs that respond, fail or hang, as the test sets."""

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
def harness() -> Iterator[SamplerHarness]:
    harness = SamplerHarness()
    yield harness
    harness.driver.free.set()
    harness.sampler.stop()


def test_first_page_is_complete(harness: SamplerHarness) -> None:
    assert harness.rows("gpu_up") == {("GPU-0",): 1, ("GPU-1",): 1}
    assert harness.rows("gpu_utilization_ratio") == {("GPU-0",): 0.5, ("GPU-1",): 0.5}
    assert harness.rows("gpu_exporter_driver_info") == {("test", "ok"): 1}
    assert harness.rows("node_load1")
    assert set(harness.rows("gpu_exporter_collector_success")) == {("test",), ("loadavg",)}


def test_hung_driver_is_reported_and_others_continue(harness: SamplerHarness) -> None:
    harness.driver.free.clear()
    harness.until(lambda: harness.rows("gpu_up") == {("GPU-0",): 0, ("GPU-1",): 0})
    page = harness.sampler.page()  # would never return if it waited for the driver
    assert b'gpu_down_info{uuid="GPU-0",reason="hung"} 1' in page
    assert b"gpu_utilization_ratio{" not in page  # its last readings are outdated
    assert harness.rows("gpu_exporter_driver_info") == {("test", "hung"): 1}
    assert harness.rows("gpu_exporter_collector_success")["test",] == 0
    before = harness.rows("node_load1")[()]
    harness.until(lambda: harness.rows("node_load1")[()] > before)

    harness.driver.free.set()  # it recovers by itself
    harness.until(lambda: harness.rows("gpu_up") == {("GPU-0",): 1, ("GPU-1",): 1})
    assert harness.rows("gpu_exporter_driver_info") == {("test", "ok"): 1}


def test_failing_driver_keeps_identities_but_no_values(harness: SamplerHarness) -> None:
    harness.driver.problem = RuntimeError("odd")
    harness.until(lambda: harness.rows("gpu_exporter_driver_info") == {("test", "failed"): 1})
    assert harness.rows("gpu_up") == {("GPU-0",): 0, ("GPU-1",): 0}
    assert harness.rows("gpu_utilization_ratio") == {}
    assert {labels[-1] for labels in harness.rows("gpu_info")} == {"test"}
    harness.driver.problem = None
    harness.until(lambda: harness.rows("gpu_up") == {("GPU-0",): 1, ("GPU-1",): 1})


def test_absent_driver_is_not_a_failure() -> None:
    board, driver = DeviceCache("n"), FakeDriver()
    driver.problem = DriverUnavailable(DriverState.ABSENT, "not installed")
    task = DriverTask("test", driver, board, 0.02, 1)
    assert task.collect_once() == 30.0  # retried later
    assert task.health.success
    assert board.page(frozenset()).decode().splitlines()[-1] == (
        'gpu_exporter_driver_info{driver="test",state="absent"} 1'
    )


def test_failing_host_collector_exposes_nothing_stale(harness: SamplerHarness) -> None:
    harness.host.problem = OSError("removed")
    harness.until(lambda: harness.rows("node_load1") == {})
    assert harness.rows("gpu_exporter_collector_success")["loadavg",] == 0
    last = harness.rows("gpu_exporter_collector_last_success_timestamp_seconds")["loadavg",]
    assert 1.7e9 < last <= time.time()
    harness.host.problem = None
    harness.until(lambda: harness.rows("gpu_exporter_collector_success")["loadavg",] == 1)


def test_driver_is_released_on_request_and_reopened(monkeypatch: pytest.MonkeyPatch, harness: SamplerHarness) -> None:
    closed = threading.Event()
    monkeypatch.setattr(harness.driver, "close", closed.set)
    monkeypatch.setattr("gpu_exporter.sampling.sampler.RELEASE_DURATION_SECONDS", 0.3)
    harness.sampler.release_drivers()
    assert closed.is_set()  # before it returned
    assert harness.rows("gpu_up") == {("GPU-0",): 0, ("GPU-1",): 0}
    assert b'gpu_down_info{uuid="GPU-0",reason="released"} 1' in harness.sampler.page()
    assert harness.rows("gpu_exporter_driver_info") == {("test", "released"): 1}
    harness.until(lambda: harness.rows("gpu_up") == {("GPU-0",): 1, ("GPU-1",): 1})


class FrequentSamplingDriver(FakeDriver):
    """Must be sampled between readings."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def sampling_interval_seconds(self) -> float | None:
        return 0.01

    def sample(self) -> None:
        self.free.wait()
        self.looks += 1


def test_driver_is_sampled_between_readings_and_a_hang_is_detected() -> None:
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


def test_a_page_is_rendered_when_it_is_scraped_and_only_then_read_again() -> None:
    now = 0.0
    host = FakeHost()
    page = CollectorPage(host, clock=lambda: now)
    page.run()
    assert not page.is_outdated(5), "nobody has seen it yet"
    assert b"node_load1 2\n" in page.page
    assert page.is_outdated(5), "another scrape gets a new reading"
    page.run()
    now += 4
    assert not page.is_outdated(5)
    now += 1
    assert page.is_outdated(5)


def test_a_failed_reading_leaves_no_page() -> None:
    host = FakeHost()
    page = CollectorPage(host)
    page.run()
    host.problem = OSError("gone")
    with pytest.raises(OSError, match="gone"):
        page.run()
    assert page.page == b""


def test_values_of_the_scrape_are_read_at_the_scrape() -> None:
    class Clock(FakeHost):
        now = 5.0

        def collect_at_scrape(self) -> Iterable[FamilySamples]:
            return [single_sample(TIME, self.now)]

    clock = Clock()
    page = CollectorPage(clock)
    page.run()
    assert page.page.endswith(b" 5\n")
    clock.now = 6.0
    assert page.page.endswith(b" 6\n")


def test_a_task_that_is_not_needed_does_not_run() -> None:
    runs: list[int] = []
    needed = True
    task = CollectorTask("x", lambda: runs.append(1), 1.0, 5.0, is_needed=lambda: needed)
    task.first_run_done = threading.Event()
    assert 0 < task.run_once() <= 1
    before = task.health
    needed = False
    assert 0 < task.run_once() <= 1
    assert (len(runs), task.health) == (1, before)


def test_tasks_of_one_thread_run_in_turn_and_are_overdue_together() -> None:
    shared = SharedThread("shared")
    threads: set[str] = set()
    free = threading.Event()
    free.set()

    def run() -> None:
        threads.add(threading.current_thread().name)
        free.wait(60)

    tasks = [CollectorTask(name, run, 0.01, 0.05, shared_thread=shared) for name in "ab"]
    for task in tasks:
        task.start()
    wait_until(lambda: all(task.health.success for task in tasks), "both ran")
    assert threads == {"shared"}
    free.clear()
    wait_until(lambda: all(task.is_overdue() for task in tasks), "both are overdue")
    free.set()
    wait_until(lambda: not any(task.is_overdue() for task in tasks), "both run again")
    for task in tasks:
        task.stop()
    wait_until(lambda: all(thread.name != "shared" for thread in threading.enumerate()), "the thread ends")
    tasks[0].start()
    wait_until(tasks[0].first_run_done.is_set, "it can be started again")
    tasks[0].stop()


def test_health_of_host_collectors_has_node_exporters_names() -> None:
    host, other = FakeHost(), FakeHost()
    other.problem = OSError("gone")
    pages = [CollectorPage(host), CollectorPage(other)]
    tasks = [CollectorTask(name, page.run, 60, 5) for name, page in zip(("cpu", "owners"), pages, strict=True)]
    sampler = Sampler(DeviceCache("n"), [], list(zip(tasks, pages, strict=True)), host_collectors=("cpu",))
    for task in tasks:
        task.collect_once()
    page = sampler.page().decode()
    assert 'node_scrape_collector_success{collector="cpu"} 1' in page
    assert 'node_scrape_collector_duration_seconds{collector="cpu"}' in page
    assert 'gpu_exporter_collector_success{collector="owners"} 0' in page
    assert 'node_scrape_collector_success{collector="owners"}' not in page
    host.problem = OSError("gone")
    tasks[0].collect_once()
    assert 'node_scrape_collector_success{collector="cpu"} 0' in sampler.page().decode()


def test_a_page_that_cannot_be_rendered_does_not_stop_the_others(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = FakeHost(), FakeHost()
    pages = [CollectorPage(good), CollectorPage(bad)]
    tasks = [CollectorTask(name, page.run, 60, 5) for name, page in zip(("cpu", "bad"), pages, strict=True)]
    cache = DeviceCache("n")
    driver = DriverTask("test", FakeDriver(), cache, 60, 5)
    sampler = Sampler(cache, [driver], list(zip(tasks, pages, strict=True)))
    driver.collect_once()
    tasks[0].collect_once()
    odd = FamilySamples(metrics.COLLECTOR_SUCCESS, (((), 1.0),))  # without its label
    monkeypatch.setattr(bad, "collect", lambda: [odd])
    tasks[1].collect_once()
    for _ in range(2):
        page = sampler.page().decode()
        assert "node_load1 2" in page
        assert 'gpu_up{uuid="GPU-0"} 1' in page
        assert 'gpu_exporter_collector_success{collector="cpu"} 1' in page
        assert 'gpu_exporter_collector_success{collector="bad"} 0' in page
    assert len(caplog.records) == 1
    assert "cannot render the metrics of bad" in caplog.text
    cache.update(
        "test",
        (
            DeviceReading(
                DeviceIdentity("G", "0", "X", "t"), (MetricReading(metrics.POWER, 1.0, ("a label too many",)),)
            ),
        ),
        DriverState.OK,
    )
    assert 'gpu_exporter_collector_success{collector="test"} 0' in sampler.page().decode()
