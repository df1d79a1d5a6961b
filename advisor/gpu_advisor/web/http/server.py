"""The event loop: accepts connections, reads requests, hands them to workers, and sends their responses.

One thread does all input and output, without blocking. Requests that are complete go to the worker pool of their lane,
so that slow work in one lane delays no request of another.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

from gpu_advisor.web.http.clients import Client, ClientTable, PendingResponses, Phase
from gpu_advisor.web.http.connection import HttpConnection, HttpRequest, HttpResponse, text_response
from gpu_advisor.web.http.head import RequestError
from gpu_advisor.web.http.lanes import Lane, LaneWorkers
from gpu_advisor.web.http.limits import ServerLimits, limits_for_descriptors
from gpu_advisor.web.http.wsgi import Environ, WsgiApplication, build_environ

log = logging.getLogger(__name__)

RECEIVE_BYTES = 1 << 16
SEND_BYTES = 1 << 18
ACCEPTS_PER_TURN = 64
SENDS_PER_TURN = 2
#: For responses, in one turn of the loop: so soon the next requests are looked at.
TURN_SECONDS = 0.02
#: More sockets ready at once than this is a burst, which workers let pass for at most this long.
BUSY_EVENTS = 16
CATCH_UP_SECONDS = 0.1
DEADLINE_CHECK_SECONDS = 0.25
#: After an accept that failed without free descriptors or memory.
ACCEPT_BACKOFF_SECONDS = 0.2
STOP_SECONDS = 3.0
SWITCH_INTERVAL_SECONDS = 0.0005
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class HttpServer:
    """Serves a WSGI application at a bound, listening socket until `stop`.

    `choose_lane` names the lane of a request, and must not block.
    """

    def __init__(
        self,
        listener: socket.socket,
        application: WsgiApplication,
        *,
        server_name: str,
        lanes: Mapping[str, Lane],
        choose_lane: Callable[[Environ], str],
        tls: ssl.SSLContext | None = None,
        limits: ServerLimits | None = None,
    ) -> None:
        self._limits = limits_for_descriptors(limits or ServerLimits())
        self._listener = listener
        self._listener.setblocking(False)
        self._address = listener.getsockname()[:2]
        self._server_name = server_name
        self._tls = tls
        self._choose_lane = choose_lane
        self._selector = selectors.DefaultSelector()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        for end in (self._wake_receiver, self._wake_sender):
            end.setblocking(False)
        self._clients = ClientTable()
        self._pending = PendingResponses()
        self._urgent: deque[tuple[Client, HttpResponse]] = deque()
        self._completed: deque[tuple[Client, HttpResponse]] = deque()
        self._turns = 0
        self._caught_up = threading.Event()  # whether the loop has few clients to look at
        # While hundreds of requests arrive they are read first: the loop would wait for the interpreter between any
        # two system calls, and health checks among the requests with it.
        self._workers = LaneWorkers[Client](
            lanes, application, self._complete, lambda: self._caught_up.wait(CATCH_UP_SECONDS)
        )
        self._stopping = threading.Event()
        self._accepting = False
        self._accept_at = 0.0  # not before this time (monotonic clock)
        self._checked_at = 0.0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        # Each system call of the loop gives the interpreter away, and waits for it while workers compute.
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_SECONDS))
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Accept nothing more, let responses under way be taken for a few seconds, and close all connections."""
        self._stopping.set()
        self._wake()
        if self._thread:
            self._thread.join(2 * STOP_SECONDS)
        else:
            self._listener.close()
        self._workers.stop()

    # --- the loop's thread

    def _run(self) -> None:
        self._selector.register(self._wake_receiver, selectors.EVENT_READ, self._woken)
        try:
            while not self._stopping.is_set():
                self._turn()
            self._stop_accepting()
            self._listener.close()
            end = time.monotonic() + STOP_SECONDS
            while time.monotonic() < end and any(
                client.phase in (Phase.WORKING, Phase.SENDING) for client in self._clients
            ):
                self._turn()
        finally:
            for client in self._clients:
                self._close(client)
            self._selector.close()
            self._listener.close()
            self._wake_receiver.close()

    def _turn(self) -> None:
        """One round: wait for events, handle each, then deliver completed responses and enforce deadlines."""
        if not self._accepting and time.monotonic() >= self._accept_at and not self._stopping.is_set():
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
            self._accepting = True
        ready = self._selector.select(0 if self._completed else DEADLINE_CHECK_SECONDS)
        if len(ready) > BUSY_EVENTS:
            self._caught_up.clear()
        else:
            self._caught_up.set()
        end = time.monotonic() + TURN_SECONDS
        clients: list[Client] = []
        for key, _ in ready:
            if isinstance(key.data, Client):
                clients.append(key.data)
            else:
                key.data()
        # New requests before responses, which may be many and large. What a turn has no time for is ready in the next.
        self._turns += 1
        sending = [each for each in clients if each.phase is Phase.SENDING and not each.urgent]
        first = self._turns % len(sending) if sending else 0
        self._advance_all([each for each in clients if each.phase is not Phase.SENDING or each.urgent], float("inf"))
        self._deliver(self._urgent, float("inf"))
        self._deliver(self._completed, end)
        self._advance_all(sending[first:] + sending[:first], end)
        now = time.monotonic()
        if now - self._checked_at >= DEADLINE_CHECK_SECONDS:
            self._checked_at = now
            self._enforce_deadlines(now)

    def _advance_all(self, clients: list[Client], end: float) -> None:
        for client in clients:
            if client in self._clients:  # not closed by an earlier event of this turn
                self._guard(client, self._advance, client)
            if time.monotonic() > end:
                return

    def _deliver(self, completed: deque[tuple[Client, HttpResponse]], end: float) -> None:
        while completed:
            client, response = completed.popleft()
            client.urgent = completed is self._urgent
            if client in self._clients:
                self._guard(client, self._respond, client, response)
            if time.monotonic() > end:
                return

    def _guard(self, client: Client, step: Callable[..., object], *arguments: object) -> None:
        """Whatever fails in one connection ends that connection only."""
        try:
            step(*arguments)
        except OSError as error:
            log.debug("%s disconnected: %s", client.address, error)
            self._close(client)
        except Exception:
            log.exception("connection of %s failed", client.address)
            self._close(client)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                accepted, address = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                log.warning("cannot accept connections (%s): raise the limit of open files", error.strerror)
                self._accept_at = time.monotonic() + ACCEPT_BACKOFF_SECONDS
                self._stop_accepting()
                self._evict()
                return
            self._add(accepted, str(address[0]))

    def _stop_accepting(self) -> None:
        if self._accepting:
            self._selector.unregister(self._listener)
            self._accepting = False

    def _add(self, accepted: socket.socket, address: str) -> None:
        if len(self._clients) >= self._limits.connections:
            self._evict()
        try:
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                accepted = self._tls.wrap_socket(
                    accepted, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
                )
            client = Client(
                accepted,
                address,
                HttpConnection(self._limits, self._server_name),
                Phase.HANDSHAKE if self._tls else Phase.RECEIVING,
                time.monotonic() + self._limits.request_seconds,
            )
            self._selector.register(accepted, selectors.EVENT_READ, client)
        except OSError:  # already disconnected
            accepted.close()
            return
        self._clients.add(client)

    def _evict(self) -> None:
        victim = self._clients.least_deserving()
        if victim:
            self._close(victim)

    def _advance(self, client: Client) -> None:
        """Go on with a client whose socket is ready."""
        try:
            if client.phase is Phase.HANDSHAKE and isinstance(client.socket, ssl.SSLSocket):
                client.socket.do_handshake()
                client.phase = Phase.RECEIVING
            if client.phase is Phase.RECEIVING:
                self._receive(client)
            elif client.phase is Phase.SENDING:
                self._send(client)
            elif client.phase is Phase.DRAINING and not client.socket.recv(RECEIVE_BYTES):
                self._close(client)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as wanted:
            self._watch(client, _wanted_events(client, wanted))

    def _receive(self, client: Client) -> None:
        """Read until the request is complete, or nothing more is there."""
        data = b""  # first what the buffer has: a pipelined request
        while True:
            before = client.connection.begun
            try:
                request = client.connection.receive(data)
            except RequestError as error:
                self._respond(client, text_response(error.status, str(error)))
                return
            if client.connection.begun and not before:
                client.deadline = time.monotonic() + self._limits.request_seconds
            if interim := client.connection.take_interim():
                client.socket.send(interim)  # 25 bytes: a client that has no room for them gets none
            if request:
                self._hand_over(client, request)
                return
            data = client.socket.recv(RECEIVE_BYTES)
            if not data:
                self._close(client)
                return

    def _hand_over(self, client: Client, request: HttpRequest) -> None:
        environ = build_environ(request, client.address, self._address, "https" if self._tls else "http")
        client.phase = Phase.WORKING
        self._watch(client, 0)
        self._workers.enqueue(client, environ, self._choose_lane(environ))

    def _complete(self, client: Client, response: HttpResponse, lane: Lane) -> None:
        """From any thread."""
        (self._urgent if lane.urgent else self._completed).append((client, response))
        self._wake()

    def _respond(self, client: Client, response: HttpResponse) -> None:
        parts, client.keep_alive = client.connection.respond(response)
        client.phase = Phase.SENDING
        size = sum(map(len, parts))
        client.deadline = (
            time.monotonic() + self._limits.response_seconds + size / self._limits.slowest_bytes_per_second
        )
        client.output.extend(memoryview(part) for part in parts)
        try:
            self._send(client)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as wanted:
            self._watch(client, _wanted_events(client, wanted))
        if client.phase is Phase.SENDING:
            client.held = tuple(parts)
            self._pending.add(client.held)
            while self._pending.bytes > self._limits.pending_bytes and len(self._in_phase(Phase.SENDING)) > 1:
                self._close(min(self._in_phase(Phase.SENDING), key=lambda each: each.deadline))

    def _send(self, client: Client) -> None:
        for _ in range(SENDS_PER_TURN):
            if not client.output:
                break
            first = client.output[0]
            sent = client.socket.send(first[:SEND_BYTES])
            if sent < len(first):
                client.output[0] = first[sent:]
            else:
                client.output.popleft()
        if client.output:
            self._watch(client, selectors.EVENT_WRITE)
            return
        self._pending.remove(client.held)
        client.held = ()
        client.served += 1
        if not client.keep_alive or self._stopping.is_set():
            self._drain(client)
            return
        self._clients.mark_served(client)
        client.phase = Phase.RECEIVING
        seconds = self._limits.request_seconds if client.connection.begun else self._limits.idle_seconds
        client.deadline = time.monotonic() + seconds
        self._watch(client, selectors.EVENT_READ)
        try:
            self._receive(client)  # what TLS has decrypted already makes no socket readable
        except (BlockingIOError, ssl.SSLWantReadError):
            return

    def _drain(self, client: Client) -> None:
        """Say that nothing follows, and read what the client is still sending, for a moment."""
        client.phase = Phase.DRAINING
        client.deadline = time.monotonic() + self._limits.drain_seconds
        if isinstance(client.socket, ssl.SSLSocket):
            with suppress(OSError, ValueError):
                client.socket.unwrap()  # sends the close alert; its answer is not waited for
        socket.socket.shutdown(client.socket, socket.SHUT_WR)
        self._watch(client, selectors.EVENT_READ)

    def _enforce_deadlines(self, now: float) -> None:
        received = 0
        for client in self._clients:
            if client.phase is Phase.RECEIVING:
                received += client.connection.pending_bytes
            if client.phase is Phase.WORKING or now < client.deadline:
                continue
            if client.phase is Phase.RECEIVING and client.connection.begun:
                late = text_response(408, f"no complete request within {self._limits.request_seconds:g} s")
                self._guard(client, self._respond, client, late)
            else:
                self._close(client)
        if received > self._limits.pending_bytes:
            largest = max(self._in_phase(Phase.RECEIVING), key=lambda each: each.connection.pending_bytes)
            log.warning("requests under way exceed %d bytes: closing the largest", self._limits.pending_bytes)
            self._close(largest)

    def _in_phase(self, phase: Phase) -> list[Client]:
        return [client for client in self._clients if client.phase is phase]

    def _watch(self, client: Client, events: int) -> None:
        """Wait for these events of a client's socket; 0 for none."""
        registered = self._selector.get_map().get(client.socket)
        if registered is None:
            if events:
                self._selector.register(client.socket, events, client)
        elif not events:
            self._selector.unregister(client.socket)
        elif registered.events != events:
            self._selector.modify(client.socket, events, client)

    def _close(self, client: Client) -> None:
        if client not in self._clients:
            return
        self._clients.remove(client)
        self._pending.remove(client.held)
        client.held = ()
        self._watch(client, 0)
        client.socket.close()

    def _woken(self) -> None:
        with suppress(BlockingIOError):
            while self._wake_receiver.recv(4096):
                continue

    def _wake(self) -> None:
        with suppress(OSError):  # full: the loop is awake; closed: it has ended
            self._wake_sender.send(b"\0")


def _wanted_events(client: Client, wanted: OSError) -> int:
    """What to wait for before trying again: TLS says it itself."""
    if isinstance(wanted, ssl.SSLWantReadError):
        return selectors.EVENT_READ
    writes = isinstance(wanted, ssl.SSLWantWriteError) or client.phase is Phase.SENDING
    return selectors.EVENT_WRITE if writes else selectors.EVENT_READ
