"""Clients of a lease service that is killed under them: they write down what they asked and what they were told.

Each asks for GPUs, looks at them, keeps some longer, and gives them back or lets them expire. What gets no answer is
asked again, an allocation with its token, until the service is back: so as a careful client does.
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
    """What each client does. Its requests are counted as they are answered, whatever the answer."""

    clients: int
    requests: int  # a client
    short_lease_seconds: float  # what is let expire
    long_lease_seconds: float  # what is released
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
        self.seconds: list[float] = []  # of each attempt that was answered

    def run(self) -> None:
        turn = 0
        while self._left > 0:
            turn += 1
            self._lease(f"{self._number}-{turn}")
        self._connection.close()

    def _lease(self, token: str) -> None:
        """One lease from its request to its end."""
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
        status, _ = self._ask("POST", f"{PATH}/validate", {"gpu_count": count, "gpu_type": kind})
        self.events.append(Operation("validate", begin, time.time(), _outcome(status), count=count, gpu_type=kind))

    def _allocate(self, token: str, count: int, kind: str, lease: float) -> str | None:
        begin = time.time()
        body = {"gpu_count": count, "gpu_type": kind, "client_token": token, "lease_seconds": lease}
        status, answer = self._ask("POST", f"{PATH}/allocate", body)
        outcome = _outcome(status)
        reported: dict[str, Any] = {}
        if outcome == "refused":
            reported = {"said": answer["detail"]}
            if answer["detail"].startswith("client_token"):  # made before a kill, and expired before it was heard of
                outcome = "gone"
        if outcome == "ok":
            uuids = tuple(uuid for node in answer["nodes"] for uuid in node["gpu_uuids"])
            reported = {
                "id": answer["id"], "gpus": uuids, "made": _seconds(answer["made"]),
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
                **reported,
            )
        )
        return reported.get("id")

    def _renew(self, id_: str, lease: float) -> None:
        begin = time.time()
        status, answer = self._ask("POST", f"{PATH}/allocations/{id_}/renew", {"lease_seconds": lease})
        expires = _seconds(answer["expires"]) if status == http.client.OK else 0.0
        self.events.append(
            Operation("renew", begin, time.time(), _outcome(status), id=id_, expires=expires, lease_seconds=lease)
        )

    def _release(self, id_: str) -> None:
        begin = time.time()
        status, _ = self._ask("DELETE", f"{PATH}/allocations/{id_}")
        self.events.append(Operation("release", begin, time.time(), _outcome(status), id=id_))

    def _list(self) -> None:
        self.events.append(listed(self._ask))

    def _ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The answer, asked for until there is one: 0 if there is none in the end."""
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
                self._connection.close()  # it opens again by itself
                time.sleep(0.05)
                continue
            if answer.status == http.client.SERVICE_UNAVAILABLE:  # just started: no machine is known yet
                time.sleep(0.05)
                continue
            self.seconds.append(time.perf_counter() - begun)
            self._answered()
            return answer.status, json.loads(text) if text else None
        return 0, None


def listed(ask: Callable[[str, str], tuple[int, Any]]) -> Operation:
    """A list of all allocations."""
    begin = time.time()
    status, answer = ask("GET", f"{PATH}/allocations")
    shown = tuple((each["id"], each["client_token"]) for each in answer["allocations"]) if answer else ()
    return Operation("list", begin, time.time(), _outcome(status), listed=shown)


def _outcome(status: int) -> Outcome:
    known: dict[int, Outcome] = {0: "unknown", 200: "ok", 204: "ok", 404: "gone", 409: "refused"}
    if status not in known:
        raise SystemExit(f"the service answered {status}")
    return known[status]


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def run_client_threads(
    port: int, numbers: Sequence[int], work: ClientWorkload, answered: Any, back: Connection
) -> None:
    """Many clients as the threads of one process; what they saw is sent back. `answered` is a shared counter."""
    lock = threading.Lock()

    def count() -> None:
        with lock, answered.get_lock():
            answered.value += 1

    clients = [Client(port, number, work, count) for number in numbers]
    with ThreadPoolExecutor(len(clients)) as pool:
        for each in [pool.submit(client.run) for client in clients]:
            each.result()
    back.send(([event for each in clients for event in each.events], [s for each in clients for s in each.seconds]))
