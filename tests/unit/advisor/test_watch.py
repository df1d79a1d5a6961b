"""`watch`: lines for changes, refresh on a terminal."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from gpu_advisor.cli import main
from gpu_advisor.commands import COMMANDS, one_shot
from gpu_advisor.commands.errors import CommandError
from gpu_advisor.commands.watch import WatchState, lines

from tests.servers import free_port
from tests.unit.advisor.builders import FakeSource, source_error
from tests.unit.advisor.test_commands import Call, RunningAdvisor, call, live
from tests.unit.sources.fake_http import fake_http, reply

__all__ = ["call", "live"]  # pytest finds fixtures by their names


def run_watch(call: Call, live: RunningAdvisor) -> WatchState:
    advice = json.loads(call("recommend", "--advisor", live.web.url, "--format", "json")[1])
    checks = json.loads(call("check", "--advisor", live.web.url, "--format", "json")[1])["checks"]
    return WatchState(advice, tuple(checks))


def test_once(call: Call, live: RunningAdvisor) -> None:
    code, out, _ = call("watch", "--once", "--advisor", live.web.url)
    assert code == 0
    assert "Release 1 of 2 GPUs" in out
    assert "GPU 0" not in out
    assert "GPU 0" in call("watch", "--once", "--gpus", "--advisor", live.web.url)[1]
    assert call("watch", "--once", "--exit-code", "--advisor", live.web.url)[0] == 3
    code, _, err = call("watch", "--once", "--advisor", f"http://127.0.0.1:{free_port()}")
    assert (code, "--prometheus URL" in err) == (1, True)


def test_a_line_for_each_change_and_none_for_what_stays(call: Call, live: RunningAdvisor) -> None:
    first = run_watch(call, live)
    changes = list(lines(None, first))
    assert sum("Release" in line for line in changes) == 1
    assert list(lines(first, first)) == []
    cards = live.source.targets[0].cards
    cards[-2] = dataclasses.replace(cards[-2], utilization=0.7)  # the idle one works
    live.running.after(15)
    second = run_watch(call, live)
    changed = list(lines(first, second))
    assert any("resolved Release 1 of 2 GPUs" in line for line in changed)
    live.source.failure = source_error()
    live.running.after(15)
    third = run_watch(call, live)
    assert [line for line in lines(second, third) if "no connection" in line and "source" in line]
    assert not [line for line in lines(second, third) if "resolved " in line]  # missing data resolves nothing
    live.source.failure = None
    live.running.after(15)
    assert any("up again" in line for line in lines(third, run_watch(call, live)))


def test_one_source_for_the_life_of_watch(call: Call, live: RunningAdvisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """It detects the server once and caches histories; a failure of it ends nothing."""
    made: list[int] = []
    closed: list[int] = []
    looks: list[WatchState | CommandError] = []

    def source(_: object) -> FakeSource:
        made.append(1)
        return live.source

    def run_live(fetch: Callable[[], WatchState], *_: object) -> None:
        for failure in (None, source_error(), None):
            live.source.failure = failure
            try:
                looks.append(fetch())
            except CommandError as error:
                looks.append(error)
        assert not closed

    monkeypatch.setattr(one_shot, "one_shot_source", source)
    monkeypatch.setattr(live.source, "close", lambda: closed.append(1))
    monkeypatch.setattr("gpu_advisor.commands.live_display.run_live", run_live)
    assert call("watch", "--prometheus", "http://127.0.0.1:9")[0] == 0
    assert [type(look) for look in looks] == [WatchState, CommandError, WatchState]
    assert (made, closed) == ([1], [1])


def test_no_line_of_a_label_can_pass_for_another(call: Call, live: RunningAdvisor) -> None:
    look = run_watch(call, live)
    hostile = {**look.advice["recommendations"][0], "summary": "a\nb\x1b[2J\u202ec"}
    advice = {**look.advice, "recommendations": [hostile]}
    changes = list(lines(None, WatchState(advice, ())))  # type: ignore[arg-type]
    assert len(changes) == 1
    assert all(line.isprintable() for line in changes)


def test_top_names_an_exporter_that_does_not_answer(call: Call, tmp_path: Path) -> None:
    code, _, err = call("top", "--once", f"http://127.0.0.1:{free_port()}")
    assert (code, "gpu-advisor top http://NODE:9816" in err) == (1, True)
    for body in ("<html>", "# TYPE up gauge\nup 1\n"):
        with fake_http(reply(200, body, "text/plain")) as other:
            code, _, err = call("top", "--once", other.url)
            assert (code, "check the URL" in err) == (1, True)
    with fake_http(reply(401, "")) as other:
        assert "--password-file" in call("top", "--once", other.url)[2]
    assert call("top", "--user", "ada")[0] == 2
    assert call("top", "--user", "ada", "--password-file", str(tmp_path / "none"))[0] == 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(call: Call, shell: str) -> None:
    code, out, _ = call("completion", shell)
    assert (code, "_GPU_ADVISOR_COMPLETE" in out) == (0, True)


@pytest.mark.parametrize(
    ("words", "found"),
    [("gpu-advisor ", set(COMMANDS)), ("gpu-advisor wat", {"watch"}), ("gpu-advisor check --stat", {"--status"}),
     ("gpu-advisor check --status m", {"met", "missed"})],
)  # fmt: skip
def test_what_is_completed(
    words: str, found: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (
        ("_GPU_ADVISOR_COMPLETE", "bash_complete"), ("COMP_WORDS", words), ("COMP_CWORD", str(words.count(" ")))
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["gpu-advisor"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert {line.partition(",")[2] for line in capsys.readouterr().out.split()} == found


def test_csv_of_top_is_inert_text() -> None:
    from gpu_advisor.commands.node_snapshot import take_snapshot
    from gpu_advisor.commands.top import CSV_COLUMNS, _show

    from tests.unit.advisor.test_node import page

    hostile = page(1.0, gpu_info={(("index", "0"), ("name", "=cmd()"), ("uuid", "a")): 1.0})
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("sys.stdout", out)
        _show(take_snapshot(hostile), "csv")
    header, row = csv.reader(io.StringIO(out.getvalue()))
    assert tuple(header) == CSV_COLUMNS
    assert dict(zip(header, row, strict=True))["name"] == "'=cmd()"
