"""Who may come in: users and tokens, over TLS; and what the settings refuse."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import certifi
import pytest
import requests
from flask.testing import FlaskClient
from gpu_advisor.allocation.client.backends import HttpBackend, LoginRequiredError
from gpu_advisor.commands.errors import CommandError
from gpu_advisor.commands.exporter_client import ExporterClient
from gpu_advisor.commands.http_client import AdvisorHttpClient
from gpu_advisor.settings import ConfigError, Settings
from gpu_advisor.state.view import SourceStatus, View
from gpu_advisor.web.api.app import ApiContext, create_app
from gpu_advisor.web.api.authentication import Authenticator, Login
from gpu_advisor.web.server import WebServer, build_authenticator
from pydantic import ValidationError

from tests.certificates import self_signed
from tests.servers import free_port
from tests.unit.advisor.builders import ExporterTarget, FakeClock, FakeSource, GpuSpec, ServiceHarness

HASH = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()


@pytest.fixture
def client() -> FlaskClient:
    view = View("c", SourceStatus("fake", "memory", False, "not_yet", "wait"))
    doors = ApiContext(
        lambda: view, lambda: (), lambda _id, _snooze: None, access=Authenticator({"ada": HASH}, "t0ken")
    )
    return create_app(doors).test_client()


@pytest.mark.parametrize("path", ["/", "/recommendations", "/metrics", "/openapi.json", "/static/page.css", "/nothing"])
def test_without_a_login_all_but_health_is_refused(client: FlaskClient, path: str) -> None:
    refused = client.get(path)
    assert (refused.status_code, refused.content_type) == (401, "application/problem+json")
    assert "Basic" in refused.headers["WWW-Authenticate"]
    assert client.get("/-/healthy").status_code == client.get("/-/ready").status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Basic YWRhOnJpZ2h0"}, 200),  # ada:right
        ({"Authorization": "basic YWRhOnJpZ2h0"}, 200),
        ({"Authorization": "Basic YWRhOndyb25n"}, 401),  # ada:wrong
        ({"Authorization": "Basic Ym9iOnJpZ2h0"}, 401),  # bob:right
        ({"Authorization": "Basic ÿ"}, 401),
        ({"Authorization": "Basic /w=="}, 401),
        ({"Authorization": "Basic YWRhOg=="}, 401),  # an empty password
        ({"Authorization": "Bearer t0ken"}, 200),
        ({"Authorization": "Bearer t0kenn"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "Digest t0ken"}, 401),
    ],
)
def test_logins(client: FlaskClient, headers: dict[str, str], status: int) -> None:
    for _ in range(2):  # what is remembered answers as what was checked
        assert client.get("/recommendations", headers=headers).status_code == status


def test_no_token_is_not_an_empty_token() -> None:
    assert Authenticator({"ada": HASH}, "").check("Bearer ", "") is not Login.FULL
    assert not Authenticator({}, "").login_required


@pytest.mark.parametrize(
    "web",
    [{"users": {"ada": "right"}}, {"users": {"a:b": HASH}}, {"users": {"": HASH}}, {"cert_file": "a.pem"}],
)
def test_settings_that_would_lock_out_or_let_in_are_refused(web: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate({"web": web})
    assert "right" not in str(refused.value)


@pytest.mark.parametrize(("content", "words"), [(None, "readable"), ("\n", "empty")])
def test_a_token_file_without_a_token_is_refused(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=words):
        build_authenticator(Settings.model_validate({"web": {"bearer_token_file": str(path)}}).web)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    self_signed(folder)
    return folder


@pytest.fixture
def running(tmp_path: Path, certificate: Path) -> Iterator[ServiceHarness]:
    chosen = Settings.model_validate(
        {
            "web": {
                "cert_file": str(certificate / "cert.pem"),
                "key_file": str(certificate / "key.pem"),
                "users": {"ada": HASH},
            }
        }
    )
    made = ServiceHarness(
        tmp_path, FakeSource([ExporterTarget("a:1", [GpuSpec("GPU-0", 0.0)])], chosen), FakeClock(), chosen
    ).after(0)
    yield made
    made.close()


def test_over_tls(running: ServiceHarness, certificate: Path) -> None:
    server = WebServer(running.service, f"127.0.0.1:{free_port()}")
    server.start()
    try:
        assert server.url.startswith("https://")
        trusted = str(certificate / "cert.pem")
        assert requests.get(f"{server.url}/recommendations", verify=trusted, timeout=60).status_code == 401
        answer = requests.get(f"{server.url}/recommendations", auth=("ada", "right"), verify=trusted, timeout=60)
        assert answer.status_code == 200
    finally:
        server.stop()


def test_a_given_ca_counts_whatever_the_environment_says(
    running: ServiceHarness, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Companies set REQUESTS_CA_BUNDLE for all programs; requests prefers it to what a session trusts."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    server = WebServer(running.service, f"127.0.0.1:{free_port()}")
    server.start()
    trusted = str(certificate / "cert.pem")
    try:
        with pytest.raises(CommandError, match="requires authentication"):
            AdvisorHttpClient(server.url, "", trusted).fetch("GET", f"{server.url}/recommendations")
        with pytest.raises(LoginRequiredError):
            HttpBackend(server.url, ca_file=trusted).status()
        with pytest.raises(CommandError, match="requires authentication"):
            ExporterClient(server.url, trusted, None).scrape()
        with pytest.raises(CommandError, match="--ca-file"):
            AdvisorHttpClient(server.url, "", None).fetch("GET", f"{server.url}/recommendations")
    finally:
        server.stop()


def test_a_certificate_that_is_not_there_is_reported_at_the_start(running: ServiceHarness) -> None:
    web = running.service.settings.web.model_copy(update={"cert_file": "/nowhere.pem"})
    running.service.settings = running.service.settings.model_copy(update={"web": web})
    with pytest.raises(ConfigError, match=r"web\.cert_file"):
        WebServer(running.service, f"127.0.0.1:{free_port()}")


def test_a_browser_that_is_refused_gets_a_page_without_anything_of_the_view(client: FlaskClient) -> None:
    refused = client.get("/", headers={"Accept": "text/html"})
    assert (refused.status_code, refused.mimetype) == (401, "text/html")
    assert "<h1>Sign in to gpu-advisor</h1>" in refused.text
    assert "Basic" in refused.headers["WWW-Authenticate"]
    assert "unsafe" not in refused.headers["Content-Security-Policy"]
    assert not re.search("prometheus|cluster|GPU", refused.text)
    assert client.get("/").mimetype == "application/problem+json"
