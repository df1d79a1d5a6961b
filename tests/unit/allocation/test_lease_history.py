"""The checker of lease histories, on histories that are right and on ones that are wrong in one way each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.lease_history_checker import ClusterGpu, Operation, violations

GPUS = {"a/0": ClusterGpu("a", "T4"), "a/1": ClusterGpu("a", "T4"), "b/0": ClusterGpu("b", "V100")}


def allocate(id_: str, at: float, *gpus: str, lease: float = 10.0, token: str = "", kind: str = "T4") -> Operation:
    return Operation(
        "allocate",
        at,
        at + 0.2,
        "ok",
        token or f"t-{id_}",
        id_,
        len(gpus),
        kind,
        gpus,
        at + 0.1,
        at + 0.1 + lease,
        lease,
    )


def refused(at: float, count: int = 1, kind: str = "T4") -> Operation:
    return Operation("allocate", at, at + 0.2, "refused", f"r{at}", count=count, gpu_type=kind, lease_seconds=10)


def renew(id_: str, at: float, lease: float = 10.0) -> Operation:
    return Operation("renew", at, at + 0.2, "ok", id=id_, expires=at + 0.1 + lease, lease_seconds=lease)


def release(id_: str, at: float) -> Operation:
    return Operation("release", at, at + 0.2, "ok", id=id_)


def listed(at: float, *ids: str) -> Operation:
    return Operation("list", at, at + 0.2, "ok", listed_leases=tuple((id_, f"t-{id_}") for id_ in ids))


VALID_HISTORIES = {
    "one after the other": [allocate("1", 0, "a/0"), release("1", 2), allocate("2", 3, "a/0"), listed(4, "2")],
    "within a release": [allocate("1", 0, "a/0"), release("1", 2), replace(allocate("2", 2, "a/0"), created_at=2.05)],
    "after expiry": [allocate("1", 0, "a/0", lease=1), allocate("2", 1.2, "a/0"), listed(2, "2")],
    "renewed": [allocate("1", 0, "a/0", lease=2), renew("1", 1, lease=5), listed(4, "1"), refused(4, 2)],
    "asked twice": [allocate("1", 0, "a/0"), replace(allocate("1", 0, "a/0"), begin=1, end=1.2)],
    "released late": [allocate("1", 0, "a/0", lease=1), replace(release("1", 3), outcome="ended")],
    "no answer": [
        replace(allocate("1", 0, "a/0", "a/1"), outcome="unknown", id="", gpus=(), created_at=0),
        refused(5),
        listed(6, "1"),
    ],
    "an answer after the end": [
        replace(allocate("1", 0, "a/0", "a/1"), outcome="ended", id="", gpus=(), created_at=0, end=5.0), refused(4),
    ],
    "no answer to a renewal": [
        allocate("1", 0, "a/0", "a/1", lease=2), replace(renew("1", 1), outcome="unknown"), listed(5, "1"), refused(6),
    ],
    "no room": [allocate("1", 0, "a/0", "a/1"), refused(1), refused(1, 2)],
    "room on no single node": [allocate("1", 0, "a/0"), refused(1, 2)],
}  # fmt: skip

INVALID_HISTORIES = {
    "double allocation": [allocate("1", 0, "a/0"), allocate("2", 1, "a/0")],
    "double allocation after a renewal": [allocate("1", 0, "a/0", lease=2), renew("1", 1), allocate("2", 5, "a/0")],
    "double allocation, the first lease is the longest": [
        allocate("1", 0, "a/0"), allocate("2", 1, "b/0", lease=1, kind="V100"), allocate("3", 5, "a/0"),
    ],
    "lost from the list": [allocate("1", 0, "a/0"), listed(1)],
    "lost for its renewal": [allocate("1", 0, "a/0"), replace(renew("1", 1), outcome="ended")],
    "lost for its release": [allocate("1", 0, "a/0"), replace(release("1", 1), outcome="ended")],
    "leaked after expiry": [allocate("1", 0, "a/0", lease=1), listed(3, "1")],
    "leaked after release": [allocate("1", 0, "a/0"), release("1", 1), listed(3, "1")],
    "leaked: renewed after release": [allocate("1", 0, "a/0"), release("1", 1), renew("1", 2)],
    "refused after expiry": [allocate("1", 0, "a/0", "a/1", lease=1), refused(3)],
    "refused after release": [allocate("1", 0, "a/0", "a/1"), release("1", 1), refused(2)],
    "refused with nobody there": [refused(0, kind="V100")],
    "other lease for a token": [allocate("1", 0, "a/0", token="t"), allocate("2", 1, "a/1", token="t")],
    "other lease with one id": [allocate("1", 0, "a/0"), replace(allocate("1", 1, "a/1"), token="t-1")],
    "wrong GPUs: type": [allocate("1", 0, "b/0")],
    "wrong GPUs: number": [replace(allocate("1", 0, "a/0"), count=2)],
    "wrong GPUs: one twice": [allocate("1", 0, "a/0", "a/0")],
    "wrong GPUs: unheard of": [allocate("1", 0, "c/0")],
    "made up": [listed(0, "9")],
    "made up: before it was asked for": [replace(allocate("1", 5, "a/0"), created_at=1.0)],
}  # fmt: skip


@pytest.mark.parametrize("name", VALID_HISTORIES)
def test_a_right_history_passes(name: str) -> None:
    assert violations(VALID_HISTORIES[name], GPUS) == []


@pytest.mark.parametrize("name", INVALID_HISTORIES)
def test_a_wrong_history_is_found_out(name: str) -> None:
    """And called by its name."""
    found = violations(INVALID_HISTORIES[name], GPUS)
    kinds = ("double allocation", "lost", "leaked", "refused", "other lease", "wrong GPUs", "made up")
    kind = next(each for each in kinds if name.startswith(each))
    assert any(each.startswith(kind) for each in found), found
