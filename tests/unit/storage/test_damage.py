"""Damaged state: truncated, garbage, flipped, deleted. The service starts, says so, and leases nothing twice."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from gpu_advisor.allocation.allocator import Allocator
from gpu_advisor.allocation.errors import AllocationError, LeaseStoreError
from gpu_advisor.allocation.gpu_request import GpuRequest
from gpu_advisor.allocation.lease_manager import LeaseManager
from gpu_advisor.allocation.lease_store import LeaseStore
from gpu_advisor.notify.metrics import MetricsExposition
from gpu_advisor.runtime.clock_watch import MAX_GAP_SECONDS, SETTLING_SECONDS, ClockWatch
from gpu_advisor.runtime.wiring import build_advisor
from gpu_advisor.settings import Settings
from gpu_advisor.state.ledger import Ledger
from gpu_advisor.storage.damage import find_damage, replace_if_damaged
from gpu_advisor.web.api.app import ApiContext, create_app

from tests.unit.allocation.builders import inventory, node

MACHINES = inventory(node("a", "T4", 16, 8))


def truncated(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 - 100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))


def text(path: Path) -> None:
    path.write_text("not a database at all\n" * 500)


def header_flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[20:60] = bytes(byte ^ 0xFF for byte in data[20:60])
    path.write_bytes(data)


def pages_zeroed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    path.write_bytes(data)


DAMAGES: tuple[Callable[[Path], None], ...] = (truncated, emptied, garbage, text, header_flipped, pages_zeroed)
damages = pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate({"state_dir": str(tmp_path / "state"), "source": {"embedded": {"targets": []}}})


def start_and_stop(settings: Settings) -> None:
    build_advisor(settings).close()


@damages
@pytest.mark.parametrize("name", ["ledger.db", "history.db"])
def test_the_service_starts_and_says_what_was_damaged(settings: Settings, name: str, damage: Callable[[Path], None],
                                                      caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    start_and_stop(settings)
    path = Path(settings.state_dir, name)
    damage(path)
    damaged_bytes = path.read_bytes()
    advisor = build_advisor(settings)
    try:
        view = advisor.service.view
        [found] = view.damaged
        assert found.name == name
        assert Path(settings.state_dir, found.moved_to).read_bytes() == damaged_bytes
        assert f"{name} was damaged" in caplog.text
        metrics = MetricsExposition().render(view, ()).decode()
        assert f'gpu_advisor_damaged_state_file_info{{file="{name}",moved_to="{found.moved_to}"}} 1.0' in metrics
        context = ApiContext(lambda: view, lambda: (), lambda _id, _snooze: None)
        assert f"{name} was damaged" in create_app(context).test_client().get("/").text
    finally:
        advisor.close()
    again = build_advisor(settings)
    assert again.service.view.damaged == ()
    again.close()


def test_sound_state_is_left_alone(settings: Settings) -> None:
    start_and_stop(settings)
    advisor = build_advisor(settings)
    assert advisor.service.view.damaged == ()
    advisor.close()
    assert not list(Path(settings.state_dir).glob("*.damaged*"))


def test_a_database_in_use_is_not_moved(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    store = LeaseStore(path)
    path.write_bytes(b"x" * 100)
    assert replace_if_damaged(path, "advice") is None
    assert path.exists()
    store.close()


def test_a_probe_that_fails_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    Ledger(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE alerts")
        connection.execute("CREATE TABLE alerts (other TEXT)")
    assert find_damage(path) == ""

    def probe(where: Path) -> None:
        ledger = Ledger(where)
        try:
            ledger.read_all()
        finally:
            ledger.close()

    found = replace_if_damaged(path, "advice", probe, lambda: 0.0)
    assert found is not None
    assert found.moved_to == "ledger.db.damaged-19700101T000000Z"
    assert "no such column" in found.reason


# --- leases


def allocator(path: Path) -> Allocator:
    return Allocator(LeaseManager(LeaseStore(path)), lambda: MACHINES)


def leased(path: Path, count: int = 3) -> list[str]:
    """Lease some GPUs; their uuids."""
    service = allocator(path)
    uuids = [uuid for _ in range(count) for uuid in service.allocate(GpuRequest(), None, None).uuids]
    service.close()
    return uuids


def flipped_lease(path: Path) -> None:
    """One character of the JSON, which no check of SQLite's can notice."""
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE leases SET allocation = replace(allocation, 'T4', 'T5')")


def older_copy(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE commits SET number = number - 1")
        connection.execute("DELETE FROM leases WHERE id IN (SELECT id FROM leases LIMIT 1)")


def deleted(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [*DAMAGES, flipped_lease, older_copy, deleted], ids=lambda each: each.__name__)
def test_after_damage_nothing_is_leased_until_an_operator_confirms(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "leases.db"
    leased(path)
    damage(path)
    for _ in range(2):  # a restart confirms nothing
        service = allocator(path)
        with pytest.raises(LeaseStoreError, match="confirm it: rm"):
            service.allocate(GpuRequest(), None, None)
        with pytest.raises(LeaseStoreError):
            service.release("x")
        assert "damaged" in service.leases.last_error
        service.close()
    service = allocator(path)
    (tmp_path / "leases.db.unconfirmed").unlink()
    assert service.allocate(GpuRequest(), None, None).uuids
    assert not service.leases.last_error
    service.close()
    if damage is not deleted:
        assert list(tmp_path.glob("leases.db.damaged-*Z"))


def test_any_flipped_byte_is_noticed_or_changes_no_lease(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    uuids = leased(path)
    data, chance = path.read_bytes(), random.Random(7)
    outcomes = set()
    for number in range(60):
        folder = tmp_path / str(number)
        folder.mkdir()
        copy = folder / "leases.db"
        changed = bytearray(data)
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        copy.write_bytes(changed)
        shutil.copy(tmp_path / "leases.db.commits", folder / "leases.db.commits")
        try:
            service = allocator(copy)
        except LeaseStoreError:
            outcomes.add("refused to start")
            continue
        try:
            taken = service.allocate(GpuRequest(), None, None).uuids
            assert not set(taken) & set(uuids)
            outcomes.add("harmless")
        except AllocationError:
            outcomes.add("refused to lease")
        service.close()
    assert {"harmless", "refused to lease"} <= outcomes


def test_a_lost_log_is_noticed(tmp_path: Path) -> None:
    """As after a crash, with the write-ahead log gone: SQLite itself takes the database for sound."""
    path = tmp_path / "leases.db"
    service = allocator(path)
    service.allocate(GpuRequest(), None, None)
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for name in ("leases.db", "leases.db.commits"):
        shutil.copy(tmp_path / name, crashed / name)
    service.close()
    again = allocator(crashed / "leases.db")
    with pytest.raises(LeaseStoreError, match="confirm"):
        again.allocate(GpuRequest(), None, None)
    again.close()


def test_leases_of_the_previous_version_are_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    uuids = leased(path)
    (tmp_path / "leases.db.commits").unlink()
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "CREATE TABLE old (id TEXT PRIMARY KEY, expires REAL NOT NULL, allocation TEXT NOT NULL) WITHOUT ROWID;"
            "INSERT INTO old SELECT id, expires, allocation FROM leases; DROP TABLE leases; DROP TABLE commits;"
            "ALTER TABLE old RENAME TO leases; PRAGMA user_version = 1;"
        )
    service = allocator(path)
    assert set(service.snapshot().lease_by_gpu) == set(uuids)
    service.close()
    assert set(allocator(path).snapshot().lease_by_gpu) == set(uuids)


# --- clocks


def test_a_clock_that_jumps_a_year_and_back_deletes_nothing() -> None:
    monotonic, year, now = [0.0], 365 * 86400.0, 1.8e9
    watch = ClockWatch(now - 60, now, lambda: monotonic[0])
    assert watch.is_settled(now)
    monotonic[0] = 600.0
    assert not watch.is_settled(now + 600 + year)
    monotonic[0] = 1200.0
    assert not watch.is_settled(now + 1200)
    monotonic[0] = 1200.0 + SETTLING_SECONDS
    assert watch.is_settled(now + monotonic[0])


def test_a_start_with_a_clock_far_from_the_data_deletes_nothing_for_a_day() -> None:
    monotonic, now = [0.0], 1.8e9
    for newest in (now - MAX_GAP_SECONDS - 1, now + MAX_GAP_SECONDS + 1):
        monotonic[0] = 0.0
        watch = ClockWatch(newest, now, lambda: monotonic[0])
        assert not watch.is_settled(now)
        monotonic[0] = SETTLING_SECONDS
        assert watch.is_settled(now + SETTLING_SECONDS)
