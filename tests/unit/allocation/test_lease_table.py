"""The rules of leases on the table alone: when they end, how long that is known, and what is written."""

from __future__ import annotations

import pytest
from gpu_advisor.allocation.errors import AllocationError, TokenConflictError, UnknownAllocationError
from gpu_advisor.allocation.gpu_request import GpuRequest
from gpu_advisor.allocation.lease_table import PURGE_INTERVAL_SECONDS, EndedLease, LeaseChanges, LeaseTable
from gpu_advisor.allocation.model import Allocation, NodeAllocation
from hypothesis import given
from hypothesis import strategies as st

DAY = 86400


def lease(name: str, expires: float, uuid: str = "") -> Allocation:
    shares = (NodeAllocation("n", (0,), (uuid or f"GPU-{name}",), ""),)
    return Allocation(name, f"token-{name}", GpuRequest(1), shares, "T4", "nvidia", 16.0, 0.0, expires)


@given(st.floats(1, 100), st.floats(0, 200))
def test_a_lease_ends_at_its_time_and_not_before(expires: float, now: float) -> None:
    table = LeaseTable([lease("a", expires)])
    table.expire(now)
    assert ("a" in table.active) is (now < expires)
    assert ("GPU-a" in table.lease_by_gpu) is (now < expires)
    if now >= expires:
        assert table.changes.ended["a"] == EndedLease("a", "token-a", "expired", expires)


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(1, 50)), min_size=1, max_size=8), st.data())
def test_expiring_often_or_once_is_the_same(leases: list[tuple[float, float]], data: st.DataObject) -> None:
    """Whatever is skipped because nothing is due, nothing that is due is."""
    times = sorted(data.draw(st.lists(st.floats(0, 100), min_size=1, max_size=8)))
    often, once = LeaseTable(), LeaseTable()
    for number, (_, expires) in enumerate(leases):
        for table in (often, once):
            table.add(lease(str(number), expires))
    renewed = data.draw(st.integers(0, len(leases) - 1))
    until = data.draw(st.floats(1, 100))  # earlier or later than before
    for table in (often, once):
        table.renew(str(renewed), until)
    for now in times:
        often.expire(now)
    once._next_expiry = 0.0  # without what it remembers
    once.expire(times[-1])
    assert often.active == once.active


@pytest.mark.parametrize(("earlier", "active"), [(5.0, False), (50.0, True)])
def test_a_lease_may_be_renewed_to_an_earlier_time(earlier: float, active: bool) -> None:
    table = LeaseTable([lease("a", 20.0)])
    table.expire(1.0)
    assert table.renew("a", earlier).expires == earlier
    assert table.changes.upserts["a"].expires == earlier
    table.expire(20.0)
    assert ("a" in table.active) is active


@pytest.mark.parametrize("how", ["released", "expired"])
def test_what_ended_is_known_for_a_day(how: str) -> None:
    table = LeaseTable([lease("a", 1000.0)])
    if how == "released":
        table.release("a", 1000.0)
    table.expire(1000.0)
    with pytest.raises(TokenConflictError):
        table.find_by_token("token-a")
    table.expire(1000.0 + DAY - 1e-3)
    with pytest.raises(UnknownAllocationError, match=how):
        table.get("a")
    table.expire(1000.0 + DAY)
    assert table.find_by_token("token-a") is None
    with pytest.raises(UnknownAllocationError) as unknown:
        table.get("a")
    assert how not in str(unknown.value)


class StoredLeases:
    """Leases whose end is committed."""

    def __init__(self, *ended: EndedLease) -> None:
        self._ended = ended

    def ended_by_id(self, id_: str) -> EndedLease | None:
        return next((each for each in self._ended if each.id == id_), None)

    def ended_by_token(self, token: str) -> EndedLease | None:
        return next((each for each in self._ended if each.client_token == token), None)


def test_what_ended_before_a_restart_is_known_for_the_rest_of_its_day() -> None:
    table = LeaseTable(
        (), StoredLeases(EndedLease("a", "token-a", "released", 100.0), EndedLease("b", "token-b", "expired", 500.0))
    )
    table.release("a", 200.0)  # a repeated release
    with pytest.raises(UnknownAllocationError, match="expired"):
        table.release("b", 600.0)
    with pytest.raises(TokenConflictError, match="released"):
        table.find_by_token("token-a")
    table.expire(100.0 + DAY)
    assert table.find_by_token("token-a") is None
    with pytest.raises(TokenConflictError, match="expired"):
        table.find_by_token("token-b")
    assert table.changes.purge_until == 100.0
    assert not table.changes  # to purge is not worth a commit of its own
    table.expire(100.0 + DAY + PURGE_INTERVAL_SECONDS)
    assert table.changes.purge_until == 100.0 + PURGE_INTERVAL_SECONDS
    assert table.find_by_token("token-b") is None


def test_a_gpu_is_leased_once_and_free_after_its_end() -> None:
    table = LeaseTable([lease("a", 100.0, "GPU-1")])
    with pytest.raises(AllocationError, match="GPU-1"):
        table.add(lease("b", 100.0, "GPU-1"))
    assert table.changes == LeaseChanges()
    table.release("a", 1.0)
    table.add(lease("b", 100.0, "GPU-1"))
    assert table.lease_by_gpu == {"GPU-1": "b"}
    assert table.find_by_token("token-b") == table.get("b")


@pytest.mark.parametrize(
    ("changes", "something"),
    [
        (LeaseChanges(), False),
        (LeaseChanges(upserts={"a": lease("a", 1.0)}), True),
        (LeaseChanges(ended={"a": EndedLease("a", "t", "expired", 1.0)}), True),
        (LeaseChanges(purge_until=1.0), False),
    ],
)
def test_any_change_is_one_to_write(changes: LeaseChanges, something: bool) -> None:
    assert bool(changes) is something


def test_a_lease_that_is_made_and_ended_is_written_as_ended() -> None:
    table = LeaseTable()
    table.add(lease("a", 10.0))
    table.release("a", 5.0)
    assert not table.changes.upserts
    assert table.changes.ended["a"].at == 5.0
