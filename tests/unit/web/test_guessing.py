"""Guessing passwords costs the guesser, reveals nothing, and delays nobody else."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import bcrypt
import pytest
from gpu_advisor.web.api.authentication import LOGIN_KEY, Authenticator, Login
from gpu_advisor.web.api.guessing import BURST, MAX_ADDRESSES, SECONDS_PER_GUESS, GuessLimit, network_of
from gpu_advisor.web.server import RequestLanes

from tests.unit.web.clients import connect, exchange, serving, status_of

USERS = {name: bcrypt.hashpw(b"right", bcrypt.gensalt(cost)).decode() for name, cost in (("ada", 4), ("bob", 6))}


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_an_address_may_guess_so_often() -> None:
    now = [0.0]
    access = Authenticator(USERS, "", guesses=GuessLimit(lambda: now[0]))
    for number in range(BURST):
        assert access.check(basic("ada", f"wrong{number}"), "10.0.0.1") is Login.NONE
    assert access.check(basic("ada", "wrong"), "10.0.0.1") is Login.LIMITED
    assert access.check(basic("ada", "right"), "10.0.0.1") is Login.LIMITED  # or guessing would go on
    assert access.check(basic("ada", "right"), "10.0.0.2") is Login.FULL
    assert access.check(basic("ada", "right"), "10.0.0.1") is Login.FULL  # remembered: no guess
    now[0] = SECONDS_PER_GUESS
    assert access.check(basic("bob", "wrong"), "10.0.0.1") is Login.NONE
    assert access.check(basic("bob", "wrong"), "10.0.0.1") is Login.LIMITED


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False), ("::ffff:10.0.0.1", "10.0.0.1", True), ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False), ("fe80::1%eth0", "fe80::2%eth1", True), ("@", "@", True),
    ],
)  # fmt: skip
def test_networks(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same


def test_many_addresses_take_bounded_memory() -> None:
    limit = GuessLimit()
    for number in range(MAX_ADDRESSES + 100):
        limit.record_wrong(f"address {number}")
    assert len(limit._guesses) == MAX_ADDRESSES


def test_time_names_no_user(monkeypatch: pytest.MonkeyPatch) -> None:
    work = [0]
    check, hash_ = bcrypt.checkpw, bcrypt.hashpw

    def counted_check(password: bytes, hashed: bytes) -> bool:
        work[0] += 2 ** int(hashed[4:6])
        return check(password, hashed)

    def counted_hash(password: bytes, salt: bytes) -> bytes:
        work[0] += 2 ** int(salt[4:6])
        return hash_(password, salt)

    monkeypatch.setattr(bcrypt, "checkpw", counted_check)
    monkeypatch.setattr(bcrypt, "hashpw", counted_hash)
    access, costs = Authenticator(USERS, ""), []
    for name in ("ada", "bob", "nobody", "", "ada\0"):
        work[0] = 0
        assert access.check(basic(name, "wrong"), name) is Login.NONE
        costs.append(work[0])
    assert costs == [64] * 5


@pytest.mark.parametrize("password", ["", "x" * 73, "a\0b", "right\0"])
def test_passwords_that_bcrypt_cannot_take_are_wrong(password: str) -> None:
    assert Authenticator(USERS, "").check(basic("ada", password), "") is Login.NONE


def test_password_checks_have_a_lane_of_their_own() -> None:
    access = Authenticator(USERS, "t0ken")
    lanes = RequestLanes(access)

    def lane(path: str, authorization: str = "") -> str:
        return lanes.choose({"PATH_INFO": path, "HTTP_AUTHORIZATION": authorization, "REMOTE_ADDR": "10.0.0.1"})

    assert lane("/-/healthy", basic("ada", "x")) == "health"
    assert lane("/metrics", basic("ada", "x")) == lane("/", basic("ada", "x")) == "passwords"
    assert lane("/metrics", "Bearer t0ken") == lane("/metrics") == "metrics"
    assert lane("/recommendations") == "api"
    access.check(basic("ada", "right"), "")
    assert lane("/metrics", basic("ada", "right")) == "metrics"


def test_while_passwords_are_guessed_others_are_served() -> None:
    """As many guesses as the lane holds are waiting: the next guess is refused at once, all other requests pass."""
    access = Authenticator(USERS, "t0ken")
    lanes = RequestLanes(access)
    made = lanes.lanes()

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [str(environ.get(LOGIN_KEY)).encode()]

    def request(authorization: str) -> bytes:
        return f"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n\r\n".encode()

    from gpu_advisor.web.http.server import HttpServer

    original = HttpServer.__init__

    def with_lanes(self: HttpServer, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **{**named, "choose_lane": lanes.choose})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HttpServer, "__init__", with_lanes)
        with serving(lanes=made, app=app) as address:
            with access._lock:  # only the remembering of a right one waits: the checks go on
                guesses = [connect(address) for _ in range(60)]
                for number, client in enumerate(guesses):
                    client.sendall(request(basic("ada", f"wrong{number}")))
                assert status_of(exchange(address, request("Bearer t0ken"))) == 200
                statuses = [status_of(client.recv(1000)) for client in guesses]
            assert set(statuses) <= {200, 429}
            for client in guesses:
                client.close()
