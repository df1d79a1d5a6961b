"""The write token that is created at the first start: on a full disk, again, and through a link."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from gpu_advisor.settings import ConfigError, WebSettings
from gpu_advisor.web.server import build_authenticator


def test_a_full_disk_leaves_no_empty_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be there at the next start, and nobody could say why the service does not."""
    web = WebSettings(write_token_file=str(tmp_path / "token"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ConfigError, match=r"write_token_file.*No space left.*with room"):
            build_authenticator(web)
    assert not list(tmp_path.iterdir())
    assert build_authenticator(web).protects_writes


def test_the_token_is_kept_and_for_this_user_only(tmp_path: Path) -> None:
    file = tmp_path / "token"
    before = os.umask(0)
    try:
        build_authenticator(WebSettings(write_token_file=str(file)))
    finally:
        os.umask(before)
    token = file.read_text()
    assert len(token.strip()) >= 43
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    build_authenticator(WebSettings(write_token_file=str(file)))
    assert file.read_text() == token


def test_a_token_file_in_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="write_token_file"):
        build_authenticator(WebSettings(write_token_file=str(tmp_path / "none" / "token")))
