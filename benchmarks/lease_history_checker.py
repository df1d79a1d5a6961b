"""Check whether the history that clients of a lease service recorded is possible for a correct service.

As in linearizability checkers (Herlihy and Wing, 1990; https://jepsen.io), each operation is an interval from the
client's request to its response, and a violation is what no ordering within these intervals allows. A lease is
*certainly* active from its creation time in the response until its client first tries to release it, or until the
latest expiry that the service returned. It is *possibly* active from the first request for it until its release is
acknowledged or its latest possible expiry.

    double allocation   two leases certainly have the same GPU at the same time
    lost                a lease that is certainly active is not listed, or its renewal or release is refused
    leaked              a lease that can no longer be active is listed or renewed
    refused             a request is refused although a node has enough GPUs that no lease can have
    other lease         one client token gets two leases
    wrong GPUs          of another number, type or node than requested
    made up             a lease is listed that no client requested, or was created outside its request
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

#: Times in answers are whole milliseconds; clients and service read one machine's clock.
SLACK_SECONDS = 0.01

INFINITY = float("inf")

Outcome = Literal["ok", "refused", "ended", "unknown"]


@dataclass(frozen=True, slots=True)
class ClusterGpu:
    """A GPU of the cluster."""

    node: str
    gpu_type: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a client, from its first attempt to its response (Unix time).

    `outcome`: refused for lack of free GPUs; ended, if the service does not know the lease or it ended before the
    response; unknown without a response. `message`: the service's reason. `listed_leases`: (id, token) of a list.
    """

    op: Literal["allocate", "renew", "release", "list", "validate"]
    begin: float
    end: float
    outcome: Outcome
    token: str = ""
    id: str = ""
    count: int = 0
    gpu_type: str = ""
    gpus: tuple[str, ...] = ()
    created_at: float = 0.0
    expires: float = 0.0
    lease_seconds: float = 0.0
    listed_leases: tuple[tuple[str, str], ...] = ()
    message: str = ""


@dataclass(slots=True)
class _LeaseRecord:
    """What the history shows of one lease."""

    id: str
    token: str
    gpus: tuple[str, ...]
    requested_at: float
    acknowledged_at: float
    created_at: float
    earliest_expiry: float
    latest_expiry: float
    release_requested_at: float = INFINITY
    release_acknowledged_at: float = INFINITY
    problems: list[str] = field(default_factory=list)

    @property
    def earliest_end(self) -> float:
        return min(self.earliest_expiry, self.release_requested_at)

    @property
    def latest_end(self) -> float:
        return min(self.latest_expiry, self.release_acknowledged_at)

    def certainly_active(self, begin: float, end: float) -> bool:
        return self.acknowledged_at <= begin and end < self.earliest_end - SLACK_SECONDS

    def certainly_ended(self, begin: float) -> bool:
        return self.latest_end + SLACK_SECONDS < begin


def violations(events: Sequence[Operation], gpus_by_uuid: Mapping[str, ClusterGpu]) -> list[str]:
    """Return what no correct service could have done; nothing for a valid history."""
    leases, found = _leases(events)
    return [
        *found,
        *_mismatched_gpus(events, gpus_by_uuid),
        *_double_allocations(leases),
        *_lost_or_leaked_leases(events, leases),
        *_unjustified_refusals(events, leases, gpus_by_uuid),
    ]


def _leases(events: Sequence[Operation]) -> tuple[dict[str, _LeaseRecord], list[str]]:
    """Return the leases by id, and the violations in their creation."""
    leases: dict[str, _LeaseRecord] = {}
    found: list[str] = []
    of_token: dict[str, str] = {}
    requested_at: dict[str, float] = {}
    for event in events:
        if event.op == "allocate":
            requested_at[event.token] = min(event.begin, requested_at.get(event.token, INFINITY))
    for event in sorted((e for e in events if e.op == "allocate" and e.outcome == "ok"), key=lambda e: e.end):
        if of_token.setdefault(event.token, event.id) != event.id:
            found.append(f"other lease: token {event.token} got {of_token[event.token]}, then {event.id}")
        if event.id in leases:
            if leases[event.id].gpus != event.gpus:
                found.append(f"other lease: {event.id} has {leases[event.id].gpus}, then {event.gpus}")
            continue
        if not requested_at[event.token] - SLACK_SECONDS <= event.created_at <= event.end + SLACK_SECONDS:
            found.append(f"made up: {event.id} was created at {event.created_at:.3f}, outside its request")
        leases[event.id] = _LeaseRecord(
            event.id,
            event.token,
            event.gpus,
            requested_at[event.token],
            event.end,
            event.created_at,
            event.expires,
            event.expires,
        )
    for event in sorted((e for e in events if e.op in ("renew", "release")), key=lambda e: e.end):
        lease = leases.get(event.id)
        if lease is not None:
            _apply_operation(lease, event)
    return leases, found


def _apply_operation(lease: _LeaseRecord, event: Operation) -> None:
    """Update the lease with the result of a renewal or release."""
    if event.op == "renew" and event.outcome == "ok":
        lease.earliest_expiry = event.expires
        lease.latest_expiry = max(lease.latest_expiry, event.expires)
    elif event.op == "renew" and event.outcome == "unknown":
        lease.latest_expiry = max(lease.latest_expiry, event.end + event.lease_seconds)
    elif event.op == "release":
        lease.release_requested_at = min(lease.release_requested_at, event.begin)
        if event.outcome == "ok":
            lease.release_acknowledged_at = min(lease.release_acknowledged_at, event.end)


def _double_allocations(leases: Mapping[str, _LeaseRecord]) -> Iterator[str]:
    by_gpu: dict[str, list[_LeaseRecord]] = {}
    for lease in leases.values():
        for gpu in lease.gpus:
            by_gpu.setdefault(gpu, []).append(lease)
    for gpu, holders in by_gpu.items():
        holders.sort(key=lambda each: each.created_at)
        longest = holders[0]
        for _, after in pairwise(holders):
            if after.created_at + SLACK_SECONDS < longest.earliest_end:
                yield (
                    f"double allocation: {gpu} to {after.id} at {after.created_at:.3f}, while {longest.id} has it "
                    f"until {longest.earliest_end:.3f}"
                )
            longest = max(longest, after, key=lambda each: each.earliest_end)


def _lost_or_leaked_leases(events: Sequence[Operation], leases: Mapping[str, _LeaseRecord]) -> Iterator[str]:
    tokens = {event.token for event in events if event.op == "allocate"}
    before = _known_expiries(events)
    for event in events:
        if event.op == "list" and event.outcome == "ok":
            shown = dict(event.listed_leases)
            for lease in leases.values():
                if lease.certainly_active(event.begin, event.end) and lease.id not in shown:
                    yield f"lost: {lease.id} is not listed at {event.end:.3f}; active until {lease.earliest_end:.3f}"
                if lease.certainly_ended(event.begin) and lease.id in shown:
                    yield f"leaked: {lease.id} is listed at {event.begin:.3f}; it ended by {lease.latest_end:.3f}"
            for id_ in shown.keys() - leases.keys():
                if shown[id_] not in tokens:
                    yield f"made up: {id_} is listed, and no client requested it"
        if event.op in ("renew", "release") and event.id in leases:
            lease, expiry = leases[event.id], before[id(event)]
            not_released = event.op == "release" or event.end < lease.release_requested_at
            if event.outcome == "ended" and not_released and event.end < expiry - SLACK_SECONDS:
                yield f"lost: the {event.op} of {event.id} is refused at {event.end:.3f}; active until {expiry:.3f}"
            if event.op == "renew" and event.outcome == "ok" and lease.release_acknowledged_at < event.begin:
                yield f"leaked: {event.id} is renewed at {event.end:.3f} after its release"


def _known_expiries(events: Sequence[Operation]) -> dict[int, float]:
    """Return, by id() of each renewal and release, the expiry of its lease that the service returned before."""
    known: dict[str, float] = {}
    found: dict[int, float] = {}
    for event in sorted(events, key=lambda each: each.end):
        if event.op in ("renew", "release"):
            found[id(event)] = known.get(event.id, 0.0)
        if event.op in ("allocate", "renew") and event.outcome == "ok":
            known[event.id] = event.expires
    return found


def _mismatched_gpus(events: Sequence[Operation], gpus_by_uuid: Mapping[str, ClusterGpu]) -> Iterator[str]:
    for event in events:
        if event.op != "allocate" or event.outcome != "ok":
            continue
        strange = [gpu for gpu in event.gpus if gpu not in gpus_by_uuid or gpus_by_uuid[gpu].gpu_type != event.gpu_type]
        nodes = {gpus_by_uuid[gpu].node for gpu in event.gpus if gpu in gpus_by_uuid}
        if strange or len(set(event.gpus)) != event.count or len(event.gpus) != event.count or len(nodes) != 1:
            yield f"wrong GPUs: {event.id} has {event.gpus} for {event.count} x {event.gpu_type} of one node"


def _unjustified_refusals(
    events: Sequence[Operation], leases: Mapping[str, _LeaseRecord], gpus_by_uuid: Mapping[str, ClusterGpu]
) -> Iterator[str]:
    """A request without a response, or with a late one, may have any GPU until its latest expiry: nothing is decided
    until then."""
    answered = {lease.token for lease in leases.values()}
    unclear = [
        (event.begin, event.end + event.lease_seconds)
        for event in events
        if event.op == "allocate" and event.outcome in ("unknown", "ended") and event.token not in answered
    ]
    holders: dict[str, list[tuple[float, float]]] = {gpu: [] for gpu in gpus_by_uuid}
    for lease in leases.values():
        for gpu in lease.gpus:
            if gpu in holders:
                holders[gpu].append((lease.requested_at, lease.latest_end + SLACK_SECONDS))
    for event in events:
        if event.op != "allocate" or event.outcome != "refused":
            continue
        if any(begin <= event.end and event.begin <= end for begin, end in unclear):
            continue
        free: dict[str, int] = {}
        for gpu, gpu_spec in gpus_by_uuid.items():
            if gpu_spec.gpu_type == event.gpu_type and not any(
                begin <= event.end and event.begin <= end for begin, end in holders[gpu]
            ):
                free[gpu_spec.node] = free.get(gpu_spec.node, 0) + 1
        if max(free.values(), default=0) >= event.count:
            node = max(free, key=lambda name: free[name])
            yield (
                f"refused: {event.count} x {event.gpu_type} at {event.end:.3f}, though {free[node]} on {node} were "
                f"free: {event.message}"
            )
