"""Pages of other sites in a browser inside the network: cross-site requests, and DNS rebinding."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient
from gpu_advisor.settings import Settings
from gpu_advisor.state.view import SourceStatus, View
from gpu_advisor.web.api.app import ApiContext, create_app
from gpu_advisor.web.api.authentication import Authenticator
from gpu_advisor.web.api.browser_guard import is_cross_site, is_known_host

OWN = {"Host": "10.0.0.1:9817"}


@pytest.mark.parametrize(
    ("method", "headers", "refused"),
    [
        ("POST", {}, False),  # no browser
        ("POST", {"Sec-Fetch-Site": "same-origin"}, False),
        ("POST", {"Sec-Fetch-Site": "none"}, False),  # typed into the address bar
        ("POST", {"Sec-Fetch-Site": "cross-site"}, True),
        ("POST", {"Sec-Fetch-Site": "same-site"}, True),
        ("POST", {"Sec-Fetch-Site": ""}, True),
        ("POST", {"Sec-Fetch-Site": "cross-site", "Origin": "http://10.0.0.1:9817"}, True),
        ("POST", {"Sec-Fetch-Site": "same-origin", "Origin": "https://proxy.example"}, False),
        ("POST", {"Origin": "http://10.0.0.1:9817"}, False),
        ("POST", {"Origin": "HTTP://10.0.0.1:9817"}, False),
        ("POST", {"Origin": "http://10.0.0.1:9818"}, True),
        ("POST", {"Origin": "http://10.0.0.1"}, True),
        ("POST", {"Origin": "http://evil.example"}, True),
        ("POST", {"Origin": "http://10.0.0.1:9817.evil.example"}, True),
        ("POST", {"Origin": "null"}, True),  # a sandboxed frame, a file, a data URL
        ("POST", {"Origin": ""}, True),
        ("POST", {"Origin": "http://10.0.0.1:9817/"}, True),  # an origin has no path
        ("POST", {"Origin": "https://gpu.example"}, False),  # web.external_url
        ("POST", {"Origin": "http://gpu.example"}, True),
        ("DELETE", {"Sec-Fetch-Site": "cross-site"}, True),
        ("PUT", {"Origin": "http://evil.example"}, True),
        ("GET", {"Sec-Fetch-Site": "cross-site"}, False),  # a link
        ("HEAD", {"Origin": "http://evil.example"}, False),
    ],
)
def test_requests_of_other_sites(method: str, headers: dict[str, str], refused: bool) -> None:
    assert is_cross_site(method, {**OWN, **headers}, ["https://gpu.example"]) is refused


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:9817", True), ("10.0.0.1", True), ("[::1]:9817", True), ("[fd00::1]", True), ("localhost:1", True),
        ("LOCALHOST", True), ("page.localhost", True), ("gpu.example", True), ("GPU.example.:443", True),
        ("evil.example:9817", False), ("gpu.example.evil.example", False), ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False), ("", False), ("2130706433", False), ("0x7f.1", False), ("127.1", False),
        ("gpu", False),
    ],
)  # fmt: skip
def test_names_of_this_server(host: str, known: bool) -> None:
    assert is_known_host(host, {"gpu.example"}) is known


def client(web: dict[str, object], access: Authenticator | None = None) -> FlaskClient:
    view = View("c", SourceStatus("fake", "memory", False, "not_yet", "wait"))
    context = ApiContext(
        lambda: view, lambda: (), lambda _id, _snooze: None, Settings.model_validate({"web": web}),
        access or Authenticator({}, ""),
    )  # fmt: skip
    return create_app(context).test_client()


@pytest.mark.parametrize("path", ["/", "/recommendations", "/metrics", "/openapi.json", "/static/page.css", "/nothing"])
def test_a_name_that_is_not_ours_is_refused_without_a_login(path: str) -> None:
    app = client({"allowed_hosts": ["Gpu.Example"], "external_url": "https://page.example/gpu"})
    for host in ("evil.example", "evil.example:9817"):
        answer = app.get(path, headers={"Host": host})
        assert answer.status_code == 421
        assert "web.allowed_hosts" in answer.text
    for host in ("gpu.example:9817", "page.example", "127.0.0.1:9817", "[::1]:9817", "localhost"):
        assert app.get(path, headers={"Host": host}).status_code in (200, 404)


def test_probes_need_no_name_and_logins_replace_it() -> None:
    assert client({}).get("/-/healthy", headers={"Host": "pod.example"}).status_code == 200
    with_login = client({}, Authenticator({}, "t0ken"))
    assert with_login.get("/metrics", headers={"Host": "evil.example"}).status_code == 401
    headers = {"Host": "evil.example", "Authorization": "Bearer t0ken"}
    assert with_login.get("/metrics", headers=headers).status_code == 200


CHANGES = [
    ("POST", "/recommendations/x/snooze"), ("DELETE", "/recommendations/x/snooze"), ("POST", "/api/v1/gpu/allocate"),
    ("POST", "/recommendations/x/feedback"),
    ("POST", "/api/v1/gpu/allocations/x/renew"), ("DELETE", "/api/v1/gpu/allocations/x"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_a_change_asked_for_by_another_site_is_refused(method: str, path: str) -> None:
    for access in (None, Authenticator({}, "t0ken"), Authenticator({}, "", "wr1te")):
        app = client({}, access)
        for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            for token in ("t0ken", "wr1te"):
                allowed = {"Authorization": f"Bearer {token}", **headers}
                assert app.open(path, method=method, headers=allowed, json={}).status_code == 403


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_the_write_token_protects_what_changes_state(method: str, path: str) -> None:
    app = client({}, Authenticator({}, "", "wr1te"))
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic Og=="},
    ):
        refused = app.open(path, method=method, headers=headers, json={})
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"].startswith("Bearer")
        assert "write_token_file" in refused.text
    answer = app.open(path, method=method, headers={"Authorization": "Bearer wr1te"}, json={})
    assert answer.status_code not in (401, 403)


@pytest.mark.parametrize("path", ["/", "/recommendations", "/metrics", "/openapi.json", "/-/healthy"])
def test_the_write_token_leaves_reads_open(path: str) -> None:
    assert client({}, Authenticator({}, "", "wr1te")).get(path).status_code == 200


def test_what_changes_nothing_needs_no_write_token() -> None:
    app = client({}, Authenticator({}, "", "wr1te"))
    assert app.post("/what-if", json={}).status_code == 503  # no evaluation yet
    assert app.post("/api/v1/gpu/validate", json={}).status_code == 503


def test_with_a_login_the_write_token_reads_nothing() -> None:
    app = client({}, Authenticator({}, "t0ken", "wr1te"))
    assert app.get("/metrics", headers={"Authorization": "Bearer wr1te"}).status_code == 401
    for token in ("t0ken", "wr1te"):
        answer = app.delete("/recommendations/x/snooze", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 404
