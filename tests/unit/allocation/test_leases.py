"""Leases: what is acknowledged is kept, whatever happens to the process or to the disk."""

from __future__ import annotations

import gc
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpu_advisor.allocation.allocator import Allocator, LeaseLimits
from gpu_advisor.allocation.errors import (
    InsufficientCapacityError,
    InvalidRequestError,
    LeaseStoreError,
    NoInventoryError,
    TokenConflictError,
    UnknownAllocationError,
)
from gpu_advisor.allocation.gpu_request import GpuRequest
from gpu_advisor.allocation.lease_manager import LeaseManager
from gpu_advisor.allocation.lease_store import LeaseStore
from gpu_advisor.allocation.lease_table import ENDED_RETENTION_SECONDS, EndedLease, LeaseChanges, LeaseTable
from gpu_advisor.allocation.model import Inventory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.allocation.builders import AT, inventory, node

MACHINES = inventory(node("a", "T4", 16, 4))


class FakeClock:
    def __init__(self) -> None:
        self.now = AT

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def allocator(tmp_path: Path, clock: FakeClock) -> Iterator[Allocator]:
    made = Allocator(LeaseManager(LeaseStore(tmp_path / "leases.db"), clock), lambda: MACHINES, LeaseLimits(100, 1000))
    yield made
    made.close()


def test_a_token_gives_the_same_allocation_again(allocator: Allocator) -> None:
    first = allocator.allocate(GpuRequest(2), "token")
    assert allocator.allocate(GpuRequest(2), "token") == first
    assert len(allocator.snapshot().lease_by_gpu) == 2
    with pytest.raises(TokenConflictError, match="another request"):
        allocator.allocate(GpuRequest(3), "token")
    allocator.release(first.id)
    with pytest.raises(TokenConflictError, match="was released: use a new token"):
        allocator.allocate(GpuRequest(2), "token")


def test_a_release_may_be_repeated(allocator: Allocator) -> None:
    made = allocator.allocate(GpuRequest())
    allocator.release(made.id)
    allocator.release(made.id)
    assert not allocator.snapshot().lease_by_gpu
    with pytest.raises(UnknownAllocationError, match="no allocation 'never'"):
        allocator.release("never")


def test_what_is_not_renewed_in_time_is_over(allocator: Allocator, clock: FakeClock) -> None:
    made, other = allocator.allocate(GpuRequest(2)), allocator.allocate(GpuRequest(2), lease_seconds=10)
    with pytest.raises(InsufficientCapacityError):
        allocator.allocate(GpuRequest())
    clock.now += 9
    assert allocator.renew(other.id, 10).expires == clock.now + 10
    clock.now += 9
    assert other.id in allocator.snapshot().active
    clock.now += 1  # to the second: at its end it is over
    assert allocator.snapshot().active.keys() == {made.id}
    allocator.allocate(GpuRequest(2))
    for ask in (
        lambda: allocator.renew(other.id),
        lambda: allocator.release(other.id),
        lambda: allocator.get(other.id),
    ):
        with pytest.raises(UnknownAllocationError, match="was expired: allocate again"):
            ask()


def test_an_answer_that_comes_after_the_end_is_no_lease(allocator: Allocator, clock: FakeClock) -> None:
    """A repeated request after the lease has expired must not get it as active."""
    allocator.allocate(GpuRequest(2), "token", 10)
    clock.now += 10
    with pytest.raises(TokenConflictError, match="was expired: use a new token"):
        allocator.allocate(GpuRequest(2), "token", 10)
    assert not allocator.snapshot().lease_by_gpu


def test_how_it_ended_is_forgotten_after_a_day(allocator: Allocator, clock: FakeClock) -> None:
    allocator.release(allocator.allocate(GpuRequest(), "token").id)
    clock.now += ENDED_RETENTION_SECONDS
    assert allocator.allocate(GpuRequest(), "token")


def test_a_token_used_again_after_a_day_is_known_for_another_day(allocator: Allocator, clock: FakeClock) -> None:
    allocator.release(allocator.allocate(GpuRequest(), "token").id)
    clock.now += ENDED_RETENTION_SECONDS
    allocator.release(allocator.allocate(GpuRequest(), "token").id)
    clock.now += ENDED_RETENTION_SECONDS - 1
    with pytest.raises(TokenConflictError, match="was released"):
        allocator.allocate(GpuRequest(), "token")


def test_ended_leases_are_on_disk_for_a_day_and_not_in_memory(
    allocator: Allocator, clock: FakeClock, tmp_path: Path
) -> None:
    def stored() -> int:
        with sqlite3.connect(tmp_path / "leases.db") as database:
            return int(database.execute("SELECT count(*) FROM ended").fetchone()[0])

    for _ in range(50):
        allocator.release(allocator.allocate(GpuRequest()).id)
    gc.collect()
    assert sum(isinstance(each, EndedLease) for each in gc.get_objects()) <= 1  # of the last change
    assert stored() == 50
    clock.now += ENDED_RETENTION_SECONDS
    allocator.allocate(GpuRequest())
    assert stored() == 0


def test_requests_that_fail_leave_no_tables_and_no_errors_behind(
    allocator: Allocator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each failed commit reloads the table. A cycle would keep all of them until the collector looks for it."""

    def fail(store: LeaseStore, changes: LeaseChanges) -> None:
        raise LeaseStoreError("the disk is full")

    def ask(kind: type[Exception]) -> None:
        with pytest.raises(kind):
            allocator.allocate(GpuRequest(1 if kind is LeaseStoreError else 3))

    allocator.allocate(GpuRequest(2))
    monkeypatch.setattr(LeaseStore, "write", fail)
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            ask(LeaseStoreError)
            ask(InsufficientCapacityError)
        left = [each for each in gc.get_objects() if isinstance(each, LeaseTable)]
    finally:
        gc.enable()
    assert len(left) <= 2  # the present one, and one in the traceback that pytest caught


def test_cpu_only_where_asked_for(allocator: Allocator) -> None:
    allocator.allocate(GpuRequest(4))
    with pytest.raises(InsufficientCapacityError):
        allocator.allocate(GpuRequest(1))
    made = allocator.allocate(GpuRequest(1, cpu_fallback=True))
    assert made.on_cpu
    assert made.reasons


@pytest.mark.parametrize("seconds", [0, -1, 1001, float("nan")])
def test_lengths_that_make_no_sense(allocator: Allocator, seconds: float) -> None:
    with pytest.raises(InvalidRequestError, match="lease_seconds"):
        allocator.allocate(GpuRequest(), lease_seconds=seconds)


@pytest.mark.parametrize("machines", [None, Inventory(MACHINES.nodes, AT, stale=True)])
def test_nothing_is_given_out_while_nothing_is_known(tmp_path: Path, machines: Inventory | None) -> None:
    allocator = Allocator(LeaseManager(LeaseStore(tmp_path / "leases.db")), lambda: machines)
    with pytest.raises(NoInventoryError):
        allocator.allocate(GpuRequest())
    allocator.close()


STEPS = st.lists(
    st.tuples(st.sampled_from(("allocate", "release", "renew", "wait", "restart")), st.integers(0, 5)), max_size=25
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(STEPS)
def test_as_a_plain_table_of_leases_across_restarts(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Against a model: id -> (GPUs, expiry). A restart, which reads all from the disk, changes nothing."""
    path, clock = tmp_path_factory.mktemp("leases") / "leases.db", FakeClock()
    allocator = Allocator(LeaseManager(LeaseStore(path), clock), lambda: MACHINES, LeaseLimits(5, 100))
    model: dict[str, tuple[frozenset[str], float]] = {}
    made: list[str] = []
    for what, number in steps:
        id_ = made[number % len(made)] if made else "none"
        if what == "wait":
            clock.now += number
        elif what == "restart":
            allocator.close()
            allocator = Allocator(LeaseManager(LeaseStore(path), clock), lambda: MACHINES, LeaseLimits(5, 100))
        elif what == "allocate":
            count = 1 + number % 4
            try:
                got = allocator.allocate(GpuRequest(count))
            except InsufficientCapacityError:
                assert count > 4 - sum(len(gpus) for gpus, _ in model.values())
            else:
                made.append(got.id)
                assert not frozenset(got.uuids) & {uuid for gpus, _ in model.values() for uuid in gpus}
                model[got.id] = (frozenset(got.uuids), clock.now + 5)
        elif id_ in model:
            if what == "renew":
                model[id_] = (model[id_][0], allocator.renew(id_).expires)
            else:
                allocator.release(id_)
                del model[id_]
        elif what == "renew":
            with pytest.raises(UnknownAllocationError):
                allocator.renew(id_)
        model = {id_: each for id_, each in model.items() if each[1] > clock.now}
        shown = {each.id: (frozenset(each.uuids), each.expires) for each in allocator.snapshot().active.values()}
        assert shown == model
    allocator.close()


class GatedStore(LeaseStore):
    """Writes once the gate is open, as a busy disk: the next group of operations gathers meanwhile."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = threading.Event()
        self.writes = 0

    def write(self, changes: LeaseChanges) -> None:
        self.gate.wait(10)
        self.writes += 1
        super().write(changes)


def test_many_at_once_are_acknowledged_by_few_commits(tmp_path: Path) -> None:
    """And each thread gets its own GPU."""
    machines = inventory(node("a", "T4", 16, 64))
    store = GatedStore(tmp_path / "leases.db")
    allocator = Allocator(LeaseManager(store), lambda: machines)
    got: list[str] = []
    threads = [threading.Thread(target=lambda: got.extend(allocator.allocate(GpuRequest()).uuids)) for _ in range(64)]
    for thread in threads:
        thread.start()
    assert not got
    store.gate.set()
    for thread in threads:
        thread.join(60)
    assert len(set(got)) == len(got) == 64
    assert store.writes < 64
    allocator.close()


def test_a_disk_that_takes_nothing_gives_nothing_out(tmp_path: Path) -> None:
    """What was not written is not held; when the disk is well again, all goes on."""
    path = tmp_path / "leases.db"
    allocator = Allocator(LeaseManager(LeaseStore(path)), lambda: MACHINES)
    kept = allocator.allocate(GpuRequest(1))
    with sqlite3.connect(path) as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON leases BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    other.close()
    with pytest.raises(LeaseStoreError, match="disk full"):
        allocator.allocate(GpuRequest(3))
    assert allocator.leases.last_error
    assert set(allocator.snapshot().active) == {kept.id}
    with sqlite3.connect(path) as other:
        other.execute("DROP TRIGGER full")
    other.close()
    assert allocator.allocate(GpuRequest(3))
    assert not allocator.leases.last_error
    allocator.close()


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    store = LeaseStore(tmp_path / "leases.db")
    with pytest.raises(LeaseStoreError, match=r"in use by another gpu-advisor \(process \d+\)"):
        LeaseStore(tmp_path / "leases.db")
    store.close()
    LeaseStore(tmp_path / "leases.db").close()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("INSERT INTO leases VALUES ('x', 1, '{}', '')", "the lease 'x' cannot be read"),
        ("PRAGMA user_version = 99", "another version"),
    ],
)
def test_what_cannot_be_read_is_not_taken_for_free(tmp_path: Path, spoil: str, words: str) -> None:
    path = tmp_path / "leases.db"
    LeaseStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute(spoil)
    db.close()
    assert words in _refusal(path)


def _refusal(path: Path) -> str:
    """Why the store does not open, or why it opened unconfirmed."""
    try:
        store = LeaseStore(path)
    except LeaseStoreError as error:
        return str(error)
    store.close()
    return store.unconfirmed


def test_no_database_at_all(tmp_path: Path) -> None:
    (tmp_path / "leases.db").write_text("no database, but a text that is long enough to be looked at as one" * 20)
    store = LeaseStore(tmp_path / "leases.db")
    assert "not a database" in store.unconfirmed
    store.close()


def test_every_commit_reaches_the_disk(tmp_path: Path) -> None:
    store = LeaseStore(tmp_path / "leases.db")
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: https://sqlite.org/pragma.html
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()
