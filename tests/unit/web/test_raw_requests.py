"""Raw bytes against the advisor's server: what RFC 9112 refuses is refused, and no body becomes a second request."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gpu_advisor.web.http.connection import HttpConnection, HttpRequest, text_response
from gpu_advisor.web.http.head import RequestError
from gpu_advisor.web.http.limits import ServerLimits
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.web.clients import exchange, serving

SMUGGLED = b"GET /echo?smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with serving() as found:
        yield found


def post(*fields: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((b"POST /echo HTTP/1.1", b"Host: a", *fields)) + b"\r\n\r\n" + body


REFUSED = {
    "negative length": (post(b"Content-Length: -1"), 400),
    "signed length": (post(b"Content-Length: +5", body=b"12345"), 400),
    "hexadecimal length": (post(b"Content-Length: 0x5", body=b"12345"), 400),
    "length with a space in it": (post(b"Content-Length: 1 2", body=b"12"), 400),
    "length with an underscore": (post(b"Content-Length: 1_0", body=b"1234567890"), 400),
    "empty length": (post(b"Content-Length:"), 400),
    "endless length": (post(b"Content-Length: " + b"9" * 5000), 400),
    "length in other digits": (post("Content-Length: ٣".encode(), body=b"123"), 400),
    "two lengths": (post(b"Content-Length: 0", b"Content-Length: 40", body=SMUGGLED), 400),
    "equal lengths twice": (post(b"Content-Length: 0", b"content-length: 0", body=SMUGGLED), 400),
    "list of lengths": (post(b"Content-Length: 0, 40", body=SMUGGLED), 400),
    "list of equal lengths": (post(b"Content-Length: 0, 0", body=SMUGGLED), 400),
    "length and chunked": (
        post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED), 400
    ),
    "chunked and length": (
        post(b"Transfer-Encoding: chunked", b"Content-Length: 40", body=b"0\r\n\r\n" + SMUGGLED), 400
    ),
    "space before the colon": (post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + SMUGGLED), 400),
    "tab before the colon": (post(b"Content-Length\t: 40", body=SMUGGLED), 400),
    "two codings": (post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400),
    "another coding": (post(b"Transfer-Encoding: gzip", body=SMUGGLED), 501),
    "coding before chunked": (post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n" + SMUGGLED), 501),
    "identity": (post(b"Transfer-Encoding: identity", body=SMUGGLED), 501),
    "xchunked": (post(b"Transfer-Encoding: xchunked", body=SMUGGLED), 501),
    "vertical tab in the coding": (post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n" + SMUGGLED), 400),
    "coding in HTTP/1.0": (b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    "folded line": (post(b"X: a", b" Content-Length: 40", body=SMUGGLED), 400),
    "folded coding": (post(b"Transfer-Encoding:", b" chunked", body=b"0\r\n\r\n" + SMUGGLED), 400),
    "line feed alone": (b"POST /echo HTTP/1.1\nHost: a\nContent-Length: 0\n\n" + SMUGGLED, 400),
    "carriage return alone": (post(b"X: a\rContent-Length: 40", body=SMUGGLED), 400),
    "null byte in a value": (post(b"X: a\0b"), 400),
    "control character in a value": (post(b"X: a\x1b[31m"), 400),
    "null byte in a name": (post(b"X\0: a"), 400),
    "space in a name": (post(b"X Y: a"), 400),
    "no name": (post(b": a"), 400),
    "no colon": (post(b"nonsense"), 400),
    "no host": (b"GET /echo HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET /echo HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "host with a quote": (b"GET /echo HTTP/1.1\r\nHost: a'$(id)'\r\n\r\n", 400),
    "host with a user": (b"GET /echo HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
    "host with a path": (b"GET /echo HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /echo\r\n\r\n", 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/1.10": (b"GET /echo HTTP/1.10\r\nHost: a\r\n\r\n", 400),
    "lower-case protocol": (b"GET /echo http/1.1\r\nHost: a\r\n\r\n", 400),
    "two spaces": (b"GET  /echo HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "tabs": (b"GET\t/echo\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "space in the target": (b"GET /echo x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "target without a slash": (b"GET echo HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "raw bytes in the target": (b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "method with brackets": (b"G{}T /echo HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "TLS on the plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "header without end": (b"GET /echo HTTP/1.1\r\nX: " + b"a" * 70_000, 431),
    "too many fields": (b"GET /echo HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 20_000 + b"\r\n", 431),
    "large body": (post(b"Content-Length: 3000000", body=b"x" * 3_000_000), 413),
    "chunk size with a sign": (post(b"Transfer-Encoding: chunked", body=b"+5\r\nhello\r\n0\r\n\r\n"), 400),
    "chunk size with 0x": (post(b"Transfer-Encoding: chunked", body=b"0x5\r\nhello\r\n0\r\n\r\n"), 400),
    "chunk size too long": (post(b"Transfer-Encoding: chunked", body=b"1" * 30 + b"\r\nhello\r\n0\r\n\r\n"), 400),
    "chunk without its end": (post(b"Transfer-Encoding: chunked", body=b"5\r\nhelloXX0\r\n\r\n" + SMUGGLED), 400),
    "negative chunk": (post(b"Transfer-Encoding: chunked", body=b"-1\r\n\r\n" + SMUGGLED), 400),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "status"), REFUSED.values(), ids=REFUSED)
def test_malformed_requests_get_one_answer(address: tuple[str, int], sent: bytes, status: int) -> None:
    answer = exchange(address, sent)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"smuggled" not in answer
    assert b"\r\nConnection: close\r\n" in answer


@pytest.mark.parametrize("sent", [b"HEAD /echo HTTP/1.1\r\n\r\n", b"HEAD nonsense\r\n\r\n", b"HEAD " + b"x" * 70_000])
def test_an_error_answers_head_without_a_body(address: tuple[str, int], sent: bytes) -> None:
    answer = exchange(address, sent)
    assert answer.startswith(b"HTTP/1.1 4")
    assert answer.endswith(b"\r\n\r\n")


ACCEPTED = {
    "absolute target": b"GET http://a/echo HTTP/1.1\r\nHost: a\r\n\r\n",
    "empty lines first": b"\r\n\r\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "leading zeros": post(b"Content-Length: 0005", body=b"hello"),
    "chunk extension": post(b"Transfer-Encoding: Chunked", body=b'5;a="b"\r\nhello\r\n0\r\n\r\n'),
    "trailer": post(b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"),
    "Latin-1 in a value": post(b"X: \xe4", b"Content-Length: 0"),
    "IPv6 host": b"GET /echo HTTP/1.1\r\nHost: [::1]:9817\r\n\r\n",
}


@pytest.mark.parametrize("sent", ACCEPTED.values(), ids=ACCEPTED)
def test_what_the_rfc_allows_is_served(address: tuple[str, int], sent: bytes) -> None:
    answer = exchange(address, sent)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_a_body_is_not_a_request(address: tuple[str, int]) -> None:
    sent = post(b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED)
    answer = exchange(address, sent)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert answer.endswith(SMUGGLED)


PARTS = st.one_of(
    st.sampled_from(
        [
            b"GET / HTTP/1.1\r\n", b"POST /x HTTP/1.1\r\n", b"Host: a\r\n", b"\r\n", b"Content-Length: 5\r\n", b"hello",
            b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"Connection: close\r\n", b"\n", b"\r",
            b"Expect: 100-continue\r\n", b" ", b":", b"HTTP/1.0\r\n", b"\0", b"Content-Length: 0\r\n",
        ]
    ),
    st.binary(max_size=20),
)  # fmt: skip


@given(parts=st.lists(PARTS, max_size=12), cuts=st.lists(st.integers(1, 40), max_size=8))
def test_any_bytes_give_requests_or_one_error(parts: list[bytes], cuts: list[int]) -> None:
    """However they are cut into packets: the same requests, and no error of another kind."""
    data = b"".join(parts)
    pieces, rest = [], data
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    assert _requests([data]) == _requests([*pieces, rest])


def _requests(pieces: list[bytes]) -> tuple[list[HttpRequest], int]:
    """The requests, answered one after the other, and the status of the error that ended them, or 0."""
    connection = HttpConnection(ServerLimits(), "test")
    found: list[HttpRequest] = []
    reusable = True
    try:
        for piece in pieces:
            request = connection.receive(piece)
            while request is not None:
                found.append(request)
                parts, reusable = connection.respond(text_response(200, "ok"))
                assert b"".join(parts).startswith(b"HTTP/1.1 200 ")
                if not reusable:
                    return found, 0
                request = connection.receive(b"")
    except RequestError as error:
        parts, reusable = connection.respond(text_response(error.status, str(error)))
        assert not reusable
        assert b"\r\nConnection: close\r\n" in b"".join(parts)
        return found, error.status
    return found, 0
