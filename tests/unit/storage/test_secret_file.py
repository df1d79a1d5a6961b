"""Tokens and passwords in files that change: the current one is used, and a broken file costs nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from gpu_advisor.sources.prometheus.connection import PrometheusClientConfig
from gpu_advisor.sources.prometheus.source import PrometheusSource
from gpu_advisor.storage.secret_file import SecretFile, reveal
from gpu_advisor.web.api.authentication import Authenticator, Login

from tests.unit.sources.fake_http import fake_http
from tests.unit.sources.test_prometheus import ENGINE, UP, ok


def written_in_place(path: Path, text: str) -> None:
    path.write_text(text)


def renamed(path: Path, text: str) -> None:
    (path.parent / "new").write_text(text)
    (path.parent / "new").replace(path)


def projected(path: Path, text: str) -> None:
    """As the kubelet does: a link to a directory is replaced, and the old directory removed."""
    version = path.parent / f"version-{text.strip()}"
    version.mkdir()
    (version / "token").write_text(text)
    (path.parent / "next").symlink_to(version)
    (path.parent / "next").replace(path.parent / "data")
    if not path.is_symlink():
        path.unlink()
        path.symlink_to(path.parent / "data" / "token")


@pytest.mark.parametrize("rotate", [written_in_place, renamed, projected])
def test_the_current_token_is_used_however_the_file_is_replaced(
    tmp_path: Path, rotate: Callable[[Path, str], None]
) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    token = SecretFile(path)
    assert [token(), token()] == ["first", "first"]
    for text in ("other", "third"):  # as long as the first
        rotate(path, text + "\n")
        assert reveal(token) == text


BROKEN = {"removed": None, "empty": b"\n", "two lines": b"a\nb", "not text": b"\xff\xfe", "control": b"a\x00b"}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_at_first_and_later_costs_nothing(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "token"

    def damage() -> None:
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)

    damage()
    with pytest.raises((OSError, ValueError), match="token"):
        SecretFile(path)
    path.write_text("good")
    token = SecretFile(path)
    damage()
    assert [token() for _ in range(3)] == ["good"] * 3
    assert len(caplog.records) == 1
    path.write_text("better")
    os.utime(path, ns=(1, 1))
    assert token() == "better"
    assert "good" not in caplog.text + repr(token)


def test_each_request_to_prometheus_has_the_current_token(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    with fake_http(ok()) as server:
        source = PrometheusSource(PrometheusClientConfig(server.url, bearer_token=SecretFile(path)), ENGINE)
        source.instant({"x": UP}, 0)
        path.write_text("second")
        source.instant({"x": UP}, 0)
        source.close()
    assert [each.headers["Authorization"] for each in server.requests] == ["Bearer first", "Bearer second"]


def test_the_web_server_takes_the_current_tokens_only(tmp_path: Path) -> None:
    login, write = tmp_path / "login", tmp_path / "write"
    login.write_text("l1")
    write.write_text("w1")
    access = Authenticator({}, SecretFile(login), SecretFile(write))
    login.write_text("login2")
    write.write_text("write2")
    worth = {token: access.check(f"Bearer {token}", "") for token in ("l1", "w1", "login2", "write2", "")}
    assert worth == {
        "l1": Login.NONE, "w1": Login.NONE, "login2": Login.FULL, "write2": Login.WRITE_TOKEN, "": Login.NONE,
    }  # fmt: skip
