"""Xid events: counted by code in their own thread, across driver reloads, without delaying readings."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from gpu_exporter import metrics
from gpu_exporter.devices import nvidia_xid
from gpu_exporter.devices.nvidia_xid_codes import FATAL_XIDS, XID_CATALOG, describe_xid
from gpu_exporter.devices.nvidia_xid_counts import XidCountFile
from gpu_exporter.snapshot import DeviceReading, DownReason

from tests.polling import wait_until
from tests.simulated_nvml.control import NO_PERMISSION, NOT_SUPPORTED, SimulatedGpu
from tests.simulated_nvml.device_values import absent, down_reasons, values
from tests.unit.devices.conftest import SimulatedMachine


def read_until(
    machine: SimulatedMachine, wanted: Callable[[tuple[DeviceReading, ...]], bool]
) -> tuple[DeviceReading, ...]:
    """Read until the event thread has delivered the expected reading."""

    def read() -> tuple[DeviceReading, ...] | None:
        devices = machine.driver.read()
        return devices if wanted(devices) else None

    return wait_until(read, "the readings wanted", interval_seconds=0.005)


def start_listening(machine: SimulatedMachine, *gpus: SimulatedGpu) -> tuple[DeviceReading, ...]:
    machine.control.gpus = list(gpus)
    machine.write()
    return read_until(
        machine, lambda devices: all("gpu_xid_errors_total" not in absent(d) for d in devices if not d.down)
    )


def count(device: DeviceReading, xid: int) -> float | None:
    return values(device).get(("gpu_xid_errors_total", str(xid)))


def report(machine: SimulatedMachine, gpu: int, xid: int) -> None:
    machine.control.xids.append((gpu, xid))
    machine.write()


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "nvidia-xid"]


def test_fatal_xids_are_exported_from_zero(machine: SimulatedMachine) -> None:
    (device,) = start_listening(machine, SimulatedGpu())
    observed = {key[1]: value for key, value in values(device).items() if key[0] == "gpu_xid_errors_total"}
    assert observed == {str(xid): 0 for xid in FATAL_XIDS}
    assert "79" in observed
    assert metrics.XID_LAST_TIMESTAMP not in {reading.family for reading in device.readings}


def test_xids_are_counted_with_class_action_and_time(
    machine: SimulatedMachine, caplog: pytest.LogCaptureFixture
) -> None:
    start_listening(machine, SimulatedGpu(), SimulatedGpu())
    with caplog.at_level(logging.WARNING):
        for gpu, xid in ((1, 79), (1, 31), (1, 31), (0, 4242)):
            report(machine, gpu, xid)
        first, second = read_until(machine, lambda devices: count(devices[0], 4242) == 1)
    assert (count(second, 79), count(second, 31), count(second, 4242)) == (1, 2, None)
    assert (count(first, 79), count(first, 31)) == (0, None)
    assert values(second)["gpu_xid_last_timestamp_seconds", "31"] == machine.time
    assert values(second)["gpu_xid_info", "79", "bus", "reboot_node"] == 1
    assert values(second)["gpu_xid_info", "31", "application", "restart_job"] == 1
    assert values(first)["gpu_xid_info", "4242", "unknown", "look_up"] == 1
    assert sum("Xid" in record.getMessage() for record in caplog.records) == 4


def test_a_reading_does_not_wait_for_events(machine: SimulatedMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    start_listening(machine, SimulatedGpu())
    waiting, event = threading.Event(), threading.Event()

    def wait(session: nvidia_xid._EventSession, seconds: float) -> None:
        waiting.set()
        event.wait(60)

    monkeypatch.setattr(nvidia_xid._EventSession, "wait", wait)
    assert waiting.wait(60)
    assert machine.driver.read()[0].down is None
    assert not event.is_set()
    event.set()


def test_counts_survive_a_driver_reload(machine: SimulatedMachine) -> None:
    start_listening(machine, SimulatedGpu())
    report(machine, 0, 48)
    read_until(machine, lambda devices: count(devices[0], 48) == 1)
    machine.control.loads = 2
    machine.write()
    assert down_reasons(machine.driver.read()) == [DownReason.DRIVER_GONE]
    read_until(machine, lambda devices: devices[0].down is None and count(devices[0], 48) == 1)
    time.sleep(0.1)  # until the thread has registered again: earlier events are lost
    report(machine, 0, 48)
    read_until(machine, lambda devices: count(devices[0], 48) == 2)


def test_lost_gpu_does_not_affect_the_others(machine: SimulatedMachine) -> None:
    start_listening(machine, SimulatedGpu(), SimulatedGpu())
    machine.gpus[0].lost = True
    machine.write()
    time.sleep(0.1)
    for _ in range(20):
        report(machine, 1, 94)
        time.sleep(0.01)
    devices = read_until(machine, lambda devices: (count(devices[1], 94) or 0) > 0)
    assert down_reasons(devices) == [DownReason.LOST, None]


def test_added_gpu_is_registered(machine: SimulatedMachine) -> None:
    start_listening(machine, SimulatedGpu())
    machine.control.gpus.append(SimulatedGpu())
    machine.write()
    read_until(machine, lambda devices: len(devices) == 2 and count(devices[1], 79) == 0)
    time.sleep(0.1)
    report(machine, 1, 79)
    read_until(machine, lambda devices: count(devices[1], 79) == 1)


@pytest.mark.parametrize("function", ["nvmlDeviceRegisterEvents", "nvmlEventSetCreate"])
@pytest.mark.parametrize(("code", "reason"), [(NOT_SUPPORTED, "unsupported"), (NO_PERMISSION, "no_permission")])
def test_driver_without_events(machine: SimulatedMachine, function: str, code: int, reason: str) -> None:
    machine.control.errors = {function: code} if "Set" in function else {}
    machine.control.gpus = [SimulatedGpu(errors={function: code})]
    machine.write()
    (device,) = read_until(machine, lambda devices: absent(devices[0])["gpu_xid_errors_total"] != "not_yet")
    assert absent(device)["gpu_xid_errors_total"] == reason
    assert "gpu_xid_errors_total" not in {key[0] for key in values(device)}


def test_close_stops_the_thread(machine: SimulatedMachine) -> None:
    start_listening(machine, SimulatedGpu())
    assert len(threads()) == 1
    machine.driver.close()
    assert threads() == []
    start_listening(machine, SimulatedGpu())
    assert len(threads()) == 1


def test_close_does_not_wait_forever_for_a_hung_thread(
    machine: SimulatedMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpu_exporter.devices.nvidia_xid.STOP_SECONDS", 0.1)
    start_listening(machine, SimulatedGpu())
    machine.control.hang = {"nvmlEventSetWait_v2": 2.0}
    machine.write()
    time.sleep(0.05)
    machine.driver.close()
    machine.control.hang = {}
    machine.write()
    assert machine.driver.read()[0].down is None  # readings continue, and no second thread is started
    assert len(threads()) == 1
    read_until(machine, lambda devices: not machine.driver._xids._stop.is_set())


class _StopsAtClear(threading.Event):
    """`stop` is called just before the thread clears the wake-up."""

    def __init__(self, listener: nvidia_xid.XidListener) -> None:
        super().__init__()
        self._listener = listener

    def clear(self) -> None:
        self._listener._stop.set()
        self.set()
        super().clear()


def test_a_stop_just_before_the_wake_up_is_cleared_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(_: str) -> None:
        raise OSError("no library")

    monkeypatch.setattr(nvidia_xid, "CDLL", no_library)
    listener = nvidia_xid.XidListener(retry_seconds=60)
    listener._restart = _StopsAtClear(listener)
    listener.start()
    assert listener._thread is not None
    listener._thread.join(10)
    assert not listener._thread.is_alive()


def test_catalogue_is_consistent() -> None:
    assert {48, 64, 74, 79, 95, 119} <= set(FATAL_XIDS)
    assert not {13, 31, 43, 45, 63, 94} & set(FATAL_XIDS)
    for code, entry in XID_CATALOG.items():
        assert 0 < code < 1000
        assert entry.kind.isidentifier()
        assert entry.action.isidentifier()
    assert describe_xid(999).kind == "unknown"


def test_counts_and_times_survive_a_restart(machine: SimulatedMachine, tmp_path: Path) -> None:
    machine.xid_file = tmp_path / "state" / "xids.json"
    machine.restart()
    start_listening(machine, SimulatedGpu(), SimulatedGpu())
    for gpu, xid in ((1, 79), (1, 31), (1, 31), (0, 4242)):
        report(machine, gpu, xid)
    before = read_until(machine, lambda devices: count(devices[0], 4242) == 1)
    reported_at = machine.time
    machine.driver.close()
    machine.wait(3600)
    machine.restart()
    after = start_listening(machine, SimulatedGpu(), SimulatedGpu())
    for now, then in zip(after, before, strict=True):
        assert xid_values(now) == xid_values(then)
    assert values(after[1])["gpu_xid_last_timestamp_seconds", "31"] == reported_at
    report(machine, 1, 31)
    read_until(machine, lambda devices: count(devices[1], 31) == 3)


def test_counts_of_a_gpu_that_is_away_are_kept(machine: SimulatedMachine, tmp_path: Path) -> None:
    machine.xid_file = tmp_path / "xids.json"
    machine.restart()
    start_listening(machine, SimulatedGpu(), SimulatedGpu())
    report(machine, 1, 79)
    read_until(machine, lambda devices: count(devices[1], 79) == 1)
    for gpus in (1, 2):
        machine.driver.close()
        machine.restart()
        devices = start_listening(machine, *(SimulatedGpu() for _ in range(gpus)))
        report(machine, 0, 13)
        devices = read_until(machine, lambda devices, gpus=gpus: count(devices[0], 13) == gpus)  # type: ignore[misc]
    assert count(devices[1], 79) == 1


def test_what_cannot_be_written_is_written_later(
    machine: SimulatedMachine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "state"
    folder.write_text("")  # no folder can be created there
    machine.xid_file = folder / "xids.json"
    machine.restart()
    start_listening(machine, SimulatedGpu())
    report(machine, 0, 79)
    report(machine, 0, 79)
    read_until(machine, lambda devices: count(devices[0], 79) == 2)
    assert sum("cannot write Xid counts" in record.getMessage() for record in caplog.records) == 1
    folder.unlink()
    wait_until(lambda: machine.xid_file is not None and machine.xid_file.exists(), "the file", interval_seconds=0.005)
    assert XidCountFile(machine.xid_file).load()[uuid_of(machine)].counts[79] == 2


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "{}", '{"format": 2, "gpus": {}}', '{"format": 1, "gpus": []}',
        '{"format": 1, "gpus": {"GPU-1": []}}', '{"format": 1, "gpus": {"GPU-1": {"79": 1}}}',
        '{"format": 1, "gpus": {"GPU-1": {"79": [0, 1.0]}}}', '{"format": 1, "gpus": {"GPU-1": {"79": [true, 1.0]}}}',
        '{"format": 1, "gpus": {"GPU-1": {"79": [1, NaN]}}}', '{"format": 1, "gpus": {"GPU-1": {"x": [1, 1.0]}}}',
    ],
)  # fmt: skip
def test_an_unreadable_file_of_counts_is_logged_and_counts_start_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    path = tmp_path / "xids.json"
    path.write_text(text)
    assert XidCountFile(path).load() == {}
    assert "cannot read Xid counts" in caplog.text


def xid_values(device: DeviceReading) -> dict[tuple[str, ...], float]:
    return {key: value for key, value in values(device).items() if key[0].startswith("gpu_xid")}


def uuid_of(machine: SimulatedMachine) -> str:
    (device,) = machine.driver.read()
    return device.identity.uuid
