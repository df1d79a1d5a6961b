"""Attacks on all routes there are, so that a new one is attacked, too: logins, other sites, paths, texts, lengths."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from flask import Flask
from gpu_advisor.settings import Settings
from gpu_advisor.state.view import PublishedRecommendation, SourceStatus, View
from gpu_advisor.web.api.app import ApiContext, create_app
from gpu_advisor.web.api.authentication import PUBLIC_PATHS, Authenticator
from gpu_advisor.web.api.operations import OPERATIONS

from tests.unit.advisor.builders import AT, GpuSpec, concluded

HOST = {"Host": "127.0.0.1:9817"}

#: Requests with a body that change nothing.
READING = {"what_if", "gpu_validate", "gpu_setup_tensorflow", "gpu_setup_pytorch"}
QUERY_PARAMETERS = (
    "q", "sort", "group", "show", "page", "per_page", "uuid", "item", "kind", "of", "node", "job", "unknown",
)  # fmt: skip

#: Parts of the page that hold no data.
OPEN = {*PUBLIC_PATHS}


def app(access: Authenticator | None = None) -> Flask:
    evaluation = concluded([GpuSpec("GPU-0", 0.0), GpuSpec("GPU-1", 0.7)])
    view = View(
        "c",
        SourceStatus("fake", "memory", True, last_success=AT),
        issued=tuple(PublishedRecommendation(str(i), AT, each) for i, each in enumerate(evaluation.recommendations)),
        evaluation=evaluation,
        evaluations=1,
    )
    context = ApiContext(
        lambda: view, lambda: (), lambda _id, _snooze: None, Settings(), access or Authenticator({}, ""),
        clock=lambda: AT, reload=lambda: None,
    )  # fmt: skip
    return create_app(context)


def routes(flask: Flask) -> Iterator[tuple[str, str, str]]:
    """Method, path and endpoint of each route."""
    for rule in flask.url_map.iter_rules():
        path = re.sub(r"<path:filename>", "page.css", re.sub(r"<(id_|name)>", "0", rule.rule))
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            yield method, path, rule.endpoint


def test_every_route_needs_the_login_if_there_is_one() -> None:
    flask = app(Authenticator({}, "secret"))
    client = flask.test_client()
    found = [
        (method, path)
        for method, path, _ in routes(flask)
        if client.open(path, method=method, headers=HOST).status_code != 401
    ]
    assert {path for _, path in found} == OPEN


def test_every_route_that_is_not_read_only_needs_the_write_token() -> None:
    flask = app(Authenticator({}, "", "token"))
    client = flask.test_client()
    changing = {endpoint for method, _, endpoint in routes(flask) if method != "GET"} - READING
    assert changing == {name for name, operation in OPERATIONS.items() if operation.changes_state}
    for method, path, endpoint in routes(flask):
        status = client.open(path, method=method, headers=HOST, json={}).status_code
        assert (status == 401) is (endpoint in changing), (method, path)


def test_no_route_that_takes_a_body_does_so_for_another_site() -> None:
    flask = app()
    client = flask.test_client()
    for method, path, _ in routes(flask):
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
            status = client.open(path, method=method, headers={**HOST, **headers}, json={}).status_code
            assert (status == 403) is (method != "GET"), (method, path, headers)


def test_no_route_answers_to_a_name_that_is_not_its_own() -> None:
    flask = app()
    client = flask.test_client()
    for method, path, _ in routes(flask):
        status = client.open(path, method=method, headers={"Host": "rebound.example"}).status_code
        assert status == (200 if path in OPEN else 421), path


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "'\"><img src=x onerror=alert(1)>", "\u202e{{7*7}}", "\0"]
)
def test_no_page_repeats_a_query_as_markup(text: str) -> None:
    flask = app()
    client = flask.test_client()
    for method, path, _ in routes(flask):
        if method != "GET":
            continue
        every = "&".join(f"{name}={quote(text)}" for name in QUERY_PARAMETERS)
        alone = [f"{path}?{name}={quote(text)}" for name in ("q", "uuid", "item")]
        for address in (f"{path}?{every}", *alone, f"{path.rstrip('/')}/{quote(text, safe='')}"):
            answer = client.get(address, headers={**HOST, "Accept": "text/html"})
            assert answer.status_code != 500, address
            if answer.mimetype == "text/html":
                assert "<script>alert" not in answer.text, address
                assert "<img src=x" not in answer.text, address
                assert "49" not in answer.text or "{{" not in text, address


def test_long_queries_get_short_answers() -> None:
    """No page repeats them, no error at length; nothing fails."""
    length = 60_000
    flask = app()
    client = flask.test_client()
    long, many = "A" * length, "&".join(f"a{number}={number}" for number in range(length // 10))
    for method, path, _ in routes(flask):
        if method == "GET":
            plain = len(client.get(path, headers=HOST).data)
            for address in (
                f"{path}?q={long}",
                f"{path}?{many}",
                f"{path}?page={'9' * length}",
                f"{path.rstrip('/')}/x/{long}",
            ):
                answer = client.get(address, headers={**HOST, "Accept": "text/html"})
                assert answer.status_code != 500, address[:80]
                assert len(answer.data) <= max(plain, 16_000) + length * 2, address[:80]


@pytest.mark.parametrize(
    "name",
    [
        "..%2f..%2fREADME", "../../pyproject.toml", "..%5c..%5cREADME", "%2e%2e/README", "/etc/passwd", "%00",
        "README", "GpuAdvisorIdleReclaim%00.html", "GpuAdvisorIdleReclaim.md.md", "GpuAdvisorIdleReclaim/../README",
        "*", "[a-z]*", "....//README", "%c0%ae%c0%ae%2fREADME", "A" * 10_000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("folder", ["/runbooks/", "/static/"])
def test_no_file_but_those_meant_is_served(folder: str, name: str) -> None:
    answer = app().test_client().get(folder + name, headers=HOST)
    assert answer.status_code in (308, 404)
    assert "root:" not in answer.text


def test_the_methods_that_nobody_meant_do_nothing() -> None:
    flask = app()
    client = flask.test_client()
    for path in {path for _, path, _ in routes(flask)}:
        known = {method for method, other, _ in routes(flask) if other == path} | {"HEAD", "OPTIONS"}
        for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"} - known:
            status = client.open(path, method=method, headers=HOST, json={}).status_code
            assert status in (403, 404, 405), (method, path)
