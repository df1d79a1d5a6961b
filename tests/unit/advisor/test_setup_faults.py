"""init and doctor among servers and files that mean no good."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from tests.unit.advisor.test_commands import Call, call
from tests.unit.sources.fake_http import fake_http, reply

__all__ = ["call"]  # a fixture

PAGE = 'gpu_exporter_build_info{version="1"} 1\ngpu_info{uuid="a",index="0",name="%s"} 1\ngpu_up{uuid="a"} 1\n'
HOSTILE = [
    "[" * 100_000,
    '{"data": ' * 30_000,
    "7", "null", "[]", '"x"', '{"data": null}', '{"data": {"result": {}}}', '{"data": {"result": [7]}}',
    '{"data": {"result": [{"metric": [], "value": 1}]}}', '{"data": {"groups": [{"rules": [null]}]}}',
    '{"status": "success", "data": {"result": [{"metric": {"__name__": 7}, "value": [0, "NaN"]}]}}', "\ufffd", "",
]  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE)
def test_doctor_survives_whatever_a_server_answers(call: Call, body: str) -> None:
    with fake_http(reply(200, body)) as server:
        code, out, _ = call("doctor", "--prometheus", server.url, "--alertmanager", server.url, "--grafana", server.url)
    assert code in (0, 1)
    assert "Prometheus" in out
    assert "Traceback" not in out


@pytest.mark.parametrize("form", ["table", "json"])
def test_doctor_shows_no_password_of_a_url(call: Call, form: str) -> None:
    url = "http://ada:s3cret@127.0.0.1:9"
    _, out, err = call(
        "doctor", "--prometheus", url, "--alertmanager", url, "--grafana", url, "--exporter", url, "--format", form
    )
    assert "127.0.0.1:9" in out
    assert "s3cret" not in out + err


@pytest.mark.parametrize("url", ["http://ada:s3cret@127.0.0.1:9", "ada:s3cret@127.0.0.1:9", "https://token@host/x"])
@pytest.mark.parametrize("option", ["--prometheus", "--exporter"])
def test_init_writes_and_prints_no_password(call: Call, tmp_path: Path, url: str, option: str) -> None:
    file = tmp_path / "a.yml"
    code, out, err = call("init", option, url, "--output", str(file))
    assert code == 1
    assert "leave it out" in err
    assert not file.exists()
    assert "s3cret" not in out + err
    assert "token" not in out + err


def test_init_keeps_the_old_file_where_the_disk_is_full(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.yml"
    file.write_text("old: settings\n")
    file.chmod(0o640)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with fake_http(reply(200, PAGE % "NVIDIA H100", "text/plain")) as exporter:
        arguments = ("init", "--exporter", exporter.url, "--output", str(file), "--force")
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            code, _, err = call(*arguments)
        assert (code, file.read_text()) == (1, "old: settings\n")
        assert "No space left" in err
        assert [each.name for each in tmp_path.iterdir()] == ["a.yml"]
        assert call(*arguments)[0] == 0
    assert "H100" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_init_writes_into_a_pipe_and_replaces_no_folder(call: Call, tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    with fake_http(reply(200, PAGE % "x", "text/plain")) as exporter:
        assert call("init", "--exporter", exporter.url, "--output", str(pipe))[0] == 0
        reader.join(10)
        assert call("init", "--exporter", exporter.url, "--output", str(tmp_path), "--force")[0] != 0
    assert "source:" in read[0]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize(
    "name", ["a\\u001b[2Jb", "x: y # z", "'\\\"", "\\u2028- a: b", "${HOME}", "{{ x }}", "!!python/x"]
)
def test_a_hostile_gpu_name_stays_a_comment(call: Call, tmp_path: Path, name: str) -> None:
    import yaml

    label = name.encode().decode("unicode_escape").replace("\\", "\\\\").replace('"', '\\"')
    file = tmp_path / "a.yml"
    with fake_http(reply(200, PAGE % label, "text/plain")) as exporter:
        code, out, err = call("init", "--exporter", exporter.url, "--output", str(file))
    assert code == 0, err
    assert out.replace("\n", "").isprintable()
    assert yaml.safe_load(file.read_text()).keys() == {"source"}
