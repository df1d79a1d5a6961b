"""Clients of a lease service that is killed while they run; each records its requests and the responses.

Each client allocates GPUs, renews some leases, and releases them or lets them expire. It retries a request without a
response until the service is back, an allocation with the same client token.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.lease_history_checker import Operation, Outcome

PATH = "/api/v1/gpu"
GIVE_UP_SECONDS = 60.0


@dataclass(frozen=True)
class ClientWorkload:
    """What each client does. A request counts when it gets a response, whatever the response."""

    clients: int
    requests: int  # a client
    short_lease_seconds: float  # of leases that are left to expire
    long_lease_seconds: float  # of leases that are released
    types: tuple[str, ...]
    max_gpus: int
    list_share: float = 0.03
    pause_seconds: float = 0.0


class Client:
    """One client with one connection."""

    def __init__(self, port: int, number: int, work: ClientWorkload, answered: Callable[[], None]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._number = number
        self._work = work
        self._random = random.Random(number)
        self._answered = answered
        self._left = work.requests
        self.events: list[Operation] = []
        self.seconds: list[float] = []  # of each attempt with a response

    def run(self) -> None:
        turn = 0
        while self._left > 0:
            turn += 1
            self._lease(f"{self._number}-{turn}")
        self._connection.close()

    def stop(self) -> None:
        """End `run` after the present lease."""
        self._left = 0

    def _lease(self, token: str) -> None:
        """Run one lease from its request to its end."""
        work, dice = self._work, self._random
        count, kind = dice.randint(1, work.max_gpus), dice.choice(work.types)
        self._validate(count, kind)
        expires = dice.random() < 0.2
        made = self._allocate(token, count, kind, work.short_lease_seconds if expires else work.long_lease_seconds)
        if made is None:
            time.sleep(0.002 + work.pause_seconds)
            return
        if dice.random() < work.list_share:
            self._list()
        if dice.random() < 0.2:
            self._renew(made, work.short_lease_seconds if expires else work.long_lease_seconds)
        time.sleep(dice.random() * 0.02 + work.pause_seconds)
        if not expires:
            self._release(made)

    def _validate(self, count: int, kind: str) -> None:
        begin = time.time()
        status, _ = self._request("POST", f"{PATH}/validate", {"gpu_count": count, "gpu_type": kind})
        self.events.append(Operation("validate", begin, time.time(), _outcome(status), count=count, gpu_type=kind))

    def _allocate(self, token: str, count: int, kind: str, lease: float) -> str | None:
        begin = time.time()
        body = {"gpu_count": count, "gpu_type": kind, "client_token": token, "lease_seconds": lease}
        status, answer = self._request("POST", f"{PATH}/allocate", body)
        outcome = _outcome(status)
        result: dict[str, Any] = {}
        if outcome == "refused":
            result = {"message": answer["detail"]}
            if answer["detail"].startswith("client_token"):  # created before a kill, and expired before the retry
                outcome = "ended"
        if outcome == "ok":
            uuids = tuple(uuid for node in answer["nodes"] for uuid in node["gpu_uuids"])
            result = {
                "id": answer["id"], "gpus": uuids, "created_at": _seconds(answer["made"]),
                "expires": _seconds(answer["expires"]),
            }  # fmt: skip
        self.events.append(
            Operation(
                "allocate",
                begin,
                time.time(),
                outcome,
                token,
                count=count,
                gpu_type=kind,
                lease_seconds=lease,
                **result,
            )
        )
        return result.get("id")

    def _renew(self, id_: str, lease: float) -> None:
        begin = time.time()
        status, answer = self._request("POST", f"{PATH}/allocations/{id_}/renew", {"lease_seconds": lease})
        expires = _seconds(answer["expires"]) if status == http.client.OK else 0.0
        self.events.append(
            Operation("renew", begin, time.time(), _outcome(status), id=id_, expires=expires, lease_seconds=lease)
        )

    def _release(self, id_: str) -> None:
        begin = time.time()
        status, _ = self._request("DELETE", f"{PATH}/allocations/{id_}")
        self.events.append(Operation("release", begin, time.time(), _outcome(status), id=id_))

    def _list(self) -> None:
        self.events.append(list_allocations(self._request))

    def _request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Retry until there is a response; return status 0 if there is none within GIVE_UP_SECONDS."""
        self._left -= 1
        deadline = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < deadline:
            begun = time.perf_counter()
            try:
                headers = {"Content-Type": "application/json"} if body is not None else {}
                self._connection.request(method, path, json.dumps(body) if body is not None else None, headers)
                answer = self._connection.getresponse()
                text = answer.read()
            except (OSError, http.client.HTTPException):
                self._connection.close()  # the next request opens it again
                time.sleep(0.05)
                continue
            if answer.status == http.client.SERVICE_UNAVAILABLE:  # just started, and without an inventory
                time.sleep(0.05)
                continue
            self.seconds.append(time.perf_counter() - begun)
            self._answered()
            return answer.status, json.loads(text) if text else None
        return 0, None


def list_allocations(request: Callable[[str, str], tuple[int, Any]]) -> Operation:
    """List all allocations."""
    begin = time.time()
    status, answer = request("GET", f"{PATH}/allocations")
    shown = tuple((each["id"], each["client_token"]) for each in answer["allocations"]) if answer else ()
    return Operation("list", begin, time.time(), _outcome(status), listed_leases=shown)


def _outcome(status: int) -> Outcome:
    known: dict[int, Outcome] = {0: "unknown", 200: "ok", 204: "ok", 404: "ended", 409: "refused"}
    if status not in known:
        raise SystemExit(f"the service answered {status}")
    return known[status]


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def run_client_threads(
    port: int, numbers: Sequence[int], work: ClientWorkload, answered: Any, back: Connection
) -> None:
    """Run many clients as threads of one process, and send their events back. `answered` is a shared counter."""
    lock = threading.Lock()

    def count() -> None:
        with lock, answered.get_lock():
            answered.value += 1

    clients = [Client(port, number, work, count) for number in numbers]
    with ThreadPoolExecutor(len(clients)) as pool:
        for each in [pool.submit(client.run) for client in clients]:
            each.result()
    back.send(([event for each in clients for event in each.events], [s for each in clients for s in each.seconds]))
