"""Leases and a system clock that jumps, while the service runs and across its restarts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gpu_advisor.allocation.allocator import Allocator, LeaseLimits
from gpu_advisor.allocation.gpu_request import GpuRequest
from gpu_advisor.allocation.lease_manager import LeaseManager
from gpu_advisor.allocation.lease_store import LeaseStore
from gpu_advisor.allocation.steady_clock import MachineClocks, resume_clock

from tests.unit.allocation.builders import AT, inventory, node

MACHINES = inventory(node("a", "T4", 16, 4))
LEASE_SECONDS = 100.0
YEAR = 365.0 * 86400


class FakeMachine:
    """A machine whose system clock can be set."""

    def __init__(self) -> None:
        self.wall = AT
        self.uptime = 5000.0
        self.boot_id = "first"

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.uptime += seconds

    def reboot(self) -> None:
        self.uptime, self.boot_id = 0.0, "second"

    @property
    def clocks(self) -> MachineClocks:
        return MachineClocks(lambda: self.wall, lambda: self.uptime, self.boot_id)


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


@pytest.fixture
def start(tmp_path: Path, machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Allocator]]:
    """Starts the service, again."""
    monkeypatch.setattr("gpu_advisor.allocation.steady_clock.MachineClocks", lambda: machine.clocks)
    running: list[Allocator] = []

    def restart() -> Allocator:
        while running:
            running.pop().close()
        manager = LeaseManager(LeaseStore(tmp_path / "leases.db"))
        running.append(Allocator(manager, lambda: MACHINES, LeaseLimits(LEASE_SECONDS, 1000)))
        return running[0]

    yield restart
    for service in running:
        service.close()


@pytest.mark.parametrize("jump", [YEAR, -YEAR, 3600.0, -3600.0])
@pytest.mark.parametrize("restarts", [0, 1, 3])
def test_a_clock_that_jumps_ends_no_lease_and_keeps_none(
    machine: FakeMachine, start: Callable[[], Allocator], jump: float, restarts: int
) -> None:
    service = start()
    lease = service.allocate(GpuRequest(2))
    machine.wall += jump
    for _ in range(restarts):
        service = start()
    machine.pass_time(LEASE_SECONDS - 1)
    assert set(service.snapshot().active) == {lease.id}
    machine.pass_time(1)
    assert not service.snapshot().active


@pytest.mark.parametrize("jump", [YEAR, -YEAR])
def test_without_leases_a_restart_takes_the_system_clock(
    machine: FakeMachine, start: Callable[[], Allocator], jump: float
) -> None:
    start()
    machine.wall += jump
    assert start().allocate(GpuRequest()).expires == machine.wall + LEASE_SECONDS


def test_after_a_reboot_the_system_clock_counts(machine: FakeMachine, start: Callable[[], Allocator]) -> None:
    lease = start().allocate(GpuRequest())
    machine.pass_time(LEASE_SECONDS / 2)
    machine.reboot()
    assert set(start().snapshot().active) == {lease.id}
    machine.pass_time(LEASE_SECONDS / 2)
    assert not start().snapshot().active


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"boot_id": "first"}', '{"boot_id": "first", "offset": "x"}']
)
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, machine: FakeMachine, content: str) -> None:
    file = tmp_path / "leases.db.clock"
    file.write_text(content)
    assert resume_clock(file, in_use=True, clocks=machine.clocks)() == machine.wall
    machine.wall += YEAR
    assert resume_clock(file, in_use=True, clocks=machine.clocks)() == machine.wall - YEAR


def test_a_machine_without_boot_ids_takes_the_system_clock(tmp_path: Path, machine: FakeMachine) -> None:
    machine.boot_id = ""
    file = tmp_path / "leases.db.clock"
    resume_clock(file, in_use=True, clocks=machine.clocks)
    machine.wall += YEAR
    assert resume_clock(file, in_use=True, clocks=machine.clocks)() == machine.wall
