"""What clients of a lease service saw, and whether a correct service could have shown them that.

As testers of linearizability do (Herlihy and Wing, 1990; https://jepsen.io), each operation is an interval from the
client's call to its answer, and only what must hold whatever happened within these intervals is held against the
service. A lease is *surely* held from the moment that the service says it was made until its client first tries to
release it or until it expires as the service last said. It is *possibly* held from the call that asked for it until
its release is acknowledged or its latest possible expiry.

    given twice     two leases surely hold one GPU at one time
    lost            a lease that is surely held is not listed, or is refused its renewal or release
    leaked          a lease that is possibly held no more is listed, or is renewed
    refused         a request is refused although a node has enough GPUs that are possibly held by nobody
    other lease     one client token is answered with two leases
    wrong GPUs      of another number, type or node than was asked for
    made up         a lease is listed that nobody asked for, or was made outside of its call
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

#: Times in answers are whole milliseconds; clients and service read one machine's clock.
SLACK_SECONDS = 0.01

INFINITY = float("inf")

Outcome = Literal["ok", "refused", "gone", "unknown"]


@dataclass(frozen=True, slots=True)
class ClusterGpu:
    """A GPU that there is."""

    node: str
    gpu_type: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a client, from its first attempt to its answer (seconds since 1970).

    `outcome`: refused is for want of room, gone is an allocation that the service does not know, or that ended before
    its client heard of it, unknown is no answer. `said` are the service's words, `listed` the (id, token) of a list.
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
    made: float = 0.0
    expires: float = 0.0
    lease_seconds: float = 0.0
    listed: tuple[tuple[str, str], ...] = ()
    said: str = ""


@dataclass(slots=True)
class _LeaseRecord:
    """All that is known of one lease."""

    id: str
    token: str
    gpus: tuple[str, ...]
    called: float
    acknowledged_at: float
    made: float
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


def violations(events: Sequence[Operation], cards: Mapping[str, ClusterGpu]) -> list[str]:
    """All that no correct service could have done; empty for a history that is right."""
    leases, said = _leases(events)
    return [
        *said,
        *_mismatched_gpus(events, cards),
        *_double_allocations(leases),
        *_lost_or_leaked_leases(events, leases),
        *_unjustified_refusals(events, leases, cards),
    ]


def _leases(events: Sequence[Operation]) -> tuple[dict[str, _LeaseRecord], list[str]]:
    """The leases by id, and what is wrong with their making."""
    leases: dict[str, _LeaseRecord] = {}
    said: list[str] = []
    of_token: dict[str, str] = {}
    called: dict[str, float] = {}
    for event in events:
        if event.op == "allocate":
            called[event.token] = min(event.begin, called.get(event.token, INFINITY))
    for event in sorted((e for e in events if e.op == "allocate" and e.outcome == "ok"), key=lambda e: e.end):
        if of_token.setdefault(event.token, event.id) != event.id:
            said.append(f"other lease: token {event.token} was answered {of_token[event.token]}, then {event.id}")
        if event.id in leases:
            if leases[event.id].gpus != event.gpus:
                said.append(f"other lease: {event.id} has {leases[event.id].gpus}, then {event.gpus}")
            continue
        if not called[event.token] - SLACK_SECONDS <= event.made <= event.end + SLACK_SECONDS:
            said.append(f"made up: {event.id} was made at {event.made:.3f}, not between call and answer")
        leases[event.id] = _LeaseRecord(
            event.id, event.token, event.gpus, called[event.token], event.end, event.made, event.expires, event.expires
        )
    for event in sorted((e for e in events if e.op in ("renew", "release")), key=lambda e: e.end):
        lease = leases.get(event.id)
        if lease is not None:
            _apply_operation(lease, event)
    return leases, said


def _apply_operation(lease: _LeaseRecord, event: Operation) -> None:
    """What a renewal or a release tells of the lease."""
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
        holders.sort(key=lambda each: each.made)
        longest = holders[0]
        for _, after in pairwise(holders):
            if after.made + SLACK_SECONDS < longest.earliest_end:
                yield (
                    f"given twice: {gpu} to {after.id} at {after.made:.3f}, while {longest.id} held it "
                    f"until {longest.earliest_end:.3f}"
                )
            longest = max(longest, after, key=lambda each: each.earliest_end)


def _lost_or_leaked_leases(events: Sequence[Operation], leases: Mapping[str, _LeaseRecord]) -> Iterator[str]:
    tokens = {event.token for event in events if event.op == "allocate"}
    before = _known_expiries(events)
    for event in events:
        if event.op == "list" and event.outcome == "ok":
            shown = dict(event.listed)
            for lease in leases.values():
                if lease.certainly_active(event.begin, event.end) and lease.id not in shown:
                    yield f"lost: {lease.id} is not listed at {event.end:.3f}; it holds until {lease.earliest_end:.3f}"
                if lease.certainly_ended(event.begin) and lease.id in shown:
                    yield f"leaked: {lease.id} is listed at {event.begin:.3f}; it ended by {lease.latest_end:.3f}"
            for id_ in shown.keys() - leases.keys():
                if shown[id_] not in tokens:
                    yield f"made up: {id_} is listed, and nobody asked for it"
        if event.op in ("renew", "release") and event.id in leases:
            lease, expiry = leases[event.id], before[id(event)]
            alone = event.op == "release" or event.end < lease.release_requested_at
            if event.outcome == "gone" and alone and event.end < expiry - SLACK_SECONDS:
                yield f"lost: the {event.op} of {event.id} is refused at {event.end:.3f}; it holds until {expiry:.3f}"
            if event.op == "renew" and event.outcome == "ok" and lease.release_acknowledged_at < event.begin:
                yield f"leaked: {event.id} is renewed at {event.end:.3f} after its release"


def _known_expiries(events: Sequence[Operation]) -> dict[int, float]:
    """By renewal or release: until when its lease held as the service had said before."""
    known: dict[str, float] = {}
    found: dict[int, float] = {}
    for event in sorted(events, key=lambda each: each.end):
        if event.op in ("renew", "release"):
            found[id(event)] = known.get(event.id, 0.0)
        if event.op in ("allocate", "renew") and event.outcome == "ok":
            known[event.id] = event.expires
    return found


def _mismatched_gpus(events: Sequence[Operation], cards: Mapping[str, ClusterGpu]) -> Iterator[str]:
    for event in events:
        if event.op != "allocate" or event.outcome != "ok":
            continue
        strange = [gpu for gpu in event.gpus if gpu not in cards or cards[gpu].gpu_type != event.gpu_type]
        nodes = {cards[gpu].node for gpu in event.gpus if gpu in cards}
        if strange or len(set(event.gpus)) != event.count or len(event.gpus) != event.count or len(nodes) != 1:
            yield f"wrong GPUs: {event.id} has {event.gpus} for {event.count} x {event.gpu_type} of one node"


def _unjustified_refusals(
    events: Sequence[Operation], leases: Mapping[str, _LeaseRecord], cards: Mapping[str, ClusterGpu]
) -> Iterator[str]:
    """A request whose answer never came, or too late, may hold any GPU until its latest expiry: until then nothing can
    be said."""
    answered = {lease.token for lease in leases.values()}
    unclear = [
        (event.begin, event.end + event.lease_seconds)
        for event in events
        if event.op == "allocate" and event.outcome in ("unknown", "gone") and event.token not in answered
    ]
    holders: dict[str, list[tuple[float, float]]] = {gpu: [] for gpu in cards}
    for lease in leases.values():
        for gpu in lease.gpus:
            if gpu in holders:
                holders[gpu].append((lease.called, lease.latest_end + SLACK_SECONDS))
    for event in events:
        if event.op != "allocate" or event.outcome != "refused":
            continue
        if any(begin <= event.end and event.begin <= end for begin, end in unclear):
            continue
        free: dict[str, int] = {}
        for gpu, card in cards.items():
            if card.gpu_type == event.gpu_type and not any(
                begin <= event.end and event.begin <= end for begin, end in holders[gpu]
            ):
                free[card.node] = free.get(card.node, 0) + 1
        if max(free.values(), default=0) >= event.count:
            node = max(free, key=lambda name: free[name])
            yield (
                f"refused: {event.count} x {event.gpu_type} at {event.end:.3f}, though {free[node]} on {node} were "
                f"held by nobody: {event.said}"
            )
